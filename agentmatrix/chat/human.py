"""A person as a member of a chat group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage
from langgraph.types import interrupt

from agentmatrix.chat.transcript import is_go_on
from agentmatrix.errors import BuildError

__all__ = ["addressed", "answer_timeout", "human", "is_person"]

_ADDRESSED: Final = "_agentmatrix_addressed"
_TIMEOUT: Final = "_agentmatrix_timeout"


def human(
    name: str | None = None,
    *,
    prompt: str | Callable[[list[AnyMessage]], Any] | None = None,
    timeout: float | None = None,
) -> Any:
    """A person: each turn is an `interrupt`, answered by `Command(resume=...)`.

    The answer, a text, a message (also as a dict) or a list of content blocks, becomes a `HumanMessage` under the
    member's name. An empty answer is silence.
    Where a group has several people, a question says whom it asks.

    Args:
        name: the person's name, where members are given as a list.
        prompt: the value of the interrupt, or a function that makes it from the transcript; by default the last message
            and its author.
        timeout: the seconds to answer. A paused run is no process, so nothing happens by itself when they are over: a
            group that goes on without an answer after that, by `invoke(None)`, takes the turn for silence; before, it
            waits on. An answer counts whenever it comes.
    """
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
        raise BuildError(f"human(timeout={timeout!r}): name a positive number of seconds")
    return _person(name, prompt, timeout, None)


def is_person(agent: Any) -> bool:
    """Whether an agent is made by `human`."""
    return hasattr(agent, _ADDRESSED)


def answer_timeout(agent: Any) -> float | None:
    """The seconds that a person has to answer; None for no limit, and for any other agent."""
    seconds: float | None = getattr(agent, _TIMEOUT, None)
    return seconds


def addressed(person: Any, member: str) -> Any:
    """The same person, whose questions say that they ask `member`."""
    return getattr(person, _ADDRESSED)(member)


def _person(
    name: str | None,
    prompt: str | Callable[[list[AnyMessage]], Any] | None,
    timeout: float | None,
    member: str | None,
) -> Any:
    def person(messages: list[AnyMessage]) -> list[BaseMessage]:
        if callable(prompt):
            question = prompt(messages)
        elif prompt is not None:
            question = f"{member}: {prompt}" if member else prompt
        else:
            question = _last_message(messages, f" to {member}" if member else "")
        answer = interrupt(question)
        if isinstance(answer, BaseMessage):
            return [answer]
        if isinstance(answer, dict) and "content" in answer:
            answer = answer["content"]
        if answer in (None, "", []):
            return []
        has_blocks = isinstance(answer, list) and all(isinstance(block, str | dict) for block in answer)
        return [HumanMessage(answer if has_blocks else str(answer), name=name)]

    person.__name__ = person.__qualname__ = name or "human"
    setattr(person, _ADDRESSED, lambda member: _person(name, prompt, timeout, member))
    setattr(person, _TIMEOUT, timeout)
    return person


def _last_message(messages: list[AnyMessage], whom: str) -> str:
    last = next((message for message in reversed(messages) if not is_go_on(message)), None)
    return f"{last.name or 'user'}{whom}: {last.text}" if last else f"begin{whom}"
