"""Every option of a gRPC channel or server that matters here, set once, with its reason."""

from __future__ import annotations

from typing import cast

import grpc
from google.protobuf.internal import api_implementation

from agentmatrix.errors import AddressError, MissingExtra
from agentmatrix.transport.options import ClientOptions, ServerOptions
from agentmatrix.transport.watched_file import pem_source, read_pem

__all__ = [
    "ACCEPTED",
    "SERVICE",
    "channel_credentials",
    "channel_options",
    "require_fast_protobuf",
    "server_credentials",
    "server_options",
]

Options = list[tuple[str, int | str]]

SERVICE = "agentmatrix.wire.v1.AgentHost"

ACCEPTED = ("agentmatrix-wire", "1")
"""The initial metadata by which a host says that it has taken a stream."""

_METADATA_BYTES = 16 * 1024

# Pings find a dead peer within 13 seconds. They pass on a slow link, since the bytes under way are bounded by the time
# that they take (`flow.BytesInFlight`). Both ends have to agree: a server that does not expect them cuts silent
# streams with "too many pings".
_PING_EVERY_MS = 5_000
_PING_ANSWER_MS = 8_000


def _common() -> Options:
    return [
        ("grpc.keepalive_time_ms", _PING_EVERY_MS),
        ("grpc.keepalive_timeout_ms", _PING_ANSWER_MS),
        # The core waits a minute for an answer to a ping, whatever keepalive_timeout_ms says.
        ("grpc.http2.ping_timeout_ms", _PING_ANSWER_MS),
        # 0 is "as many as there are": a stream may be silent for hours while an agent thinks.
        ("grpc.http2.max_pings_without_data", 0),
        # Sends are bounded by the other side's max_receive_message_length.
        ("grpc.max_send_message_length", -1),
        # Equal, since between the two limits headers are rejected at random.
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
    ]


def channel_options(options: ClientOptions) -> Options:
    """The options of a caller's channel."""
    chosen: Options = [
        *_common(),
        # Counts decompressed bytes: without it some hundred kilobytes can become hundreds of megabytes.
        ("grpc.max_receive_message_length", options.max_message),
        # An http_proxy variable would send even loopback calls to the proxy.
        ("grpc.enable_http_proxy", 0),
        # A run is not idempotent; whether to try again is for the session to know.
        ("grpc.enable_retries", 0),
        # A failed attempt elsewhere in the process must not make this channel wait out its backoff.
        ("grpc.use_local_subchannel_pool", 1),
        # In gRPC's core this is the time that one attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", max(1, int(options.connect_timeout * 1000))),
        # The default of two minutes for a name server that does not answer.
        ("grpc.dns_ares_query_timeout", max(1, int(options.connect_timeout * 1000))),
    ]
    if options.server_name:
        chosen.append(("grpc.ssl_target_name_override", options.server_name))
    return chosen


def server_options(options: ServerOptions) -> Options:
    """The options of a host's server. `max_connection_age` stays unset, since it kills live runs."""
    return [
        *_common(),
        ("grpc.max_receive_message_length", options.max_message),
        ("grpc.keepalive_permit_without_calls", 1),
        # Less than the caller's interval, else its pings count as abuse.
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_EVERY_MS // 2),
        # A caller needs one stream; this brakes floods of streams that are opened and reset at once.
        ("grpc.max_concurrent_streams", 128),
        # With it gRPC resets calls of a caller that keeps to that number, which look like a host that is gone.
        ("grpc.http.overload_protection", 0),
        # Connections without a stream are of no use to anybody.
        ("grpc.max_connection_idle_ms", 300_000),
        ("grpc.server_handshake_timeout_ms", 10_000),
        # Else two hosts share a port without a word, and calls go to one or the other.
        ("grpc.so_reuseport", 0),
    ]


def channel_credentials(options: ClientOptions, secure: bool) -> grpc.ChannelCredentials | None:
    """The TLS credentials of a caller; None for plaintext.

    Raises:
        AddressError: a certificate cannot be read, or a key is missing.
    """
    if options.credentials is not None:
        if not isinstance(options.credentials, grpc.ChannelCredentials):
            raise AddressError(
                f"credentials= takes a grpc.ChannelCredentials, not {type(options.credentials).__name__}; "
                "a token goes into api_key="
            )
        return options.credentials
    if not secure and not options.secure:
        return None
    _require_pair(options.certificate, options.private_key)
    return grpc.ssl_channel_credentials(
        None if options.root_certificates is None else read_pem("root certificate file", options.root_certificates),
        None if options.private_key is None else read_pem("private key file", options.private_key),
        None if options.certificate is None else read_pem("certificate file", options.certificate),
    )


def server_credentials(options: ServerOptions) -> grpc.ServerCredentials | None:
    """The TLS credentials of a host; None for plaintext. Files are read again when they have changed.

    Raises:
        AddressError: a certificate cannot be read, or one of certificate and key is missing.
    """
    _require_pair(options.certificate, options.private_key)
    if options.certificate is None or options.private_key is None:
        if options.client_ca is not None:
            raise AddressError("an authority for callers' certificates needs the host's own certificate and key too")
        return None
    key = pem_source("private key file", options.private_key)
    certificate = pem_source("certificate file", options.certificate)
    authority = None if options.client_ca is None else pem_source("client authority file", options.client_ca)

    def read() -> tuple[bytes, bytes, bytes | None]:
        return key(), certificate(), None if authority is None else authority()

    known = [read()]

    def fetch() -> grpc.ServerCertificateConfiguration:
        # By gRPC, before each handshake. None, which its types do not know, says that nothing has changed.
        files = read()
        if files == known[0]:
            return cast(grpc.ServerCertificateConfiguration, None)
        known[0] = files
        return _configuration(*files)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(*known[0]), fetch, require_client_authentication=authority is not None
    )


def _configuration(key: bytes, certificate: bytes, authority: bytes | None) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)


def _require_pair(certificate: object, private_key: object) -> None:
    if (certificate is None) != (private_key is None):
        missing = "certificate" if certificate is None else "private key"
        raise AddressError(f"TLS needs a certificate and its private key; the {missing} is missing")


def require_fast_protobuf() -> None:
    """Refuse protobuf's pure-Python implementation, which parses hostile input slowly and recursively.

    Raises:
        MissingExtra: it is the one in use.
    """
    if api_implementation.Type() == "python":
        raise MissingExtra(
            "protobuf runs in its pure-Python mode, which is too slow and too weak for bytes from a network: unset "
            "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION, or run `pip install --force-reinstall protobuf` for a binary wheel"
        )
