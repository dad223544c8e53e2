"""The countable claims of the MegaAgent paper, as a table, with scripted staff: gobang.toml, and 590 for a policy."""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix.testing import ScriptedChatModel

from ..gobang.referee import build as build_game
from ..gobang.team import model_option
from ..gobang.words import board_in
from . import Workspace, build

Row = tuple[str, str, str, bool]
Call = dict[str, dict[str, str]]
GOBANG = tomllib.loads(Path(__file__).with_name("gobang.toml").read_text(encoding="utf-8"))
POLICY = "Draft a national policy."


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


def run(model: BaseChatModel, task: str, workspace: Workspace, **bounds: int) -> tuple[Any, Any]:
    """A firm works on a task. Returns its last state, and its staff."""
    thread: Any = {"configurable": {"thread_id": task}, "max_concurrency": 16}
    graph: Any = build(model, workspace, checkpointer=InMemorySaver(), **bounds)
    return graph.invoke({"task": task}, thread), graph.actors(thread)


def game(workspace: Workspace) -> str:
    """How a game ends, in which the program of the firm plays black, and a team of `graphs.gobang` white."""

    def program(messages: Sequence[AnyMessage]) -> AIMessage:
        return AIMessage(workspace.run("play.py", *board_in(messages).names))

    return str(build_game(program, budget=100).invoke({"moves": []})["result"])


def gobang() -> list[Row]:
    """A firm of seven: the claim, what the paper says, what was found, and whether that will do."""
    workspace = Workspace(execute=True)
    firm, staff = run(scripted(GOBANG["rules"]), GOBANG["task"], workspace, max_calls=100)
    counts, result = firm["counts"], game(workspace)
    return [
        ("Gobang: agents", "7", str(len(staff)), len(staff) == 7),
        ("Gobang: a program that plays", "all of four features", result, "wins in" in result),
        ("Gobang: wrong formats, mended", "retries", str(counts["format errors"]), counts["format errors"] == 1),
        ("Gobang: conflicts, merged", "sent back", str(counts["conflicts"]), counts["conflicts"] == 1),
        ("Gobang: words to somebody not near", "refused", str(counts["refused"]), counts["refused"] == 1),
        ("Gobang: reminders and reviews", "until none is open", str(firm["reminders"]), not firm["waiting"]),
        speed("Gobang", "5.6 (4,505 s, 800 s)", firm, 5),
    ]


def policy(ministers: int = 9, experts: int = 580) -> list[Row]:
    """A firm of three levels."""
    workspace = Workspace()
    firm, staff = run(policy_staff(ministers, experts), POLICY, workspace)
    count, levels, files = 1 + ministers + experts, max(actor.depth for actor in staff.values()), workspace.names()
    return [
        ("policy: agents", str(count), str(len(staff)), len(staff) == count),
        ("policy: levels", "3", str(levels), levels == 3),
        ("policy: files, one by each expert", str(experts), str(len(files)), len(files) == experts),
        ("policy: checklists left open", "0", str(len(firm["waiting"])), not firm["waiting"]),
        speed("policy", "> 4.8 (unfinished, 2,991 s)", firm, 5),
    ]


def speed(name: str, theirs: str, firm: Any, least: float) -> Row:
    """All calls of models over those on the longest chain of messages: a call takes one unit of time."""
    calls, makespan = firm["counts"]["calls"], firm["clock"]
    found = f"{calls / makespan:.1f} ({calls} calls, {makespan})"
    return f"{name}: serial over parallel makespan", theirs, found, calls / makespan >= least


def trial(model: BaseChatModel) -> list[Row]:
    """What a real model makes of it, within small bounds."""
    firm, staff = run(model, GOBANG["task"], Workspace(), max_agents=8, max_calls=4, max_reminders=2)
    keys = ", ".join(actor.key for actor in staff.values())
    return [("agents", "", keys, True), *((name, "", str(count), True) for name, count in firm["counts"].items())]


def main(model: BaseChatModel | None = None) -> None:
    """Prints the table, or what a model makes of it.

    Args:
        model: the chat model of all employees; by default scripted ones.
    """
    rows = trial(model) if model else [*gobang(), *policy()]
    widths = [max(map(len, column)) for column in ([row[0] for row in rows], [row[1] for row in rows])]
    for claim, theirs, found, holds in rows:
        print(f"{claim:<{widths[0]}}   {theirs:<{widths[1]}}   {found}{'' if holds else '   differs'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m graphs.megaagent", description=__doc__)
    parser.add_argument(
        "--model", type=model_option, help="local (extra `local`) or provider:name (langchain); by default scripted"
    )
    main(parser.parse_args().model)
