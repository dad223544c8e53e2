"""Agents that organize themselves by four protocols: they choose roles, or abstain, by what they have read of others.

    agentmatrix example self_organizing          # the countable claims of the paper, and a small experiment
    python -m graphs.self_organizing --model local
    agentmatrix run graphs.self_organizing:graph --input "Plan the move. It needs law 0.6, budget 0.4"
    agentmatrix serve graphs.self_organizing:graph

The four protocols that Dochkina specifies (arXiv 2603.28990): coordinator, sequential, broadcast and shared. The
four that the paper only names, without rules (morphogenetic, clonal, stigmergic, ripple), are not here. By default the
agents are a simulation of private skills, without a language model; any chat model will do. docs/papers.md says what is
the paper's, and what is our reading.
"""

from __future__ import annotations

from .competence import draw_task, quality, simulated
from .experiment import SHOCKS, SIZES, experiment, judged_by
from .protocols import PROTOCOLS, build, contributions

__all__ = [
    "PROTOCOLS",
    "SHOCKS",
    "SIZES",
    "build",
    "contributions",
    "draw_task",
    "experiment",
    "graph",
    "judged_by",
    "main",
    "quality",
    "simulated",
]


def main() -> int:
    """Prints the table; returns the exit code."""
    from .table import main

    return main()


_team = simulated(8, seed=0)
graph = build("sequential", {name: model for name, model in _team.items() if name != "coordinator"})
