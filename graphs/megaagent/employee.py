"""An employee of the firm: what it knows, and a turn of it, with the functions that its model may call."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from math import sqrt
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from langchain_core.tools import BaseTool, InjectedToolArg, tool
from langgraph.graph import add_messages
from pydantic import ValidationError

from agentmatrix import get_activation
from agentmatrix.errors import BoundError, SendError

from .workspace import ConflictError, Workspace

__all__ = ["FUNCTIONS", "PROMPTS", "RECENT", "Employee", "Turn", "later"]

PROMPTS = tomllib.loads(Path(__file__).with_name("prompts.toml").read_text(encoding="utf-8"))
RECENT = 10
"""Messages of earlier turns that an employee remembers, beside the one that is nearest to what it reads."""


def later(old: int, new: int) -> int:
    """The reducer of clocks: a clock counts the calls of models, one after the other, that have led to a state."""
    return max(old, new)


class Employee(TypedDict, total=False):
    """What an employee knows: its checklist is `todo` and `done`."""

    role: str
    todo: str
    done: str
    subordinates: list[str]
    messages: Annotated[list[AnyMessage], add_messages]
    clock: Annotated[int, later]


class Turn:
    """An employee reads a message."""

    def __init__(self, state: Employee, workspace: Workspace) -> None:
        self.me, self.workspace, self.role = get_activation(), workspace, state["role"]
        self.key = str(self.me.key)
        self.superior, _, self.name = self.key.rpartition(".")
        self.superior_name = self.superior.rpartition(".")[2] or "none"
        self.todo, self.done, self.clock = state["todo"], state.get("done", ""), state.get("clock", 0)
        self.subordinates = [*state.get("subordinates", [])]
        self.counts: Counter[str] = Counter()
        self.is_over = False

    def send(self, key: str, text: str, **values: Any) -> None:
        message = {"messages": [HumanMessage(text, name=self.name)], "clock": self.clock, **values}
        self.me.send(f"staff/{key}", message)
        self.counts["sent"] += 1

    def report(self, text: str) -> None:
        """Tell the superior; if that is gone, the next one above."""
        superior = self.superior
        while superior:
            try:
                return self.send(superior, text)
            except SendError:
                superior = superior.rpartition(".")[0]

    def work(self, messages: list[AnyMessage], model: Any, max_calls: int) -> list[AnyMessage]:
        """Call the model, and the functions that it names, until the turn is over; tell it where it names none."""
        *earlier, message = messages
        recent: list[Any] = trim_messages(
            earlier, max_tokens=RECENT, token_counter=len, strategy="last", start_on="human"
        )
        older = [each.text for each in earlier[: len(earlier) - len(recent)] if isinstance(each, HumanMessage)]
        nearest = max(older, key=lambda text: nearness(text, message.text), default="nothing")
        said: list[AnyMessage] = []
        while not self.is_over and self.counts["calls"] < max_calls:
            prompt = SystemMessage(PROMPTS["instructions"].format(turn=self, memory=nearest))
            answer = model.invoke([prompt, *recent, message, *said])
            self.counts["calls"] += 1
            self.clock += 1
            said += [answer, *map(self.call, answer.tool_calls)]
            if not answer.tool_calls:
                self.counts["format errors"] += 1
                said.append(HumanMessage(PROMPTS["format"], name="monitor"))
        return said

    def call(self, called: Any) -> ToolMessage:
        """Call a function. What goes wrong is told to the model."""
        name, status = called["name"], "success"
        self.counts[name] += 1
        try:
            if name not in FUNCTIONS:
                raise ValueError(f"there is no function {name!r}; there are: {', '.join(FUNCTIONS)}")
            said = FUNCTIONS[name].invoke(called["args"] | {"turn": self})
        except (ValueError, SendError, BoundError, ConflictError) as error:
            self.counts["conflicts" if isinstance(error, ConflictError) else "refused"] += 1
            wrong = error.errors() if isinstance(error, ValidationError) else ()
            said, status = "; ".join(f"{each['loc'][0]}: {each['msg']}" for each in wrong) or str(error), "error"
        return ToolMessage(said, tool_call_id=called["id"] or "", name=name, status=status)


def nearness(one: str, other: str) -> float:
    """The cosine between the words of two texts."""
    a, b = (Counter(re.findall(r"\w+", text.lower())) for text in (one, other))
    length = sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))
    return sum(count * b[word] for word, count in a.items()) / length if length else 0.0


InTurn = Annotated[Turn, InjectedToolArg]


@tool
def add_agent(name: str, prompt: str, turn: InTurn) -> str:
    """Recruit a subordinate, who begins at once. The prompt tells it who it is and what it is to do."""
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"{name!r} is no name: take letters, digits and '_'")
    if name in (turn.name, turn.superior_name, *turn.subordinates):
        raise ValueError(f"there is a {name} already")
    turn.send(f"{turn.key}.{name}", prompt, role=prompt, todo="what the superior has asked for")
    turn.subordinates.append(name)
    return f"{name} was recruited"


@tool
def talk(to: str, text: str, turn: InTurn) -> str:
    """Talk to your superior, to a subordinate, or to a peer, who has the same superior."""
    if to in turn.subordinates:
        turn.send(f"{turn.key}.{to}", text)
    elif not turn.superior or to == turn.name or "." in to:  # with a dot it is the way to a peer's subordinate
        raise ValueError(f"{to} is not your superior, subordinate or peer")
    else:
        turn.send(turn.superior if to == turn.superior_name else f"{turn.superior}.{to}", text)
    return f"{to} was told"


@tool
def change_task_status(todo: str, done: str, turn: InTurn) -> str:
    """Write your checklist anew: what is left to do, empty if nothing is, and what you have done."""
    turn.todo, turn.done = todo, done
    return "noted"


@tool
def read_file(name: str, turn: InTurn) -> str:
    """Read a file: its hash, which you need to write it, and its text."""
    file = turn.workspace.read(name)
    there_are = ", ".join(turn.workspace.names()) or "none"
    return f"hash {file.hash}\n{file.text}" if file.hash else f"there is no {name}; the files are: {there_are}"


@tool
def write_file(name: str, text: str, base_hash: str, turn: InTurn) -> str:
    """Write a whole file. The base hash is that of the text that you have read, empty for a new file."""
    return f"{name} is written, hash {turn.workspace.write(name, text, base_hash, turn.key)}"


@tool
def exec_python_file(name: str, turn: InTurn) -> str:
    """Run a Python file of the workspace, and see what it prints."""
    output = turn.workspace.run(name)
    return output if len(output) <= 1_000 else f"{output[:500]}\n...\n{output[-500:]}"


@tool
def terminate(turn: InTurn) -> str:
    """End your turn. You are woken by the next message for you."""
    turn.is_over = True
    return "until later"


_ALL = (add_agent, talk, change_task_status, read_file, write_file, exec_python_file, terminate)
FUNCTIONS: dict[str, BaseTool] = {each.name: each for each in _ALL}
