"""LangGraph's `Auth` object (`langgraph_sdk`), as far as a host can honour it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langgraph_sdk import Auth

__all__ = ["authenticate_handler", "is_http_exception", "is_sdk_auth", "rules_of"]


def is_sdk_auth(value: Any) -> bool:
    """Whether this is an `Auth` object."""
    return isinstance(value, Auth)


def authenticate_handler(auth: Auth) -> Callable[..., Any] | None:
    """The function that was given to `@auth.authenticate`."""
    return auth._authenticate_handler


def rules_of(auth: Auth) -> list[str]:
    """What the functions given to `@auth.on` are for, such as `threads.create`; `*` is everything."""
    named = [".".join(key) for key in auth._handlers]
    return [*named, *["*"] * len(auth._global_handlers)]


def is_http_exception(error: BaseException) -> bool:
    """Whether a handler has refused its caller."""
    return isinstance(error, Auth.exceptions.HTTPException)
