"""The countable claims of the paper as a table, what simulated agents do, and a small experiment."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, Final

from langchain_core.language_models import BaseChatModel

from agentmatrix import compare
from agentmatrix.testing import ScriptedChatModel

from .._claims import Claim, parser_with_model, print_claims
from . import PROTOCOLS, build, contributions
from .experiment import SIZES, experiment, judged_by
from .simulation import shocks, simulation

TASK: Final = "Plan the move of the archive to the new house."


def willing(n: int) -> dict[str, ScriptedChatModel]:
    """Agents that never abstain, and their coordinator: each keeps what it was given to read."""
    names = [f"a{i}" for i in range(1, n + 1)]
    words = {name: f"role {name[1:]}: done by {name}" for name in names}
    words["coordinator"] = "\n".join(f"{name}: all for {name}" for name in names)
    return {name: ScriptedChatModel(text, cycle=True, usage=True) for name, text in words.items()}


def calls_and_depth(n: int = 8, model: BaseChatModel | None = None) -> list[Claim]:
    """Calls of models, and the longest chain of agents who have read each other, where nobody abstains.

    Args:
        n: how many agents.
        model: a chat model for all; with a real one, who abstains makes the chain shorter, so it is not counted.
    """
    willing_team = willing(n)
    team = dict.fromkeys(willing_team, model) if model else willing_team

    def depth(task: Any, result: Any) -> dict[str, float]:
        return {"depth": max((one["depth"] for one in contributions(result)), default=0)}

    found = compare({protocol: build(protocol, team) for protocol in PROTOCOLS}, [TASK], score=depth)
    theirs = {"calls": (n + 1, n, 2 * n, n), **({} if model else {"depth": (2, n, 2, 1)})}
    return [
        Claim(f"{run.graph}, N={n}: {measure}", str(number), run.error or f"{run.measures[measure]:g}")
        for measure, numbers in theirs.items()
        for run, number in zip(found.runs, numbers, strict=True)
    ]


def visibility(n: int = 8) -> list[Claim]:
    """Whose words the agents read before they work, beside the task, in a second task on one thread."""
    names = [f"a{i}" for i in range(1, n + 1)]
    done = [f"by {name}" for name in names]
    expected = {
        "coordinator": ("its own assignment", [[f"for {name}"] for name in names]),
        "sequential": ("what those before it have done", [done[:i] for i in range(n)]),
        "broadcast": ("the intentions of all", [done] * n),
        "shared": ("the roles in the earlier task", [[f"{name}: role" for name in names]] * n),
    }
    rows = []
    for protocol, (what, words) in expected.items():
        team = willing(n)
        graph: Any = build(protocol, team)
        memory = graph.invoke({"messages": "An earlier task."})["memory"]
        graph.invoke({"messages": TASK, "memory": memory})
        read = ["\n".join(message.text for message in team[name].prompts[-1][1:]) for name in names]
        found = [re.findall(rf"{TASK}|An earlier task|by a\d+|for a\d+|a\d+: role", text) for text in read]
        right = sum(each == [TASK, *word] for each, word in zip(found, words, strict=True))
        rows.append(Claim(f"{protocol}, N={n}: an agent reads {what}", str(n), str(right)))
    return rows


def main(arguments: Sequence[str] = ()) -> int:
    """Prints the table and an experiment; returns the exit code.

    Args:
        arguments: `--model local` for the small real model, or `--model provider:name`; `--all` for the experiment with
            4 to 256 agents.
    """
    parser = parser_with_model("graphs.self_organizing", __doc__)
    parser.add_argument("--all", action="store_true", help="the experiment with 4 to 256 simulated agents")
    given = parser.parse_args(arguments)
    if given.model:
        team = dict.fromkeys(("a1", "a2", "a3", "coordinator"), given.model)
        print_claims(calls_and_depth(3, given.model))
        found = experiment({"real": lambda n, seed: team}, sizes=[3], tasks=[TASK], score=judged_by(given.model))
    else:
        for claims in (calls_and_depth, visibility, simulation, shocks):
            print_claims(claims())
        found = experiment(sizes=SIZES if given.all else [4, 16])
    print(f"\n{found}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
