"""What `agentmatrix serve` serves: the graphs of targets and of langgraph.json files, and what those say of a host."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentmatrix.cli.error_report import CommandError
from agentmatrix.cli.langgraph_json import LanggraphJson
from agentmatrix.cli.targets import load_attribute, load_hosted, split_name

__all__ = ["Served"]

_logger = logging.getLogger("agentmatrix.host")


@dataclass
class Served:
    """Arguments of `Host` that come from what is served.

    Attributes:
        graphs: graphs, and functions that make them, by name.
        descriptions: of those that have one.
        checkpointer: an object, or a function that makes one.
        store: likewise.
        authenticate: of the callers.
    """

    graphs: dict[str, Any] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    checkpointer: Any = None
    store: Any = None
    authenticate: Callable[..., Any] | None = None

    @classmethod
    def load(cls, targets: list[str]) -> Served:
        """What the targets name; without any it is the `langgraph.json` of this folder.

        Raises:
            CommandError: a target cannot be loaded, or two graphs have the same name.
        """
        served = cls()
        for target in targets or ["langgraph.json"]:
            if target.endswith(".json"):
                served._add_file(LanggraphJson.read(Path(target)))
            else:
                served._add(*split_name(target))
        return served

    def _add(self, name: str, target: str) -> None:
        if name in self.graphs:
            raise CommandError(f"two graphs are named {name!r}; name one of them otherwise: other={target}")
        self.graphs[name] = load_hosted(target)

    def _add_file(self, file: LanggraphJson) -> None:
        if file.ignored:
            _logger.warning("%s: not honoured here: %s", file.path, "; ".join(file.ignored))
        file.apply()
        for name, target in file.graphs.items():
            try:
                self._add(name, target)
            except CommandError as error:
                raise CommandError(f"{file.path}, graphs.{name}: {error}", error.code) from None
        self.descriptions |= file.descriptions
        self.checkpointer = self.checkpointer or (file.checkpointer and load_attribute(file.checkpointer))
        self.store = self.store or (file.store and load_attribute(file.store))
        if file.auth is not None:
            from agentmatrix.cli.sdk_auth_file import authenticate_of

            self.authenticate = authenticate_of(load_attribute(file.auth), file.auth)
