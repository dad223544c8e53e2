"""The check of a caller's token. The same for every kind of server."""

from __future__ import annotations

import hmac

__all__ = ["token_error"]


def token_error(expected: str | None, given: str | bytes | None) -> str | None:
    """Why the `authorization` header of a caller is not valid; None when it is.

    Args:
        expected: the host's token; None when it asks for none.
        given: the whole header, `"Bearer <token>"`.
    """
    if expected is None:
        return None
    if given is None:
        return "it wants a token and got none (api_key=, or AGENTMATRIX_TOKEN)"
    given = given.encode() if isinstance(given, str) else given
    # In constant time: how long the comparison takes tells nothing of the token.
    if not hmac.compare_digest(given, f"Bearer {expected}".encode()):
        return "the token is not the right one"
    return None
