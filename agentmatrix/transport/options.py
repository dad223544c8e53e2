"""The options of a connection, on either side."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from agentmatrix.transport.flow import ByteBudget
from agentmatrix.transport.watched_file import Pem

if TYPE_CHECKING:
    from agentmatrix.transport.authentication import Authenticate

__all__ = ["ClientOptions", "Pem", "ServerOptions", "is_secret", "memory_budget"]

MIB = 1 << 20


_SECRET = ("authorization", "cookie", "key", "password", "secret", "token")
"""What the names of headers with secrets have in them."""


def is_secret(header: str) -> bool:
    """Whether a header of this name has a value that nobody else may read."""
    return any(word in header.lower() for word in _SECRET)


def _checked_seconds(option: str, seconds: float | None) -> None:
    if seconds is not None and not 0 <= seconds < _LONGEST:
        raise ValueError(f"{option}= takes seconds, from 0 on, not {seconds!r}")


_LONGEST = 1e7
_LEAST_BUDGET = 2560 * MIB


@cache
def memory_budget() -> int:
    """Half of the machine's memory in bytes; at least what lets a value of 1 GiB pass."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on every system
        memory = 0
    return max(_LEAST_BUDGET, memory // 2)


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """How a caller connects. Two callers with equal options share one connection to a host.

    Attributes:
        token: sent as `authorization: Bearer <token>`; or the path of a file with it, which is read for each call.
        headers: sent with each stream and call; the host sees them in `Peer.metadata`.
        root_certificates: PEM of the authorities to trust instead of the system's, bytes or path; implies TLS.
        certificate: PEM of the caller's own certificate (mutual TLS), bytes or path; implies TLS.
        private_key: PEM of its key, bytes or path.
        server_name: the name to expect in the host's certificate, where it differs from the address.
        credentials: a ready `grpc.ChannelCredentials`, instead of the certificates above.
        insecure: allow a token to cross a plaintext connection that leaves this machine.
        max_frame: bytes; a larger frame from the host ends its run.
        max_bytes: bytes of large frames that are held for this host, in both directions; None for a quarter of the
            machine's memory.
        max_message: bytes; the largest gRPC message to accept.
        connect_timeout: seconds until a host that does not answer counts as unreachable.
        reconnect_timeout: seconds in which to take up a connection that was cut; 0 never. None for as long as the host
            keeps it, but not where nobody listens any more.
        has_replicas: whether other hosts have the agent: then what goes on there gives up one where nobody listens any
            more, whatever `reconnect_timeout` says.
    """

    token: str | os.PathLike[str] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    root_certificates: Pem | None = None
    certificate: Pem | None = None
    private_key: Pem | None = field(default=None, repr=False)
    server_name: str | None = None
    credentials: object | None = None
    insecure: bool = False
    max_frame: int = 1024 * MIB
    max_bytes: int | None = None
    max_message: int = 4 * MIB
    connect_timeout: float = 5.0
    reconnect_timeout: float | None = None
    has_replicas: bool = False

    def __post_init__(self) -> None:
        _checked_seconds("reconnect_timeout", self.reconnect_timeout)

    def key(self) -> Hashable:
        """Equal for options that may share a connection."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["headers"] = tuple(sorted(self.headers.items()))
        values["credentials"] = id(self.credentials)
        return tuple(values.values())

    def without_secrets(self) -> ClientOptions:
        """These options as a pickle may keep them: with the paths of files, without tokens, keys and secret headers."""
        return replace(
            self,
            token=None if isinstance(self.token, str) else self.token,
            headers={name: value for name, value in self.headers.items() if not is_secret(name)},
            private_key=None if isinstance(self.private_key, bytes) else self.private_key,
            credentials=None,
        )

    @property
    def secure(self) -> bool:
        """Whether something here asks for TLS, whatever the address says."""
        return any((self.root_certificates, self.certificate, self.credentials))


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a host serves.

    Attributes:
        token: what callers must send, or the path of a file with it; None admits every caller that can connect.
        tokens: the tokens of callers by their names, or the path of a file with lines of `name:token`.
        authenticate: takes the headers of a call and its peer, and returns who calls; None refuses.
        certificate: PEM of the host's certificate chain, bytes or path; with `private_key` it turns TLS on.
        private_key: PEM of its key, bytes or path.
        client_ca: PEM of the authority that callers' certificates must come from (mutual TLS), bytes or path.
        insecure: allow an address that others can reach without TLS and a token.
        max_runs: runs at a time, over all callers; more get `HostBusy`.
        max_streams: streams at a time, over all callers (a caller's process holds one); more get `HostBusy`, but one
            that has never started a run makes room for them.
        max_caller_streams: streams at a time over one connection.
        max_watches: callers that may watch the health of the host at a time; they need no token.
        start_timeout: seconds in which a new stream has to start a run.
        max_frame: bytes; a larger frame from a caller ends its run.
        max_bytes: bytes of large frames that are held, in both directions; None for half of the machine's memory.
        max_caller_bytes: of them for one stream; None for half of `max_bytes`.
        max_message: bytes; the largest gRPC message to accept.
        linger: seconds that the runs of a caller whose line was cut go on, so that it can take them up again.
    """

    token: str | os.PathLike[str] | None = field(default=None, repr=False)
    tokens: Mapping[str, str] | str | os.PathLike[str] | None = field(default=None, repr=False)
    authenticate: Authenticate | None = None
    certificate: Pem | None = None
    private_key: Pem | None = field(default=None, repr=False)
    client_ca: Pem | None = None
    insecure: bool = False
    max_runs: int = 10_000
    max_streams: int = 1_000
    max_caller_streams: int = 16
    max_watches: int = 100
    start_timeout: float = 10.0
    max_frame: int = 1024 * MIB
    max_message: int = 4 * MIB
    max_bytes: int | None = None
    max_caller_bytes: int | None = None
    linger: float = 0.0

    def __post_init__(self) -> None:
        _checked_seconds("linger", self.linger)

    @property
    def protection(self) -> str:
        """What protects the server, in words, without any secret."""
        encryption = "without TLS" if self.certificate is None else "with TLS"
        callers = "anybody"
        if self.token is not None:
            callers = "callers with the token"
        elif self.tokens is not None:
            callers = "callers with a token of their own"
        elif self.authenticate is not None:
            callers = "callers that authenticate() knows"
        elif self.client_ca is not None:
            callers = "callers with a certificate"
        return f"{encryption}, for {callers}"

    def budget(self) -> ByteBudget:
        """The budget of a host."""
        return ByteBudget(self.max_bytes or memory_budget(), "the host holds", "max_bytes")

    def caller_budget(self, host: ByteBudget) -> ByteBudget:
        """The budget of one stream to a host."""
        limit = self.max_caller_bytes or (self.max_bytes or memory_budget()) // 2
        return ByteBudget(limit, "the host holds for this caller", "max_caller_bytes", host)
