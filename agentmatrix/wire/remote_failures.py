"""The failure of a run as bytes: an exception that ends the caller's call as it ended the host's."""

from __future__ import annotations

import asyncio
from typing import Final

from agentmatrix.errors import DecodeError, EncodeError, RemoteError
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.exceptions import text_of, type_name_of

__all__ = ["decode_failure", "encode_failure", "raisable"]

_SHORT_TEXT: Final = 2_000


def encode_failure(error: BaseException, codec: Codec) -> bytes:
    """The bytes of an exception. Never raises: a part that cannot cross is replaced by its `repr`.

    Args:
        error: the exception, with or without a traceback.
        codec: allows the classes of arguments and attributes.
    """
    try:
        return codec.encode(error, "error")
    except (EncodeError, RecursionError, MemoryError):
        text = text_of(error)[:_SHORT_TEXT]
        return codec.encode(RemoteError(f"{type_name_of(error)}: {text}", type_name=type_name_of(error)))


def decode_failure(data: bytes, codec: Codec) -> BaseException:
    """The exception of some bytes.

    Args:
        data: bytes from `encode_failure`, or anything else that a peer sent.
        codec: allows the classes of arguments and attributes.

    Returns:
        The exception, with its own class if that is allowed or already imported, else a `RemoteError`.

    Raises:
        DecodeError: the bytes are no exception.
    """
    error = codec.decode(data, "error")
    if not isinstance(error, BaseException):
        raise DecodeError(f"error: a {type(error).__name__} where an exception was due")
    return error


def raisable(error: BaseException) -> BaseException:
    """A peer's exception as it may be raised here: what is no `Exception` but a `CancelledError` is a `RemoteError`.

    So no peer raises a SystemExit or a KeyboardInterrupt in this process.
    """
    if isinstance(error, (Exception, asyncio.CancelledError)):
        return error
    name = type_name_of(error)
    remote = RemoteError(f"{name.removeprefix('builtins.')}: {text_of(error)}", type_name=name)
    remote.__cause__, remote.__notes__ = error.__cause__, getattr(error, "__notes__", [])
    return remote
