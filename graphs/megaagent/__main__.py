"""The countable claims of the MegaAgent paper, as a table."""

from __future__ import annotations

import sys
from typing import Any

from langchain_core.language_models import BaseChatModel
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix.testing import local_model

from . import gobang_firm, policy_firm
from .firm import build
from .workspace import Workspace

Row = tuple[str, str, str, bool]


def run(model: BaseChatModel, task: str, workspace: Workspace, **bounds: int) -> tuple[Any, Any]:
    """A firm works on a task. Returns its last state, and its staff."""
    thread: Any = {"configurable": {"thread_id": task}, "max_concurrency": 16}
    graph: Any = build(model, workspace, checkpointer=InMemorySaver(), **bounds)
    return graph.invoke({"task": task}, thread), graph.actors(thread)


def gobang() -> list[Row]:
    """A firm of seven: the claim, what the paper says, what was found, and whether that will do."""
    workspace = Workspace(execute=True)
    firm, staff = run(gobang_firm.staff(), gobang_firm.TASK, workspace)
    counts, verdict = firm["counts"], gobang_firm.result(workspace)
    return [
        ("Gobang: agents", "7", str(len(staff)), len(staff) == 7),
        ("Gobang: a program that plays", "all of four features", verdict, "black" in verdict or "white" in verdict),
        ("Gobang: wrong formats, mended", "retries", str(counts["format errors"]), counts["format errors"] == 1),
        ("Gobang: conflicts, merged", "sent back", str(counts["conflicts"]), counts["conflicts"] == 1),
        ("Gobang: words to somebody not near", "refused", str(counts["refused"]), counts["refused"] == 1),
        ("Gobang: reminders and reviews", "until none is open", str(firm["reminders"]), not firm["waiting"]),
        speed("Gobang", "5.6 (4,505 s, 800 s)", firm, 1),
    ]


def policy(ministers: int = 9, experts: int = 580) -> list[Row]:
    """A firm of three levels."""
    workspace = Workspace()
    firm, staff = run(policy_firm.staff(ministers, experts), policy_firm.TASK, workspace)
    count = 1 + ministers + experts
    levels = max(actor.depth for actor in staff.values())
    files = len(workspace.names())
    return [
        ("policy: agents", str(count), str(len(staff)), len(staff) == count),
        ("policy: levels", "3", str(levels), levels == 3),
        ("policy: files, one by each expert", str(experts), str(files), files == experts),
        ("policy: checklists left open", "0", str(len(firm["waiting"])), not firm["waiting"]),
        speed("policy", "> 4.8 (unfinished, 2,991 s)", firm, 5),
    ]


def speed(name: str, theirs: str, firm: Any, least: float) -> Row:
    """All calls of models over those on the longest chain of messages: a call takes one unit of time."""
    calls, makespan = firm["counts"]["calls"], firm["clock"]
    return (
        f"{name}: serial over parallel makespan",
        theirs,
        f"{calls / makespan:.1f} ({calls} calls, {makespan})",
        calls / makespan >= least,
    )


def trial(model: BaseChatModel) -> list[Row]:
    """What a real model makes of it, within small bounds."""
    firm, staff = run(model, gobang_firm.TASK, Workspace(), max_agents=8, max_calls=4, max_retries=2, max_reminders=2)
    keys = ", ".join(actor.key for actor in staff.values())
    return [("agents", "", keys, True), *((name, "", str(count), True) for name, count in firm["counts"].items())]


def main() -> None:
    """Prints the table."""
    rows = trial(local_model()) if sys.argv[1:] == ["--model", "local"] else [*gobang(), *policy()]
    widths = [max(len(str(row[column])) for row in rows) for column in (0, 1)]
    for claim, theirs, found, holds in rows:
        print(f"{claim:<{widths[0]}}   {theirs:<{widths[1]}}   {found}{'' if holds else '   differs'}")


if __name__ == "__main__":
    main()
