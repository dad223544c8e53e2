"""The headers by which a caller says who it is."""

from __future__ import annotations

import os
from pathlib import Path

from agentmatrix.errors import AddressError
from agentmatrix.transport.options import ClientOptions, is_secret
from agentmatrix.transport.watched_file import file_stamp

__all__ = ["has_secret", "request_metadata", "token_stamp"]


def request_metadata(options: ClientOptions) -> tuple[tuple[str, str], ...]:
    """The headers of each call. A token in a file is read now.

    Raises:
        AddressError: gRPC cannot send one of them, or the file cannot be read.
    """
    headers = [(name.lower(), value) for name, value in options.headers.items()]
    if options.token is not None:
        headers.append(("authorization", f"Bearer {_token(options.token)}"))
    for name, value in headers:
        known = name.replace("-", "").replace("_", "").replace(".", "").isalnum() and name.isascii()
        if not known or name.startswith("grpc-") or name.endswith("-bin"):
            raise AddressError(f"{name!r} cannot be the name of a header over gRPC")
        if not (value.isascii() and value.isprintable()):
            what = "the token" if name == "authorization" else f"the header {name!r}"
            raise AddressError(f"{what} has characters that cannot be sent; only printable ASCII can")
    return tuple(headers)


def has_secret(options: ClientOptions) -> bool:
    """Whether something among the headers must not be read on the way: the token, or a header named like a secret."""
    return options.token is not None or any(map(is_secret, options.headers))


def token_stamp(options: ClientOptions) -> tuple[int, int, int] | None:
    """What changes with the file of the token; None where the token is in no file, or the file cannot be read."""
    if options.token is None or isinstance(options.token, str):
        return None
    try:
        return file_stamp(options.token)
    except OSError:
        return None


def _token(token: str | os.PathLike[str]) -> str:
    if isinstance(token, str):
        return token
    try:
        text = Path(token).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise AddressError(f"the token file {os.fspath(token)!r} cannot be read: {reason}") from None
    if not text:
        raise AddressError(f"the token file {os.fspath(token)!r} is empty")
    return text
