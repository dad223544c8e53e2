"""`auth` of a langgraph.json: LangGraph's `@auth.authenticate` as the `authenticate=` of a host."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from agentmatrix.cli.error_report import CommandError

__all__ = ["authenticate_of"]

_KNOWN: Final = ("authorization", "headers")
"""The parameters of a handler for which a call over gRPC has a value; the others are of HTTP."""


def authenticate_of(auth: Any, where: str) -> Callable[..., Any]:
    """A function for `Host(authenticate=)`.

    Args:
        auth: the object that langgraph.json names.
        where: its target, for errors.

    Raises:
        CommandError: it is none, has no handler, wants what there is only in HTTP, or has rules that no host can keep:
            a rule is never left out in silence.
    """
    from agentmatrix.pregel.sdk_auth import authenticate_handler, is_http_exception, is_sdk_auth, rules_of

    if not is_sdk_auth(auth):
        raise CommandError(f"{where} is of type {type(auth).__name__}, not a langgraph_sdk.Auth")
    if rules := rules_of(auth):
        raise CommandError(
            f"{where} has rules for {', '.join(rules)} (@auth.on), which are for the threads and assistants of "
            "LangGraph's server; say who may call which agent by --authorize, and leave the rules out"
        )
    handler = authenticate_handler(auth)
    if handler is None:
        raise CommandError(f"{where} has no function with @auth.authenticate")
    wanted = [name for name, given in inspect.signature(handler).parameters.items() if given.default is given.empty]
    if foreign := [name for name in wanted if name not in _KNOWN]:
        raise CommandError(
            f"the @auth.authenticate of {where} wants {', '.join(foreign)}, which a call over gRPC has not; "
            f"it may take {' and '.join(_KNOWN)}"
        )
    takes = [name for name in inspect.signature(handler).parameters if name in _KNOWN]

    async def authenticate(metadata: Mapping[str, str], peer: Any) -> Any:
        # Of an HTTP server's headers, names and values are bytes.
        headers = {name.encode(): value.encode() for name, value in metadata.items()}
        given = {"authorization": metadata.get("authorization"), "headers": headers}
        try:
            user = handler(**{name: given[name] for name in takes})
            return _identity(await user if inspect.isawaitable(user) else user)
        except Exception as error:
            if is_http_exception(error):
                return None
            raise

    return authenticate


def _identity(user: Any) -> Any:
    """The identity that a handler has returned: its name, a dict, or an object with `identity` and `permissions`."""
    from agentmatrix import Identity

    if user is None or isinstance(user, str):
        return user
    fields = dict(user) if isinstance(user, Mapping) else {name: getattr(user, name, None) for name in _FIELDS}
    name, permissions = fields.pop("identity"), fields.pop("permissions", None) or ()
    return Identity(str(name), permissions=tuple(permissions), details=fields)


_FIELDS: Final = ("identity", "permissions", "display_name", "is_authenticated")
