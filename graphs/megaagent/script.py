"""Scripted staff: what an employee calls, by its name and by what it has just heard."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from agentmatrix.testing import ScriptedChatModel

Call = dict[str, Any]
Rule = tuple[str, Callable[..., list[Call] | str]]
"""A pattern of an employee's name and, in the next line, what it hears; and a function of the instructions and of the
pattern's groups that answers."""

END: Call = {"name": "terminate"}


def add(name: str, prompt: str) -> Call:
    """Recruits."""
    return {"name": "add_agent", "args": {"name": name, "prompt": prompt}}


def talk(to: str, text: str) -> Call:
    """Talks."""
    return {"name": "talk", "args": {"to": to, "text": text}}


def write(name: str, text: str, base: str = "") -> Call:
    """Writes a file."""
    return {"name": "write_file", "args": {"name": name, "text": text, "base_hash": base}}


def read(name: str) -> Call:
    """Reads a file."""
    return {"name": "read_file", "args": {"name": name}}


def execute(name: str) -> Call:
    """Runs a file."""
    return {"name": "exec_python_file", "args": {"name": name}}


def status(todo: str, done: str) -> Call:
    """Writes the checklist."""
    return {"name": "change_task_status", "args": {"todo": todo, "done": done}}


def checked(prompt: str, name: str) -> list[Call]:
    """A superior ticks off a subordinate on its checklist, which names those that it waits for."""
    [todo], [done] = (re.findall(f"^{what}: (.*)$", prompt, re.MULTILINE) for what in ("To do", "Done"))
    left = [each for each in todo.split(", ") if each not in (name, "nothing")]
    return [status(", ".join(left), name if done == "nothing" else f"{done}, {name}"), END]


ALWAYS: list[Rule] = [(r"\w+\n(\w+) has finished", checked)]


def script(rules: Sequence[Rule]) -> ScriptedChatModel:
    """A model that answers by the first rule that fits, ticks off whoever has finished, and ends the turn otherwise."""

    def answer(messages: list[BaseMessage]) -> list[Call] | str:
        prompt, heard = messages[0].text, messages[-1].text
        name = prompt.removeprefix("You are ").partition(".")[0]
        for pattern, act in [*rules, *ALWAYS]:
            if found := re.match(pattern, f"{name}\n{heard}", re.DOTALL):
                return act(prompt, *found.groups())
        return [END]

    return ScriptedChatModel(answer, cycle=True)
