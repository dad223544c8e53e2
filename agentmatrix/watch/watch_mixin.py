"""The verb `watch` of graphs: a run that is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableConfig

if TYPE_CHECKING:
    from agentmatrix.watch.watched_run import WatchedRun

__all__ = ["WatchMixin"]


class WatchMixin:
    """Adds `watch` and `awatch` to a graph."""

    def watch(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> WatchedRun:
        """Run the graph as `invoke` does, and see it: in a notebook its picture is shown while it runs.

        Args:
            input: as of `invoke`.
            config: as of `invoke`.
            kwargs: as of `invoke`.

        Returns:
            What was seen; `result` is what `invoke` has returned, and `answer(...)` goes on where it has paused.
        """
        from agentmatrix.watch.watching import watching

        graph: Any = self
        with watching(graph) as run:
            run.result = graph.invoke(input, config, **kwargs)
        return run

    async def awatch(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> WatchedRun:
        """The same as `watch`, async."""
        from agentmatrix.watch.watching import watching

        graph: Any = self
        with watching(graph) as run:
            run.result = await graph.ainvoke(input, config, **kwargs)
        return run
