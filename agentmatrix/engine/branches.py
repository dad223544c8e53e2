"""The branches of a thread: what an actor has done in one of them, another one does not know.

The graph's own checkpoints tell their branch by their parents. Those of actors stand in namespaces of their own, and
tell when they were made. Runs of one thread come one after the other: so from one fork to the next all that is kept
belongs to one branch, and what a checkpoint builds upon is a few spans of time.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple

from agentmatrix.pregel.execution import CONFIG_KEY_CHECKPOINT_ID, with_configurable

__all__ = ["ALL", "Fork", "Span", "afind_forks", "afound_in", "find_forks", "found_in", "sees", "spans_of"]

Result = TypeVar("Result")

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
    """Asks a saver for a checkpoint.

    Attributes:
        config: names it, or where to list some.
        options: of the list of which it is to be the first; None for no list.
        copied_as: if given, it has to have this content, as it is known by its versions.
    """

    config: RunnableConfig
    options: dict[str, Any] | None = None
    copied_as: Any = None

    def fits(self, saved: CheckpointTuple) -> bool:
        """Whether one of the list is meant."""
        return self.copied_as is None or bool(saved.checkpoint["channel_versions"] == self.copied_as)


_Steps = Generator[_Request, CheckpointTuple | None, Result]


def _search(saved: CheckpointTuple | None, forks: Iterable[Fork]) -> _Steps[list[Fork]]:
    known, found = {fork.first for fork in forks}, list[Fork]()
    while saved is not None and saved.metadata.get("source") in _SOURCES:
        id, versions, copied = saved.checkpoint["id"], saved.checkpoint["channel_versions"], None
        if id in known:
            break
        thread = with_configurable(saved.config, {CONFIG_KEY_CHECKPOINT_ID: None})
        if is_copy := saved.metadata.get("source") == "fork":
            # Its parent is that of the checkpoint that it is a copy of.
            step = saved.metadata.get("step", 0) - 1
            copied = yield _Request(thread, {"before": saved.config, "filter": {"step": step}}, versions)
        before: CheckpointTuple | None = copied
        if saved.parent_config is not None:
            before = copied or (yield _Request(saved.parent_config))
        previous = yield _Request(thread, {"before": saved.config, "limit": 1})
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
    return _drive(saver, _search(saved, forks))


async def afind_forks(saver: Any, saved: CheckpointTuple | None, forks: Iterable[Fork]) -> list[Fork]:
    """The same as `find_forks`, async."""
    return await _adrive(saver, _search(saved, forks))


def _last_in(config: RunnableConfig, spans: Sequence[Span]) -> _Steps[CheckpointTuple | None]:
    if spans == ALL:
        return (yield _Request(config))
    for first, last in spans:
        before = with_configurable(config, {CONFIG_KEY_CHECKPOINT_ID: last}) if last else None
        saved = yield _Request(config, {"before": before, "limit": 1})
        if saved is not None and saved.checkpoint["id"] >= first:
            return saved
    return None


def found_in(saver: Any, config: RunnableConfig, spans: Sequence[Span]) -> CheckpointTuple | None:
    """The last checkpoint of a namespace that was kept in one of these spans.

    Args:
        saver: the checkpointer.
        config: names the namespace, and no checkpoint.
        spans: newest first.
    """
    return _drive(saver, _last_in(config, spans))


async def afound_in(saver: Any, config: RunnableConfig, spans: Sequence[Span]) -> CheckpointTuple | None:
    """The same as `found_in`, async."""
    return await _adrive(saver, _last_in(config, spans))


def _drive(saver: Any, steps: _Steps[Result]) -> Result:
    try:
        request = next(steps)
        while True:
            if request.options is None:
                answer = saver.get_tuple(request.config)
            else:
                # Whole: some savers hold a lock until all of a listing is read.
                listed = list(saver.list(request.config, **request.options))
                answer = next(filter(request.fits, listed), None)
            request = steps.send(answer)
    except StopIteration as stop:
        result: Result = stop.value
        return result


async def _adrive(saver: Any, steps: _Steps[Result]) -> Result:
    try:
        request = next(steps)
        while True:
            if request.options is None:
                answer = await saver.aget_tuple(request.config)
            else:
                listed = [each async for each in saver.alist(request.config, **request.options)]
                answer = next(filter(request.fits, listed), None)
            request = steps.send(answer)
    except StopIteration as stop:
        result: Result = stop.value
        return result
