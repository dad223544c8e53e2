"""Finds out who a caller is: by its token, its certificate, or a function of the user's. The same for every server.

Whatever the way, on one host either all callers have an identity or none has: so a name cannot be taken by leaving it
out.
"""

from __future__ import annotations

import asyncio
import hmac
import inspect
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final, cast

from agentmatrix.errors import AddressError, Unauthenticated
from agentmatrix.transport.base import Peer
from agentmatrix.transport.identity import Identity
from agentmatrix.transport.options import ServerOptions
from agentmatrix.transport.watched_file import WatchedFile, pem_source

__all__ = ["AdmittedCaller", "Authenticate", "Authentication"]

Found = Identity | str | None
Authenticate = Callable[[Mapping[str, str], Peer], Found | Awaitable[Found]]
"""Takes the metadata of a call and its peer; returns who calls, or None to refuse."""

_logger = logging.getLogger(__name__)
REAUTHENTICATE_SECONDS: Final = 60.0
"""How often a function that authenticates is asked again about a caller whose connection lives on."""
_ANYBODY: Final = ""
"""The name of a token that tells callers from strangers, and not from each other."""


class Authentication:
    """Decides whom a host admits, and who they are.

    Args:
        options: of the server.

    Raises:
        AddressError: a token is empty, a file of tokens cannot be read, or two ways exclude each other.
    """

    def __init__(self, options: ServerOptions) -> None:
        if sum(way is not None for way in (options.token, options.tokens, options.authenticate)) > 1:
            raise AddressError("token=, tokens= and authenticate= exclude each other: give one of them")
        self._authenticate = options.authenticate
        self._by_certificate = options.client_ca is not None and options.tokens is None
        self._authority = None if options.client_ca is None else pem_source("client authority file", options.client_ca)
        self._tokens = _tokens(options)
        if self._tokens is not None:
            self._tokens()  # an error in the file is one of the start

    @property
    def blocks(self) -> bool:
        """Whether `admit` runs code of the user's, and so must not run on the I/O thread."""
        return self._authenticate is not None

    def tokens(self) -> Mapping[str, str] | None:
        """The tokens of now, another object when they change; None where none is asked for."""
        return None if self._tokens is None else self._tokens()

    def authority(self) -> bytes | None:
        """The authorities of callers' certificates of now."""
        return None if self._authority is None else self._authority()

    def admit(self, metadata: Mapping[str, str], peer: Peer) -> Peer:
        """The peer, with who it is.

        Args:
            metadata: all headers of the call, the token's included.
            peer: where the call comes from.

        Raises:
            Unauthenticated: it is not admitted; says why, and nothing that is secret.
        """
        if self._authenticate is not None:
            return replace(peer, user=self._asked(metadata, peer))
        user = None
        if self._tokens is not None:
            name = _named(self._tokens(), metadata.get("authorization"))
            user = None if name == _ANYBODY else Identity(name)
        if self._by_certificate and peer.encrypted:
            if not peer.identity:
                raise Unauthenticated("its certificate has no name")
            user = Identity(peer.identity[0])
        return replace(peer, user=user)

    def _asked(self, metadata: Mapping[str, str], peer: Peer) -> Identity:
        assert self._authenticate is not None
        try:
            found = _awaited(self._authenticate(dict(metadata), peer))
            user = Identity(found) if isinstance(found, str) else found
        except Exception:
            _logger.exception("authenticate() failed; the caller is refused")
            raise Unauthenticated("the host failed to find out who it is") from None
        if not isinstance(user, Identity):
            raise Unauthenticated("the host does not know it")
        return user


class AdmittedCaller:
    """A caller that was admitted, and whose token or certificate may be revoked while its connection lives.

    Not thread-safe, but `ask_again`, which runs code of the user's in a thread of its own.

    Args:
        authentication: of the host.
        metadata: all headers of the call, the token's included.
        peer: where the call comes from.

    Raises:
        Unauthenticated: it is not admitted.
    """

    def __init__(self, authentication: Authentication, metadata: Mapping[str, str], peer: Peer) -> None:
        self._authentication, self._metadata, self._from = authentication, metadata, peer
        self._tokens, self._authority = authentication.tokens(), authentication.authority()
        self.peer = authentication.admit(metadata, peer)

    def check_token(self) -> None:
        """Checks the caller against the tokens of now; costs little while they have not changed.

        Raises:
            Unauthenticated: its token is not among them, or another caller's.
        """
        if (tokens := self._authentication.tokens()) is not self._tokens:
            self._is_same(self._authentication.admit(self._metadata, self._from))
            self._tokens = tokens

    def check_certificate(self) -> None:
        """Checks whether the authorities of callers' certificates are those that its certificate was checked by.

        Raises:
            Unauthenticated: they have changed; only a handshake tells whether its certificate is from one of them.
        """
        if self._authentication.authority() != self._authority:
            raise Unauthenticated("the authorities of callers' certificates have changed; connect again")

    def ask_again(self) -> None:
        """Has the host's function authenticate the caller once more. Blocks.

        Raises:
            Unauthenticated: it refuses the caller now, or takes it for another.
        """
        self._is_same(self._authentication.admit(self._metadata, self._from))

    def _is_same(self, now: Peer) -> None:
        if now.user != self.peer.user:
            raise Unauthenticated("its token is another caller's now; connect again")


def _awaited(found: Any) -> Any:
    """The value of what may be awaitable. In a thread of its own, since the caller's may have a running loop."""
    if not inspect.isawaitable(found):
        return found
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _as_coroutine(found)).result()


async def _as_coroutine(found: Awaitable[Any]) -> Any:
    return await cast(Coroutine[Any, Any, Any], found)


def _tokens(options: ServerOptions) -> Callable[[], Mapping[str, str]] | None:
    """A function that returns the names of the tokens by token; None where no token is asked for."""
    if isinstance(options.token, str):
        given = {_checked(options.token, "the token"): _ANYBODY}
        return lambda: given
    if options.token is not None:
        path = os.fspath(options.token)
        return _read_again(
            WatchedFile("token file", path), lambda text: {_checked(text, f"the token in {path}"): _ANYBODY}
        )
    if isinstance(options.tokens, Mapping):
        named = {_checked(token, f"the token of {name!r}"): name for name, token in options.tokens.items()}
        for name in named.values():
            Identity(name)
        if len(named) < len(options.tokens) or not named:
            raise AddressError("tokens= takes a token of its own for each name, and one at least")
        return lambda: named
    if options.tokens is not None:
        where = os.fspath(options.tokens)
        return _read_again(WatchedFile("file of tokens", where), lambda text: parse_tokens(text, where))
    return None


def _read_again(file: WatchedFile, parse: Callable[[str], Mapping[str, str]]) -> Callable[[], Mapping[str, str]]:
    """Parses a file of tokens when it has changed. A file that has become wrong leaves the tokens as they were."""
    last: list[tuple[bytes, Mapping[str, str]]] = []

    def tokens() -> Mapping[str, str]:
        content = file.read()
        if not last or last[-1][0] != content:
            try:
                last[:] = [(content, parse(content.decode("utf-8", "replace").strip()))]
            except AddressError as error:
                if not last:
                    raise
                _logger.warning("%s; the tokens before it stay", error)
                last[:] = [(content, last[-1][1])]
        return last[-1][1]

    return tokens


def parse_tokens(text: str, path: str) -> Mapping[str, str]:
    """The names by token in lines of `name:token`; empty lines and those that begin with `#` do not count.

    Raises:
        AddressError: names the line, never the token.
    """
    if text.lstrip().startswith("{"):
        raise AddressError(f"{path} is JSON: write lines of name:token")
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, token = (part.strip() for part in line.partition(":"))
        if not colon or not name or not token:
            raise AddressError(f"line {number} of {path} is no name:token")
        if token in found or name in found.values():
            raise AddressError(f"line {number} of {path} has the name or the token of another line")
        found[_checked(token, f"the token in line {number} of {path}")] = name
    if not found:
        raise AddressError(f"{path} has no tokens: write lines of name:token")
    return found


def _checked(token: str, what: str) -> str:
    if not isinstance(token, str) or not token.strip():
        raise AddressError(f"{what} is empty, which would admit everyone; leave token= out to do so")
    if token != token.strip() or not (token.isascii() and token.isprintable()):
        raise AddressError(f"{what} has characters that cannot be sent; only printable ASCII can")
    return token


def _named(tokens: Mapping[str, str], given: str | None) -> str:
    """The name of the token in an `authorization` header, `"Bearer <token>"`.

    Raises:
        Unauthenticated: there is none, or it is not among the host's.
    """
    if given is None:
        raise Unauthenticated(
            "it wants a token and got none (token=, --token-file, or AGENTMATRIX_TOKEN with this host in "
            "AGENTMATRIX_TOKEN_HOSTS)"
        )
    # All are compared, each in constant time: how long it takes tells nothing of a token.
    header = given.encode()
    found = [name for token, name in tokens.items() if hmac.compare_digest(header, f"Bearer {token}".encode())]
    if not found:
        raise Unauthenticated("the token is not the right one")
    return found[0]
