"""Who may see the page and act on it: a token in the first URL, a cookie afterwards, and no other site's requests.

The page runs code of its user, so a request must prove that it comes from the page itself. Another site in the same
browser cannot read the token, is not sent the `SameSite=Strict` cookie, and is refused by its `Origin` if it were; a
name that was rebound to this machine is refused by its `Host`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentmatrix.transport.target import is_loopback

__all__ = ["HEADERS", "PageAccess", "new_token"]

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
MOST_BYTES: Final = 16 << 20
"""Of what is sent to the page."""
_SIGN_IN: Final = "Open the address that was printed where the page was started: it ends with ?token=..."


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


class PageAccess:
    """Lets requests of the page pass, and of programs that have the token.

    Args:
        app: what is protected.
        token: that the first URL carries.
        host: the address that is listened at.
        port: of it.
        is_tls: whether the page is served over TLS.
    """

    def __init__(self, app: ASGIApp, token: str, host: str, port: int, *, is_tls: bool = False) -> None:
        self._app, self._token, self._is_tls = app, token, is_tls
        self._scheme = "https" if is_tls else "http"
        # The cookies of all ports of a machine are one jar.
        self._cookie_name = f"agentmatrix_ui_{port}"
        self._cookie = hmac.new(token.encode(), b"cookie", hashlib.sha256).hexdigest()
        # Behind TLS a name that was rebound has no certificate, and the cookie is not its own.
        names = {host, "127.0.0.1", "localhost", "[::1]"} if is_loopback(host) else None
        self._hosts = names and {f"[{name}]:{port}" if name.count(":") > 1 and name[0] != "[" else f"{name}:{port}"
                                 for name in names}  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        refusal = self._refusal(scope["method"], headers, given)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    own[name] = value
                if refusal is None and given and _same(given, self._token):
                    own.append("set-cookie", self._set_cookie())
            await send(message)

        await (refusal or self._app)(scope, receive, send_with_headers)

    def _set_cookie(self) -> str:
        secure = "; Secure" if self._is_tls else ""
        return f"{self._cookie_name}={self._cookie}; Path=/; HttpOnly; SameSite=Strict{secure}"

    def _refusal(self, method: str, headers: Headers, given: str) -> Response | None:
        host = headers.get("host", "").lower()
        if self._hosts is not None and host not in self._hosts:
            return _refused(403, f"this page is not {host!r}: use the address that was printed")
        origin = headers.get("origin")
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if bearer and _same(bearer, self._token):
            # A program of the same user: browsers do not send this header by themselves.
            return self._unreadable(method, headers) if origin is None else _refused(403, "no browser has the token")
        if origin is not None and origin.lower() != f"{self._scheme}://{host}":
            return _refused(403, f"requests of {origin} are refused")
        is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if not is_link and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return _refused(403, "requests of another site are refused")
        is_known = _same(_cookie(headers, self._cookie_name), self._cookie)
        if method in ("GET", "HEAD"):
            is_known = is_known or (bool(given) and _same(given, self._token))
            return None if is_known else _refused(401, _SIGN_IN)
        if origin is None:
            return _refused(403, "a request without an Origin needs the token as its Authorization")
        return self._unreadable(method, headers) if is_known else _refused(401, _SIGN_IN)

    def _unreadable(self, method: str, headers: Headers) -> Response | None:
        if method in ("GET", "HEAD"):
            return None
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _refused(415, "send application/json")
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return _refused(411, "say the length of what is sent")
        if int(length) > MOST_BYTES:
            return _refused(413, f"send at most {MOST_BYTES >> 20} MiB")
        return None


def _refused(status: int, text: str) -> Response:
    if status == 401:
        return PlainTextResponse(text, status)
    return JSONResponse({"error": text}, status)


def _cookie(headers: Headers, name: str) -> str:
    for part in headers.get("cookie", "").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
