"""The address of a host: whether it may be bound, and why it could not be."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from agentmatrix.errors import AddressError
from agentmatrix.transport.options import ServerOptions
from agentmatrix.transport.target import is_loopback, split_port

__all__ = ["binding_error", "check_exposure", "socket_lock", "split_address"]

_MAX_PATH = 103


def split_address(address: str) -> tuple[str, int] | str:
    """Host and port to bind, or the path of a Unix socket.

    Raises:
        AddressError: the address cannot be understood.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        path = "/" + path.lstrip("/") if path.startswith("/") else path
        if not path or len(os.fsencode(path)) > _MAX_PATH:
            raise AddressError(f"{address!r}: the path of a socket has 1 to {_MAX_PATH} bytes")
        return path
    bare = address.removeprefix("grpc://").removeprefix("grpcs://")
    if "/" in bare:
        raise AddressError(f"{address!r} is no address to bind; write host:port, for example 127.0.0.1:50051")
    host, port = split_port(bare, address, lowest=0)
    # gRPC would bind one of the two addresses of localhost and call it success while another host has the other.
    return ("127.0.0.1" if host.lower() == "localhost" else host), port


def check_exposure(host: str, options: ServerOptions) -> None:
    """Reject an address that others can reach, unless it is protected.

    Raises:
        AddressError: says why and what to do.
    """
    if options.insecure or is_loopback(host):
        return
    missing = [
        what
        for what, given in (
            ("TLS (a certificate and its key)", options.certificate),
            ("a token", options.token or options.tokens or options.authenticate or options.client_ca),
        )
        if not given
    ]
    if missing:
        raise AddressError(
            f"{host} can be reached from other machines, so that anyone there could run code on this one: "
            f"add {' and '.join(missing)}, bind 127.0.0.1 behind an ssh tunnel, or say insecure"
        )


def binding_error(where: tuple[str, int] | str, tls: bool) -> AddressError:
    """The reason why gRPC, which gives none, could not bind: found by binding again.

    Args:
        where: host and port, or the path of a Unix socket.
        tls: whether certificates may be the reason.
    """
    failure = None if isinstance(where, str) else _bind_failure(*where)
    if failure is not None:
        return AddressError(failure)
    if tls:
        return AddressError("the certificate and key cannot be used: both must be PEM, and belong to each other")
    name = where if isinstance(where, str) else f"{where[0]}:{where[1]}"
    return AddressError(f"{name} could not be bound; try again or choose another address")


def _bind_failure(host: str, port: int) -> str | None:
    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, kind, proto, _, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(name)
            probe.listen()
    except socket.gaierror:
        return f"{at} cannot be bound: no machine of the name {host!r} is known"
    except OSError as error:
        return _describe(error, host, port, at)
    return None


def _describe(error: OSError, host: str, port: int, at: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another (--port), or stop what listens there"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{at} cannot be bound: {host} is no address of this machine"
    if error.errno == errno.EACCES:
        return f"{at} cannot be bound: ports below 1024 need privileges; choose another with --port"
    return f"{at} cannot be bound: {error.strerror}"


@contextmanager
def socket_lock(path: str) -> Iterator[None]:
    """Holds a Unix socket's path for one host, by a lock file beside it: binding alone would take it from another.

    Raises:
        AddressError: another host has it, or the folder cannot be written.
    """
    lock = f"{path}.lock"
    try:
        handle = _lock(lock)
    except BlockingIOError:
        raise AddressError(f"the socket {path} is in use by another host; choose another or stop that host") from None
    except OSError as error:
        raise AddressError(f"the socket {path} cannot be bound: {error.strerror}") from error
    try:
        yield
    finally:
        for leftover in (path, lock):
            try:
                os.unlink(leftover)
            except FileNotFoundError:
                pass
        os.close(handle)


def _lock(path: str) -> int:
    import fcntl  # not on Windows, where only this function needs it

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The host before may have removed the file between open and flock: then this lock guards nothing.
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
