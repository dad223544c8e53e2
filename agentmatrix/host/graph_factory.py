"""Functions that make a graph for each run, as LangGraph's server knows them.

Such a function takes nothing, or the run's config, or a `ServerRuntime`, known by the annotations of its parameters. It
returns a graph or a builder, is sync or async, or a context manager of either kind, which is left when the run ends.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.pregel import Pregel

from agentmatrix.errors import NotAnAgentError
from agentmatrix.host.context_task import ContextTask
from agentmatrix.host.hosted_graph import as_graph
from agentmatrix.pregel import config_keys
from agentmatrix.pregel.server_runtime import is_server_runtime, server_runtime
from agentmatrix.transport.target import check_agent_name

__all__ = ["GraphFactory", "graph_factory", "hosted", "named_graphs"]

Graph = Pregel[Any, Any, Any, Any]

_CONFIG: Final = "config"
_RUNTIME: Final = "runtime"
_WORDS: Final = {"RunnableConfig": _CONFIG, "ServerRuntime": _RUNTIME}


class GraphFactory:
    """Makes a graph for each run.

    Args:
        function: see above.
        takes: what each of its parameters takes, "config" or "runtime", by the parameter's name.
        name: of the agent.

    Attributes:
        finish: is given each graph, and returns the one that runs.
    """

    def __init__(self, function: Callable[..., Any], takes: dict[str, str], name: str | None = None) -> None:
        self._function, self._takes, self.name = function, takes, name
        self.finish: Callable[[Graph], Graph] = lambda graph: graph

    def example(self, loop: asyncio.AbstractEventLoop) -> Graph:
        """A graph of the kind that the function makes, from a config without anything in it: for the agent's card.

        Raises:
            NotAnAgentError: it makes none; says why.
        """
        try:
            with self.open({"configurable": {}}, loop, is_run=False) as graph:
                return graph
        except NotAnAgentError:
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise NotAnAgentError(
                f"{_name(self._function)} makes no graph from an empty config, as it has to for its card: {why}"
            ) from error

    @contextmanager
    def open(
        self, config: RunnableConfig, loop: asyncio.AbstractEventLoop, context: Any = None, *, is_run: bool = True
    ) -> Iterator[Graph]:
        """The graph of one run, on the run's own thread.

        Args:
            config: of the run.
            loop: runs what of the function is async.
            context: of the run.
            is_run: whether the graph is to run its nodes.
        """
        made = self._made(config, context, is_run)
        if inspect.isawaitable(made):
            made = asyncio.run_coroutine_threadsafe(_awaited(made), loop).result()
        if isinstance(made, Pregel) or not hasattr(made, "__aenter__"):
            with _plain(made) as graph:
                yield self._graph(graph)
            return
        task = ContextTask(loop, lambda: made)
        graph = task.enter()
        try:
            yield self._graph(graph)
        except BaseException as error:
            if not task.leave(error):
                raise
        else:
            task.leave()

    @asynccontextmanager
    async def aopen(self, config: RunnableConfig, context: Any = None, *, is_run: bool = True) -> AsyncIterator[Graph]:
        """The graph of one run, on the run's own loop. Arguments as of `open`."""
        made = self._made(config, context, is_run)
        if inspect.isawaitable(made):
            made = await made
        if isinstance(made, Pregel) or not hasattr(made, "__aenter__"):
            with _plain(made) as graph:
                yield self._graph(graph)
            return
        async with made as graph:
            yield self._graph(graph)

    def _made(self, config: RunnableConfig, context: Any, is_run: bool) -> Any:
        configurable = config.get("configurable") or {}
        given: dict[str, Any] = {}
        for parameter, kind in self._takes.items():
            if kind == _CONFIG:
                own = {key: value for key, value in configurable.items() if not config_keys.is_reserved(key)}
                given[parameter] = {**config, "configurable": own}
            else:
                user = configurable.get(config_keys.AUTH_USER)
                given[parameter] = server_runtime(is_run=is_run, user=user, context=context)
        return self._function(**given)

    def _graph(self, made: Any) -> Graph:
        if isinstance(made, Pregel):
            return self.finish(made)
        if not (isinstance(made, Runnable) or hasattr(made, "compile") or inspect.isroutine(made)):
            raise NotAnAgentError(f"{_name(self._function)} has made a {type(made).__name__}, which is no graph")
        return self.finish(as_graph(made.compile() if hasattr(made, "compile") else made, self.name))


def graph_factory(value: Any, name: str | None = None) -> GraphFactory | None:
    """The factory that a function is; None for one that is an agent itself, and for what is no function.

    Args:
        value: a function makes graphs if it needs no argument, or a `RunnableConfig` (by its annotation, or without
            one by the name `config`), or a `ServerRuntime`, or both.
        name: of the agent.
    """
    if not (inspect.isroutine(value) or isinstance(value, functools.partial)):
        return None
    try:
        parameters = list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return None
    hints = _annotations(inspect.unwrap(getattr(value, "func", value)))
    takes: dict[str, str] = {}
    for place, parameter in enumerate(parameters):
        kind = _kind(hints.get(parameter.name, parameter.annotation), parameter)
        if kind is not None:
            takes[parameter.name] = kind
        elif parameter.kind is not parameter.VAR_KEYWORD and (place == 0 or parameter.default is parameter.empty):
            return None  # its first parameter is the state
    return GraphFactory(value, takes, name)


def _annotations(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (TypeError, NameError, AttributeError):  # of names that are not there at run time
        return {}


def _kind(annotation: Any, parameter: inspect.Parameter) -> str | None:
    if annotation is parameter.empty:
        return _CONFIG if parameter.name == _CONFIG else None
    if isinstance(annotation, str):
        return next((kind for word, kind in _WORDS.items() if word in annotation), None)
    if is_server_runtime(annotation):
        return _RUNTIME
    return _CONFIG if RunnableConfig in (annotation, *typing.get_args(annotation)) else None


@contextmanager
def _plain(made: Any) -> Iterator[Any]:
    """What a function has made, left at the end if it is a context manager."""
    if isinstance(made, Pregel) or not hasattr(made, "__enter__"):
        yield made
        return
    with made as graph:
        yield graph


async def _awaited(made: Any) -> Any:
    return await made


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))


def hosted(value: Any, name: str | None) -> Graph | GraphFactory:
    """A graph of anything that a host takes, or the factory that it is.

    Raises:
        AddressError: no caller could reach it by that name.
    """
    if name is not None:
        check_agent_name(name)
    factory = graph_factory(value, name)
    return as_graph(value, name) if factory is None else factory


def named_graphs(graphs: Mapping[str, Any] | Any) -> dict[str, Graph | GraphFactory]:
    """The graphs and factories of a host by name; one graph goes by its own name."""
    if isinstance(graphs, Mapping):
        return {name: hosted(graph, name) for name, graph in graphs.items()}
    graph = hosted(graphs, None)
    name = graph.get_name() if isinstance(graph, Pregel) else _name(graphs)
    check_agent_name(name)
    return {name: graph}
