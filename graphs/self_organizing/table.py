"""The countable claims of the paper as a table, and a small experiment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from langchain_core.language_models import BaseChatModel

from agentmatrix import compare
from agentmatrix.testing import ScriptedChatModel, local_model
from agentmatrix.watch import Comparison

from .competence import quality
from .experiment import SHOCKS, SIZES, experiment, judged_by
from .protocols import PROTOCOLS, build, contributions

__all__ = ["COSTS", "calls_and_depth", "main", "shocks", "simulation", "visibility"]

COSTS: Final = (0.0, 0.2, 0.6, 1.0, 2.0, 6.0)
"""What a duplicate may cost in the simulation."""
TASK: Final = "Plan the move of the archive to the new house."

Row = tuple[str, str, str]
"""A claim, what it says, and what was found."""


def calls_and_depth(n: int = 8, model: BaseChatModel | None = None) -> list[Row]:
    """Calls of models, and the longest chain of agents who have read each other, where nobody abstains.

    Args:
        n: how many agents.
        model: a chat model for all; with a real one, who abstains makes the chain shorter, so it is not counted.
    """

    def depth(task: Any, result: Any) -> dict[str, float]:
        return {"depth": max((one["depth"] for one in contributions(result)), default=0)}

    graphs = {protocol: partial(_fresh, protocol, n, model) for protocol in PROTOCOLS}
    found = compare(graphs, [TASK], score=depth)
    calls = {"coordinator": n + 1, "sequential": n, "broadcast": 2 * n, "shared": n}
    depths = {"coordinator": 2, "sequential": n, "broadcast": 2, "shared": 1}
    rows = [(f"{name}, N={n}: calls", str(calls[name]), _numbers(found, name, "calls")) for name in PROTOCOLS]
    if model is None:
        rows += [(f"{name}, N={n}: depth", str(depths[name]), _numbers(found, name, "depth")) for name in PROTOCOLS]
    return rows


def visibility(n: int = 8) -> list[Row]:
    """Whose words the agents read before they work, in a second task on one thread."""
    own = {f"a{i}": f"a{i} alone" for i in range(1, n + 1)}
    before = {f"a{i}": ", ".join(f"a{j}" for j in range(1, i)) for i in range(1, n + 1)}
    reads = {
        "coordinator": ("its own assignment", own),
        "sequential": ("what those before it have done", before),
        "broadcast": ("the intentions of all", dict.fromkeys(own, ", ".join(own))),
        "shared": ("the roles in the earlier task", dict.fromkeys(own, "memory")),
    }
    return [
        (f"{p}, N={n}: an agent reads {what}", "all", _share(p, n, expected)) for p, (what, expected) in reads.items()
    ]


def simulation(seeds: int = 8) -> list[Row]:
    """Which protocol is best in the simulation, and who abstains.

    Args:
        seeds: how many teams of each size, with three tasks each.
    """

    def at_each_cost(task: str, done: Any) -> dict[str, float]:
        return {str(cost): quality(task, done, cost) for cost in COSTS}

    rows: list[Row] = []
    abstention: dict[int, float] = {}
    for n in (8, 16):
        found = experiment(sizes=[n], repeat=seeds, score=at_each_cost)
        best = {max(found.graphs, key=lambda graph: found.mean(graph, str(cost))).split()[0] for cost in COSTS}
        costs = ", ".join(f"{cost:g}" for cost in COSTS)
        rows.append((f"simulation, N={n}: best where a duplicate costs {costs}", "sequential", ", ".join(sorted(best))))
        abstention[n] = found.mean(f"sequential {n} simulated", "abstention")
    large = experiment(protocols=["sequential"], sizes=[64], repeat=max(1, seeds // 4))
    abstention[64] = large.mean("sequential 64 simulated", "abstention")
    shares = ", ".join(f"{share:.0%}" for share in abstention.values())
    grows = list(abstention.values()) == sorted(set(abstention.values()))
    rows.append(
        (f"simulation: sequential, abstention at N = 8, 16, 64 ({shares})", "grows", "grows" if grows else "no")
    )
    return rows


def shocks(n: int = 32, seeds: int = 3) -> list[Row]:
    """Whether the task right after a shock goes as well as without it, within a twentieth."""
    run = partial(experiment, protocols=["sequential"], sizes=[n], tasks=2, repeat=seeds)
    name, rows = f"sequential {n} simulated", []
    usual = run().mean(name, "Q", task="task 1")
    for shock, of_size in SHOCKS.items():
        share = run(shock=of_size(n)).mean(name, "Q", task="task 1") / usual
        claim = f"simulation, N={n}: {shock}, quality of the next task ({share:.2f} of that without)"
        rows.append((claim, "recovers", "recovers" if share >= 0.95 else "does not"))
    return rows


def _fresh(protocol: str, n: int, model: BaseChatModel | None, seed: int) -> Any:
    agents, coordinator = _willing(n)
    return build(protocol, dict.fromkeys(agents, model) if model else agents, model or coordinator)


def _willing(n: int) -> tuple[dict[str, ScriptedChatModel], ScriptedChatModel]:
    """Agents that never abstain, and their coordinator: each keeps what it was given to read."""
    agents = {f"a{i}": ScriptedChatModel(f"role {i}: done by a{i}", cycle=True, usage=True) for i in range(1, n + 1)}
    return agents, ScriptedChatModel("\n".join(f"{name}: {name} alone" for name in agents), cycle=True, usage=True)


def _share(protocol: str, n: int, expected: dict[str, str]) -> str:
    """Of how many agents it is true that they have read this and nothing else."""
    agents, coordinator = _willing(n)
    graph: Any = build(protocol, agents, coordinator)
    memory = graph.invoke({"messages": "An earlier task."})["memory"]
    graph.invoke({"messages": TASK, "memory": memory})
    right = 0
    for name, model in agents.items():
        read = [message for message in model.prompts[-1][2:] if message.name]
        if protocol == "coordinator":
            found = ", ".join(m.text.partition("<content>")[2].partition("<")[0] for m in read)
        else:
            found = ", ".join(str(m.name) for m in read)
        has_task = model.prompts[-1][1].text == TASK
        has_roles = protocol != "shared" or all(f"{one}: role {one[1:]}" in read[0].text for one in agents)
        right += found == expected[name] and has_task and has_roles
    return "all" if right == n else f"{right} of {n}"


def _numbers(found: Comparison, graph: str, measure: str) -> str:
    return (
        ", ".join(sorted({f"{value:g}" for value in found.values(graph, measure)}))
        or found.failures(graph)[0].error
        or ""
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table and an experiment; returns the exit code.

    Args:
        arguments: `--model local` for the small real model, `--all` for the experiment with 4 to 256 agents; by default
            those of the command line.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["--model", "local"]:
        model = local_model(max_tokens=32)
        team = dict.fromkeys(("a1", "a2", "a3", "coordinator"), model)
        _show(calls_and_depth(3, model))
        found = experiment({"local": lambda n, seed: team}, sizes=[3], tasks=[TASK], score=judged_by(model))
    else:
        for rows in (calls_and_depth(), visibility(), simulation(), shocks()):
            _show(rows)
        found = experiment(sizes=SIZES if given == ["--all"] else [4, 16])
    print(found)
    return 0


def _show(rows: Sequence[Row]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for claim, expected, result in rows:
        mark = "" if expected == result else "   differs"
        print(f"{claim:<{widths[0]}}   {expected:<{widths[1]}}   {result}{mark}", flush=True)
    print()
