"""The branches of a thread: what an actor has done in one of them, another one does not know.

The graph's own checkpoints tell their branch by their parents. Those of actors stand in namespaces of their own, and
tell when they were made. Runs of one thread come one after the other: so from one fork to the next all that is kept
belongs to one branch, and what a checkpoint builds upon is a few spans of time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple

from agentmatrix.pregel.execution import CONFIG_KEY_CHECKPOINT_ID, with_configurable

__all__ = ["ALL", "Fork", "Span", "afind_forks", "afound_in", "find_forks", "found_in", "sees", "spans_of"]

# LangGraph's words for checkpoints that need not follow the one before them in time.
_SOURCES = ("update", "fork", "input")


class Fork(NamedTuple):
    """A branch that began.

    Attributes:
        parent: the id of the checkpoint that it goes on from.
        first: the id of its first checkpoint. Ids are ordered by time.
    """

    parent: str
    first: str


class Span(NamedTuple):
    """What was kept from one id on, and up to another one; "" for no limit."""

    first: str = ""
    last: str = ""


ALL: Sequence[Span] = (Span(),)
"""A thread that nobody has forked."""


def spans_of(forks: Iterable[Fork], checkpoint_id: str, *, is_open: bool) -> Sequence[Span]:
    """What a checkpoint builds upon, newest first.

    Args:
        forks: of the thread, in any order.
        checkpoint_id: the checkpoint.
        is_open: whether what was done after it, beside it, belongs to it: not where others have followed it.
    """
    known = sorted(set(forks), key=lambda fork: fork.first)
    spans, last = list[Span](), "" if is_open else checkpoint_id
    for fork in reversed(known):
        if fork.first <= checkpoint_id:
            spans.append(Span(fork.first, last))
            checkpoint_id = last = fork.parent
    return (*spans, Span("", last))


def sees(spans: Sequence[Span], checkpoint_id: str) -> bool:
    """Whether what has this id was kept in one of these spans."""
    return any(first <= checkpoint_id and (not last or checkpoint_id <= last) for first, last in spans)


class _Request(NamedTuple):
    """Asks a saver for a checkpoint: the one that the config names, or the last one before that.

    Attributes:
        config: names a checkpoint.
        before: whether one before that is asked for.
        copied_as: if given, the one before has to have this content, as it is known by its versions.
        step: and to be of this step.
    """

    config: RunnableConfig
    before: bool = False
    copied_as: Any = None
    step: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """Those of a saver's list."""
        which = {"limit": 1} if self.copied_as is None else {"filter": {"step": self.step}}
        return {"before": self.config, **which}

    def fits(self, saved: CheckpointTuple) -> bool:
        """Whether one of that list is meant."""
        return self.copied_as is None or bool(saved.checkpoint["channel_versions"] == self.copied_as)


def _search(saved: CheckpointTuple | None, forks: Iterable[Fork]) -> Generator[_Request, Any, list[Fork]]:
    known, found = {fork.first for fork in forks}, list[Fork]()
    while saved is not None and saved.metadata.get("source") in _SOURCES:
        id, versions, copied = saved.checkpoint["id"], saved.checkpoint["channel_versions"], None
        if id in known:
            break
        if is_copy := saved.metadata.get("source") == "fork":
            # Its parent is that of the checkpoint that it is a copy of.
            copied = yield _Request(saved.config, True, versions, saved.metadata.get("step", 0) - 1)
        before: CheckpointTuple | None = copied
        if saved.parent_config is not None:
            before = copied or (yield _Request(saved.parent_config))
        previous: CheckpointTuple | None = yield _Request(saved.config, True)
        if previous is None or before is None:
            break
        parent = before.checkpoint["id"]
        if copied is None and previous.checkpoint["channel_versions"] == versions:
            parent = previous.checkpoint["id"]
        if is_copy or previous.checkpoint["id"] != parent:
            found.append(Fork(parent, id))
        saved = before
    return found


def find_forks(saver: Any, saved: CheckpointTuple | None, forks: Iterable[Fork]) -> list[Fork]:
    """The forks that led to a checkpoint, of which no run has kept anything yet: those of `update_state`, and of a run
    that was killed.

    Args:
        saver: the checkpointer.
        saved: the checkpoint.
        forks: those that are known.
    """
    steps = _search(saved, forks)
    try:
        request = next(steps)
        while True:
            if request.before:
                # Whole: some savers hold a lock until all of a listing is read.
                listed = list(saver.list(_thread(request.config), **request.options))
                answer = next(filter(request.fits, listed), None)
            else:
                answer = saver.get_tuple(request.config)
            request = steps.send(answer)
    except StopIteration as stop:
        found: list[Fork] = stop.value
        return found


async def afind_forks(saver: Any, saved: CheckpointTuple | None, forks: Iterable[Fork]) -> list[Fork]:
    """The same as `find_forks`, async."""
    steps = _search(saved, forks)
    try:
        request = next(steps)
        while True:
            if request.before:
                listed = [each async for each in saver.alist(_thread(request.config), **request.options)]
                answer = next(filter(request.fits, listed), None)
            else:
                answer = await saver.aget_tuple(request.config)
            request = steps.send(answer)
    except StopIteration as stop:
        found: list[Fork] = stop.value
        return found


def _thread(config: RunnableConfig) -> RunnableConfig:
    return with_configurable(config, {CONFIG_KEY_CHECKPOINT_ID: None})


async def _first(found: AsyncIterator[CheckpointTuple]) -> CheckpointTuple | None:
    async for saved in found:
        return saved
    return None


def _listings(config: RunnableConfig, spans: Sequence[Span]) -> Iterator[tuple[str, dict[str, Any]]]:
    for first, last in spans:
        yield (
            first,
            {"before": with_configurable(config, {CONFIG_KEY_CHECKPOINT_ID: last}) if last else None, "limit": 1},
        )


def found_in(saver: Any, config: RunnableConfig, spans: Sequence[Span]) -> CheckpointTuple | None:
    """The last checkpoint of a namespace that was kept in one of these spans.

    Args:
        saver: the checkpointer.
        config: names the namespace, and no checkpoint.
        spans: newest first.
    """
    if spans == ALL:
        found: CheckpointTuple | None = saver.get_tuple(config)
        return found
    for first, options in _listings(config, spans):
        for saved in saver.list(config, **options):
            if saved.checkpoint["id"] >= first:
                kept: CheckpointTuple = saved
                return kept
    return None


async def afound_in(saver: Any, config: RunnableConfig, spans: Sequence[Span]) -> CheckpointTuple | None:
    """The same as `found_in`, async."""
    if spans == ALL:
        found: CheckpointTuple | None = await saver.aget_tuple(config)
        return found
    for first, options in _listings(config, spans):
        saved = await _first(saver.alist(config, **options))
        if saved is not None and saved.checkpoint["id"] >= first:
            return saved
    return None
