"""Files of secrets and certificates: read again when they have changed."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from agentmatrix.errors import AddressError

__all__ = ["Pem", "WatchedFile", "file_stamp", "pem_source", "read_pem"]

Pem = bytes | str | os.PathLike[str]

_logger = logging.getLogger(__name__)


class WatchedFile:
    """A file that is read again when it has changed. While it cannot be read, its last content counts.

    Any thread may read; `_lock` keeps content and stamp together.

    Args:
        what: what is in it, for errors.
        path: where it is.

    Raises:
        AddressError: it cannot be read.
    """

    def __init__(self, what: str, path: str | os.PathLike[str]) -> None:
        self._what, self._path = what, Path(path)
        self._lock = threading.Lock()
        try:
            self._stamp, self._content = self._stat(), self._path.read_bytes()
        except OSError as error:
            raise AddressError(f"the {what} {os.fspath(path)!r} cannot be read: {error.strerror}") from error

    def read(self) -> bytes:
        """Its content."""
        with self._lock:
            try:
                stamp = self._stat()
                if stamp != self._stamp:
                    self._content = self._path.read_bytes()
                    self._stamp = stamp
            except OSError as error:
                _logger.warning("the %s %s cannot be read again: %s", self._what, self._path, error.strerror)
            return self._content

    def _stat(self) -> tuple[int, int, int]:
        return file_stamp(self._path)


def file_stamp(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """What changes with a file: time, size and number.

    Raises:
        OSError: it cannot be read.
    """
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_pem(what: str, source: Pem) -> bytes:
    """Bytes as they are, or the content of the file that `source` names.

    Raises:
        AddressError: the file cannot be read.
    """
    return source if isinstance(source, bytes) else WatchedFile(what, source).read()


def pem_source(what: str, source: Pem) -> Callable[[], bytes]:
    """A function that returns some bytes, or the content of the file that `source` names as it is now.

    Raises:
        AddressError: the file cannot be read.
    """
    return (lambda: source) if isinstance(source, bytes) else WatchedFile(what, source).read
