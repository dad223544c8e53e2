"""What an employee can do in its turn: the functions that its model calls."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Any

from langchain_core.messages import HumanMessage
from langchain_core.tools import BaseTool, InjectedToolArg, tool

from agentmatrix import Activation
from agentmatrix.errors import SendError

from .workspace import Workspace


@dataclass
class Turn:
    """An employee reads a message. Its key is the way to it, `"boss.engine.board"`: that says who is near."""

    me: Activation
    workspace: Workspace
    todo: str
    done: str
    clock: int
    subordinates: list[str]
    recruited: list[str] = field(default_factory=list)
    is_over: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def near(self) -> tuple[str, str, str]:
        """The employee's key, the key of its superior, and its name."""
        key = str(self.me.key)
        return key, key.rpartition(".")[0], key.rpartition(".")[2]

    def send(self, key: str, text: str, **values: Any) -> None:
        """Send a message that is read after as many calls of the model as have led to it."""
        message = {"messages": [HumanMessage(text, name=self.near[2])], "clock": self.clock, **values}
        self.me.send(f"staff/{key}", message)
        self.counts["sent"] += 1

    def report(self, text: str) -> None:
        """Tell the superior; if that is gone, the next one above."""
        superior = self.near[1]
        while superior:
            try:
                return self.send(superior, text)
            except SendError:
                superior = superior.rpartition(".")[0]


InTurn = Annotated[Turn, InjectedToolArg]


@tool
def add_agent(name: str, prompt: str, turn: InTurn) -> str:
    """Recruit a subordinate, who begins at once. The prompt tells it who it is and what it is to do."""
    key, superior, own = turn.near
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"{name!r} is no name: take letters, digits and '_'")
    if name in (own, superior.rpartition(".")[2], *turn.subordinates, *turn.recruited):
        raise ValueError(f"there is a {name} already")
    turn.send(f"{key}.{name}", prompt, role=prompt, todo="what the superior has asked for")
    turn.recruited.append(name)
    return f"{name} was recruited"


@tool
def talk(to: str, text: str, turn: InTurn) -> str:
    """Talk to your superior, to a subordinate, or to a peer, who has the same superior."""
    key, superior, own = turn.near
    if to in (*turn.subordinates, *turn.recruited):
        turn.send(f"{key}.{to}", text)
    elif superior and to == superior.rpartition(".")[2]:
        turn.send(superior, text)
    elif superior and to != own:
        turn.send(f"{superior}.{to}", text)
    else:
        raise ValueError(f"{to} is not your superior, subordinate or peer")
    return f"{to} was told"


@tool
def change_task_status(todo: str, done: str, turn: InTurn) -> str:
    """Write your checklist anew: what is left to do, empty if nothing is, and what you have done."""
    turn.todo, turn.done = todo, done
    return "noted"


@tool
def read_file(name: str, turn: InTurn) -> str:
    """Read a file: its hash, which you need to write it, and its text."""
    file = turn.workspace.read(name)[name]
    there_are = ", ".join(turn.workspace.names()) or "none"
    return f"hash {file.hash}\n{file.text}" if file.hash else f"there is no {name}; the files are: {there_are}"


@tool
def write_file(name: str, text: str, base_hash: str, turn: InTurn) -> str:
    """Write a whole file. The base hash is that of the text that you have read, empty for a new file."""
    return f"written, hash {turn.workspace.write(name, text, base_hash, turn.near[0])}"


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
