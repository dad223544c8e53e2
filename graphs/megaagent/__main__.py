"""The countable claims of the MegaAgent paper, as a table, with the scripted staffs of staff.py."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langgraph.checkpoint.memory import InMemorySaver

from .._claims import Claim, parser_with_model, print_claims
from . import Workspace, build
from .staff import GOBANG, POLICY, game, gobang_staff, policy_staff


def run(model: BaseChatModel, task: str, workspace: Workspace, **bounds: int) -> tuple[Any, Any]:
    """A firm works on a task. Returns its last state, and its staff."""
    thread: Any = {"configurable": {"thread_id": task}, "max_concurrency": 16}
    graph: Any = build(model, workspace, checkpointer=InMemorySaver(), **bounds)
    return graph.invoke({"task": task}, thread), graph.actors(thread)


def gobang() -> list[Claim]:
    """A firm of seven: the claim, what the paper says, what was found, and whether that will do."""
    workspace = Workspace(execute=True)
    firm, staff = run(gobang_staff(), GOBANG, workspace, max_calls=100)
    counts, result = firm["counts"], game(workspace)
    return [
        Claim("Gobang: agents", "7", str(len(staff)), len(staff) == 7),
        Claim("Gobang: a program that plays", "all of four features", result, "wins in" in result),
        Claim("Gobang: wrong formats, mended", "retries", str(counts["format errors"]), counts["format errors"] == 1),
        Claim("Gobang: conflicts, merged", "sent back", str(counts["conflicts"]), counts["conflicts"] == 1),
        Claim("Gobang: words to somebody not near", "refused", str(counts["refused"]), counts["refused"] == 1),
        Claim("Gobang: reminders and reviews", "until none is open", str(firm["reminders"]), not firm["waiting"]),
        speed("Gobang", "5.6 (4,505 s, 800 s)", firm, 5),
    ]


def policy(ministers: int = 9, experts: int = 580) -> list[Claim]:
    """A firm of three levels."""
    workspace = Workspace()
    firm, staff = run(policy_staff(ministers, experts), POLICY, workspace)
    count, levels, files = 1 + ministers + experts, max(actor.depth for actor in staff.values()), workspace.names()
    return [
        Claim("policy: agents", str(count), str(len(staff)), len(staff) == count),
        Claim("policy: levels", "3", str(levels), levels == 3),
        Claim("policy: files, one by each expert", str(experts), str(len(files)), len(files) == experts),
        Claim("policy: checklists left open", "0", str(len(firm["waiting"])), not firm["waiting"]),
        speed("policy", "> 4.8 (unfinished, 2,991 s)", firm, 5),
    ]


def speed(name: str, theirs: str, firm: Any, least: float) -> Claim:
    """All calls of models over those on the longest chain of messages: a call takes one unit of time."""
    calls, makespan = firm["counts"]["calls"], firm["clock"]
    found = f"{calls / makespan:.1f} ({calls} calls, {makespan})"
    return Claim(f"{name}: serial over parallel makespan", theirs, found, calls / makespan >= least)


def trial(model: BaseChatModel) -> list[Claim]:
    """What a real model makes of it, within small bounds."""
    firm, staff = run(model, GOBANG, Workspace(), max_agents=8, max_calls=4, max_reminders=2)
    found = {"agents": ", ".join(actor.key for actor in staff.values()), **firm["counts"]}
    return [Claim(name, "", str(count), True) for name, count in found.items()]


def main(model: BaseChatModel | None = None) -> None:
    """Prints the table, or what a model makes of it.

    Args:
        model: the chat model of all employees; by default scripted ones.
    """
    print_claims(trial(model) if model else [*gobang(), *policy()])


if __name__ == "__main__":
    main(parser_with_model("graphs.megaagent", __doc__).parse_args().model)
