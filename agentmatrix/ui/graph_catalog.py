"""The graphs of the page: each is loaded by its target, and again when its file is mended."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from langgraph.graph import MessagesState

from agentmatrix.live.address import signal_addresses
from agentmatrix.remote.thread_memory import with_memory

__all__ = ["CatalogGraph", "GraphCatalog"]

_SECONDS: Final = 0.5
"""Between two looks at the files."""


@dataclass(slots=True)
class CatalogGraph:
    """A graph of the page.

    Args:
        name: on the page.
        target: as it was typed.
        load: makes the graph; raises what goes wrong.
        is_remote: whether it runs on a host.

    Attributes:
        graph: what was loaded last.
        schema: the JSON schema of its input; None where it has none.
        signals: the addresses of the signals that its live runs take.
        error: the traceback of what went wrong last; "" where it was loaded.
        version: another one where its picture may be another.
    """

    name: str
    target: str
    load: Callable[[], Any]
    is_remote: bool = False
    graph: Any = None
    schema: dict[str, Any] | None = None
    signals: tuple[str, ...] = ()
    error: str = ""
    version: int = 0

    @property
    def takes_messages(self) -> bool:
        """Whether plain text can be its input."""
        return "messages" in (self.schema or {}).get("properties", {})

    def describe(self) -> dict[str, Any]:
        """What the page says of it."""
        return {
            "name": self.name,
            "title": self.title,
            "target": self.target,
            "error": self.error,
            "schema": None if self.schema is None else {"properties": _types(self.schema)},
            "takesMessages": self.takes_messages,
            "signals": self.signals,
            "isRemote": self.is_remote,
            "version": self.version,
        }

    @property
    def title(self) -> str:
        """The graph's own name, where it has one."""
        own = self.graph.get_name() if self.graph is not None else "LangGraph"
        return self.name if own == "LangGraph" else str(own)

    def reload(self) -> None:
        """Load it, ready to pause and to be resumed; what goes wrong is told as its error."""
        try:
            graph = self.load()
            self.schema = _input_schema(graph)
            self.signals = tuple(sorted(signal_addresses(graph)))
            only_messages = list((self.schema or {}).get("properties", {})) == ["messages"]
            self.graph = with_memory(graph, MessagesState if only_messages else dict, name=graph.get_name())
            self.error = ""
        except (Exception, SystemExit) as error:
            self.error = _told(error)
        self.version += 1


class GraphCatalog:
    """The graphs by name.

    Args:
        graphs: in the order in which they are shown.
        reloads: whether a graph is loaded again when a file of its project changes; one that failed always is.
        on_change: told when a graph was loaded, on any thread.
    """

    def __init__(
        self, graphs: Iterable[CatalogGraph], *, reloads: bool = False, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._graphs = {graph.name: graph for graph in graphs}
        self._reloads, self.on_change = reloads, on_change
        self._ended = threading.Event()
        # The modules of the project that were imported for the graphs.
        self._modules: set[str] = set()
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[CatalogGraph]:
        return iter(self._graphs.values())

    def add(self, graph: CatalogGraph) -> None:
        """One more graph, before they are loaded."""
        self._graphs[graph.name] = graph

    def get(self, name: str) -> CatalogGraph | None:
        """The graph of a name."""
        return self._graphs.get(name)

    def describe(self) -> list[dict[str, Any]]:
        """What the page says of each."""
        return [graph.describe() for graph in self]

    def open(self) -> None:
        """Load all graphs, and look after their files until `close`."""
        for graph in self:
            self._load(graph)
        self._reach()
        threading.Thread(target=self._look, name="agentmatrix-ui-files", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    def reload(self, graph: CatalogGraph) -> None:
        """Load a graph again, with all modules of its project."""
        with self._lock:
            if not graph.is_remote:
                for name in self._modules:
                    sys.modules.pop(name, None)
            self._load(graph)
        self._reach()
        self.on_change()

    def _load(self, graph: CatalogGraph) -> None:
        before = set(sys.modules)
        graph.reload()
        self._modules |= _project_modules() - before

    def _reach(self) -> None:
        """Ask the hosts of remote members for their cards: the picture of a graph has then what is inside of them."""
        graphs = [graph for graph in self if graph.graph is not None]
        threading.Thread(
            target=_fetch_cards, args=(graphs, self.on_change), name="agentmatrix-ui-cards", daemon=True
        ).start()

    def _look(self) -> None:
        before = _changed_at()
        while not self._ended.wait(_SECONDS):
            now = _changed_at()
            if now == before:
                continue
            before = now
            for graph in self:
                if not graph.is_remote and (graph.error or self._reloads):
                    self.reload(graph)


def _fetch_cards(graphs: list[CatalogGraph], then: Callable[[], None]) -> None:
    for entry in graphs:
        with contextlib.suppress(Exception):
            # A host that is not there is told of when something is run.
            remote = [one for _, one in entry.graph.get_subgraphs(recurse=True) if getattr(one, "is_remote", False)]
            for agent in remote:
                _ = agent.card
            entry.version += bool(remote)
    then()


def _project_modules() -> set[str]:
    """The modules of the folder that the page was started in."""
    folder = f"{Path.cwd()}{os.sep}"
    return {name for name, module in list(sys.modules.items()) if _is_own(getattr(module, "__file__", None), folder)}


def _is_own(file: str | None, folder: str) -> bool:
    return bool(file) and str(file).startswith(folder) and "site-packages" not in str(file)


def _changed_at() -> dict[str, int]:
    """When the files of the project were changed: of its modules, and of the folder itself."""
    files = {getattr(sys.modules.get(name), "__file__", "") or "" for name in _project_modules()}
    files |= {str(path) for path in Path.cwd().glob("*.py")}
    found: dict[str, int] = {}
    for file in files:
        try:
            found[file] = os.stat(file).st_mtime_ns
        except OSError:
            continue
    return found


def _input_schema(graph: Any) -> dict[str, Any] | None:
    """The JSON schema of its input; None where it has none."""
    try:
        schema: dict[str, Any] = graph.get_input_jsonschema()
        return schema
    except Exception:
        # Pydantic has no JSON schema for some TypedDicts; such a graph runs all the same.
        return None


def _types(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By key, what the page needs for an example: definitions of messages are long."""
    properties: dict[str, Any] = schema.get("properties", {})
    return {key: {"type": one.get("type")} if isinstance(one, dict) else {} for key, one in properties.items()}


def _told(error: BaseException) -> str:
    """The traceback, from the project's own files on."""
    if error.__suppress_context__ and error.__context__ is not None:
        error = error.__context__  # A sentence for the terminal stands in front of it.
    frames = traceback.extract_tb(error.__traceback__)
    own = [number for number, frame in enumerate(frames) if frame.filename.startswith(str(Path.cwd()))]
    shown = frames[own[0] :] if own else []
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(shown)] if shown else []
    if not shown and type(error).__module__.startswith("agentmatrix."):
        return str(error)  # a sentence of ours
    return "".join([*lines, *traceback.format_exception_only(error)])
