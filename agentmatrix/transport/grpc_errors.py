"""Translates gRPC's status codes and texts into this package's errors, in one sentence each."""

from __future__ import annotations

import re

import grpc

from agentmatrix.errors import (
    AgentMatrixError,
    AgentNotFound,
    DeadlineExceeded,
    HostBusy,
    HostError,
    HostLost,
    HostUnreachable,
    PermissionDenied,
    Unauthenticated,
    VersionMismatch,
)

__all__ = ["call_error", "connect_error", "status_code", "timeout_error"]

_CODES: list[tuple[type[HostError], grpc.StatusCode]] = [
    (AgentNotFound, grpc.StatusCode.NOT_FOUND),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (HostBusy, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (VersionMismatch, grpc.StatusCode.FAILED_PRECONDITION),
    (DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
    (HostUnreachable, grpc.StatusCode.UNAVAILABLE),
]

_WANTS_CERTIFICATE = (
    "does it want a certificate from this caller? It takes one by ssl_certfile= and ssl_keyfile= (--ssl-certfile, "
    "--ssl-keyfile) that has not expired and is from an authority of the host's"
)
_CAUSES = [
    (
        r"WRONG_VERSION_NUMBER|HTTP_REQUEST",
        "the host at {at} does not speak TLS; use grpc:// or give it a certificate",
    ),
    (
        r"certificate has expired",
        "the certificate of the host at {at}, or of its authority, has expired; it needs a new one there",
    ),
    (
        r"certificate is not yet valid",
        "the certificate of the host at {at} is not valid yet; is the clock right, there and here?",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "the certificate of the host at {at} is not from an authority that is trusted here; "
        "pass the authority's certificate as ssl_ca= (--ssl-ca)",
    ),
    (
        r"Hostname Verification|No match found for server name|not in peer certificate",
        "the certificate of the host at {at} is for another name; connect by the name in it, "
        "or pass that as server_name= (--server-name)",
    ),
    (
        r"hostname lookup|DNS resolution|Domain name not found|Name or service not known|nodename nor servname",
        "no machine of the name in {at} is known; check the spelling",
    ),
    (r"Connection refused", "no host answers at {at}: the connection was refused; is it running there?"),
    (r"No such file or directory", "no host answers at {at}: there is no such socket; is it running?"),
    (
        r"timed out|Timeout occurred|Deadline",
        "no host answers at {at} in time; is the address right, and does a firewall let it through?",
    ),
    (
        # The older releases of gRPC say the second.
        r"security handshaker|empty address list",
        "the certificates for {at} cannot be used: ssl_ca=, ssl_certfile= and ssl_keyfile= must be PEM, and the key "
        "must belong to its certificate",
    ),
    (r"http1\.x|SETTINGS frame", "what answers at {at} does not speak gRPC; is the port right?"),
]
_REFUSED = r"Connection refused|No such file or directory"
_CLOSED = r"Socket closed|Connection reset|recvmsg"


def status_code(error: BaseException) -> grpc.StatusCode:
    """The status under which a host sends an error."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.INTERNAL


def connect_error(at: str, code: grpc.StatusCode, details: str, secure: bool) -> HostError:
    """The error of a host that has not taken a stream; nothing but headers has been sent to it.

    Args:
        at: the address, as the user wrote it.
        code: the status of the call that failed.
        details: its text.
        secure: whether TLS was spoken.
    """
    match code:
        case grpc.StatusCode.UNAUTHENTICATED:
            return Unauthenticated(f"the host at {at} refuses this caller: {details}")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            said = _plain(details)
            own = said.removeprefix("the host ")  # which says that it starts, or which of its limits is reached
            return HostBusy(f"the host at {at} {own}" if own != said else f"the host at {at} is busy: {said}")
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            error = HostUnreachable(_cause(at, details, secure))
            error.refused = re.search(_REFUSED, details) is not None
            error.closed = re.search(_CLOSED, details) is not None
            return error
        case grpc.StatusCode.NOT_FOUND:
            return HostLost(f"the host at {at} answers: {_plain(details)}")
        case grpc.StatusCode.OK | grpc.StatusCode.UNIMPLEMENTED:
            return HostUnreachable(f"what answers at {at} speaks gRPC but is no AgentMatrix host; is the port right?")
    return HostUnreachable(f"what answers at {at} is no AgentMatrix host ({code.name.lower()}: {_plain(details)})")


def timeout_error(at: str, seconds: float) -> HostUnreachable:
    """The error of a host that has not taken a stream in time."""
    return HostUnreachable(
        f"no host answers at {at} within {seconds:g} seconds; is the address right, and does a firewall let it through?"
    )


def call_error(
    at: str, code: grpc.StatusCode, details: str, secure: bool, timeout: float, connected: bool
) -> AgentMatrixError:
    """The error of a unary call to a host. Arguments as in `connect_error`.

    Args:
        timeout: seconds that were allowed.
        connected: whether the host has answered on this connection before.
    """
    match code:
        case grpc.StatusCode.NOT_FOUND:
            return AgentNotFound(details)
        case grpc.StatusCode.PERMISSION_DENIED:
            return PermissionDenied(details)
        case grpc.StatusCode.FAILED_PRECONDITION:
            return VersionMismatch(details)
        case grpc.StatusCode.DEADLINE_EXCEEDED if connected:
            return DeadlineExceeded(f"the host at {at} did not answer within {timeout:g} seconds")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return timeout_error(at, timeout)
        case grpc.StatusCode.INTERNAL:
            return HostLost(f"the host at {at} failed to answer: {_plain(details)}")
    return connect_error(at, code, details, secure)


def _cause(at: str, details: str, secure: bool) -> str:
    for pattern, sentence in _CAUSES:
        if re.search(pattern, details):
            return sentence.format(at=at)
    if re.search(_CLOSED, details):
        hint = _WANTS_CERTIFICATE if secure else "does it want TLS (grpcs://)?"
        return f"the host at {at} closed the connection at once; {hint}"
    return f"no host answers at {at}: {_plain(details)}"


def _plain(details: str) -> str:
    return details.removeprefix("failed to connect to all addresses; last error: ")[:300]
