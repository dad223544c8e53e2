"""What the experiment shows with simulated agents: which protocol is best, who abstains, whether a team recovers."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from .._claims import Claim
from .competence import quality, simulated
from .experiment import Shock, experiment, remove_hub, remove_one, swap_models

__all__ = ["shocks", "simulation"]

COSTS: Final = (0.0, 0.2, 0.6, 1.0, 2.0, 6.0)
"""What a duplicate may cost in the simulation."""


def simulation(seeds: int = 8) -> list[Claim]:
    """Which protocol is best in the simulation, and who abstains.

    Args:
        seeds: how many teams of each size, with three tasks each.
    """

    def at_each_cost(task: str, done: Any) -> dict[str, float]:
        return {str(cost): quality(task, done, cost) for cost in COSTS}

    rows: list[Claim] = []
    abstention = []
    costs = ", ".join(f"{cost:g}" for cost in COSTS)
    for n in (8, 16):
        found = experiment(sizes=[n], repeat=seeds, score=at_each_cost)
        best = {max(found.graphs, key=lambda graph: found.mean(graph, str(cost))).split()[0] for cost in COSTS}
        claim = f"simulation, N={n}: best where a duplicate costs {costs}"
        rows.append(Claim(claim, "sequential", ", ".join(sorted(best))))
        abstention.append(found.mean(f"sequential {n} simulated", "abstention"))
    large = experiment(protocols=["sequential"], sizes=[64], repeat=max(1, seeds // 4))
    abstention.append(large.mean("sequential 64 simulated", "abstention"))
    shares = ", ".join(f"{share:.0%}" for share in abstention)
    claim = "simulation: sequential, abstention at N = 8, 16, 64"
    return [*rows, Claim(claim, "grows", shares, abstention == sorted(set(abstention)))]


def shocks(n: int = 32, seeds: int = 3) -> list[Claim]:
    """Whether the task right after a shock goes as well as without it, within a twentieth."""
    run = partial(experiment, protocols=["sequential"], sizes=[n], tasks=2, repeat=seeds)
    name, rows = f"sequential {n} simulated", []
    usual = run().mean(name, "Q", task="task 1")
    kinds: dict[str, Shock] = {
        "an agent removed": remove_one,
        "the hub removed": remove_hub,
        "a quarter of the models swapped": swap_models(simulated(n, 1_000_000)),
    }
    for kind, shock in kinds.items():
        share = run(shock=shock).mean(name, "Q", task="task 1") / usual
        claim = f"simulation, N={n}: {kind}, quality of the next task, of that without"
        rows.append(Claim(claim, "recovers", f"{share:.2f}", share >= 0.95))
    return rows
