"""One turn of an employee: it reads a message, and its model calls functions until one of them ends the turn."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Sequence
from math import sqrt
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from langgraph.graph import add_messages
from pydantic import ValidationError

from agentmatrix.errors import BoundError, SendError

from .functions import FUNCTIONS, Turn
from .workspace import ConflictError

RECENT = 10
"""Messages of earlier turns that an employee remembers, beside the one that is nearest to what it reads."""

FORMAT = "That has called no function. Call one; `terminate` ends your turn."


def later(old: int, new: int) -> int:
    """The reducer of a clock."""
    return max(old, new)


class Employee(TypedDict, total=False):
    """What an employee knows. `clock` counts the calls of models, one after the other, that have led to its state."""

    role: str
    todo: str
    done: str
    subordinates: Annotated[list[str], operator.add]
    messages: Annotated[list[AnyMessage], add_messages]
    clock: Annotated[int, later]


def instructions(state: Employee, turn: Turn, memory: str) -> SystemMessage:
    """Who an employee is, whom it may talk to, and its checklist."""
    _, superior, name = turn.near
    subordinates = ", ".join([*turn.subordinates, *turn.recruited]) or "none yet"
    return SystemMessage(
        f"You are {name}. {state['role']}\nYour superior: {superior.rpartition('.')[2] or 'none'}. Your subordinates: "
        f"{subordinates}. You may talk to these, and to your peers.\nTo do: {turn.todo or 'nothing'}\n"
        f"Done: {turn.done or 'nothing'}\n{memory}Call functions. The last of your turn is `terminate`."
    )


def nearness(one: str, other: str) -> float:
    """The cosine between the words of two texts."""
    a, b = (Counter(re.findall(r"\w+", text.lower())) for text in (one, other))
    length = sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))
    return sum(count * b[word] for word, count in a.items()) / length if length else 0.0


def remembered(messages: Sequence[AnyMessage], text: str) -> tuple[str, list[AnyMessage]]:
    """Of earlier turns, what is nearest to a text, as a line, and the last messages."""
    recent: list[Any] = trim_messages(messages, max_tokens=RECENT, token_counter=len, strategy="last", start_on="human")
    older = [each.text for each in messages[: len(messages) - len(recent)] if isinstance(each, HumanMessage)]
    nearest = max(older, key=lambda each: nearness(each, text), default="")
    return f"You remember: {nearest}\n" if nearest else "", recent


def call(turn: Turn, called: Any) -> ToolMessage:
    """Call a function. What goes wrong is told to the model."""
    name = called["name"]
    turn.counts[name] += 1
    try:
        if name not in FUNCTIONS:
            raise ValueError(f"there is no function {name!r}; there are: {', '.join(FUNCTIONS)}")
        said, status = FUNCTIONS[name].invoke(called["args"] | {"turn": turn}), "success"
    except (ValueError, SendError, BoundError, ConflictError) as error:
        turn.counts["conflicts" if isinstance(error, ConflictError) else "refused"] += 1
        wrong = error.errors() if isinstance(error, ValidationError) else ()
        said, status = "; ".join(f"{each['loc'][0]}: {each['msg']}" for each in wrong) or str(error), "error"
    return ToolMessage(said, tool_call_id=called["id"], name=name, status=status)


def take_turn(state: Employee, turn: Turn, model: Any, max_calls: int, max_retries: int) -> list[AnyMessage]:
    """Call the model, and the functions that it names, until the turn is over or a bound is reached.

    Returns:
        What was said.
    """
    *earlier, message = state["messages"]
    memory, recent = remembered(earlier, message.text)
    said: list[AnyMessage] = []
    retries = 0
    while not turn.is_over and turn.counts["calls"] < max_calls and retries <= max_retries:
        answer: AIMessage = model.invoke([instructions(state, turn, memory), *recent, message, *said])
        turn.counts["calls"] += 1
        turn.clock += 1
        said.append(answer)
        said += [call(turn, called) for called in answer.tool_calls]
        if not answer.tool_calls:
            retries += 1
            turn.counts["format errors"] += 1
            said.append(HumanMessage(FORMAT, name="monitor"))
    return said
