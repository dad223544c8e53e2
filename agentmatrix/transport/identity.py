"""Who a caller is, as a host has found out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Identity"]


@dataclass(frozen=True)
class Identity:
    """A caller whom a host knows. Nodes see it as `runtime.server_info.user`, in the shape of LangGraph's `BaseUser`.

    Args:
        name: tells callers apart: of a token, of a certificate, or what `authenticate` returns.
        permissions: what it may do, in words of your own.
        details: more that your nodes want to know, by key.

    Raises:
        ValueError: the name is empty or cannot be printed.
    """

    name: str
    permissions: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or not self.name.isprintable():
            raise ValueError(f"{self.name!r} cannot be the name of an identity: it takes a printable text")

    @property
    def identity(self) -> str:
        """The name."""
        return self.name

    @property
    def display_name(self) -> str:
        """The name."""
        return self.name

    @property
    def is_authenticated(self) -> bool:
        """True."""
        return True

    def __getitem__(self, key: str) -> Any:
        return {**self.details, **self._own()}[key]

    def __contains__(self, key: object) -> bool:
        return key in self.details or key in self._own()

    def __iter__(self) -> Iterator[str]:
        return iter({**self.details, **self._own()})

    def _own(self) -> dict[str, Any]:
        own = {"identity": self.name, "display_name": self.name, "permissions": self.permissions}
        return {**own, "is_authenticated": True}

    def __str__(self) -> str:
        return self.name
