"""Two scripted staffs: seven who write a program for Gobang, by the rules in gobang.toml, and 590 for a policy."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage

from agentmatrix.testing import ScriptedChatModel

from ..gobang.referee import build as build_game
from ..gobang.words import board_in
from .workspace import Workspace

__all__ = ["GOBANG", "POLICY", "game", "gobang_staff", "policy_staff", "scripted"]

Call = dict[str, dict[str, str]]
POLICY = "Draft a national policy."
_FIRM = tomllib.loads(Path(__file__).with_name("gobang.toml").read_text(encoding="utf-8"))
GOBANG: str = _FIRM["task"]


def scripted(rules: Mapping[str, list[Call] | str]) -> ScriptedChatModel:
    """A staff that goes by rules as in gobang.toml, ticks off whoever has finished, and ends its turn otherwise."""
    always = {r"\w+\n(\w+) has finished": [{"tick_off": {"name": r"\1"}}, {"terminate": {}}], "": [{"terminate": {}}]}

    def answer(messages: list[BaseMessage]) -> Any:
        prompt = messages[0].text
        heard = f"{prompt.removeprefix('You are ').partition('.')[0]}\n{messages[-1].text}"
        matches = ((re.match(pattern, heard, re.DOTALL), said) for pattern, said in {**rules, **always}.items())
        found, said = next((found, said) for found, said in matches if found)
        if not isinstance(said, list):
            return said
        calls = []
        for name, args in (each for call in said for each in call.items()):
            args = {key: found.expand(text) for key, text in args.items()}
            if name == "tick_off":
                name, args = "change_task_status", ticked_off(prompt, **args)
            calls.append({"name": name, "args": args})
        return calls

    return ScriptedChatModel(answer, cycle=True)


def ticked_off(prompt: str, name: str) -> dict[str, str]:
    """The checklist of a superior, on which a subordinate goes from what is left to do to what is done."""
    [todo], [done] = (re.findall(f"^{what}: (.*)$", prompt, re.MULTILINE) for what in ("To do", "Done"))
    left = [each for each in todo.split(", ") if each not in (name, "")]
    return {"todo": ", ".join(left), "done": f"{done}, {name}" if done else name}


def policy_staff(ministers: int = 9, experts: int = 580) -> ScriptedChatModel:
    """Three levels, in which each expert writes a file."""

    def recruit(names: Sequence[str], prompt: str) -> list[Call]:
        hired: list[Call] = [{"add_agent": {"name": name, "prompt": prompt}} for name in names]
        return [*hired, {"change_task_status": {"todo": ", ".join(names), "done": ""}}, {"terminate": {}}]

    rules = {r"boss\nDraft": recruit([f"minister{i}" for i in range(ministers)], "Recruit your experts.")}
    for i in range(ministers):
        names = [f"expert{i}_{each}" for each in range(i, experts, ministers)]
        rules[rf"minister{i}\nRecruit"] = recruit(names, "Write your part of the policy.")
    file = {"name": r"\1.md", "text": "The policy of \\1.\n", "base_hash": ""}
    done = {"todo": "", "done": r"\1.md"}
    rules[r"(expert\w+)\nWrite"] = [{"write_file": file}, {"change_task_status": done}, {"terminate": {}}]
    return scripted(rules)


def gobang_staff() -> ScriptedChatModel:
    """The boss, two admins, and four who write files."""
    return scripted(_FIRM["rules"])


def game(workspace: Workspace) -> str:
    """How a game ends, in which the program of the firm plays black, and a team of `graphs.gobang` white."""

    def program(messages: Sequence[AnyMessage]) -> AIMessage:
        return AIMessage(workspace.run("play.py", *board_in(messages).names))

    return str(build_game(program, budget=100).invoke({"moves": []})["result"])
