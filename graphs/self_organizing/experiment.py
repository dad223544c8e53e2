"""The experiment: protocols, sizes and models side by side on a series of tasks, with a shock between two of them."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from langchain_core.language_models import BaseChatModel

from agentmatrix import watching
from agentmatrix.watch import ComparedRun, Comparison

from .competence import draw_task, quality, simulated
from .protocols import PROTOCOLS, Contribution, build, contributions

__all__ = ["SHOCKS", "SIZES", "experiment", "gini", "judged_by", "remove_hub", "remove_one", "swap_models"]

SIZES: Final = (4, 8, 16, 32, 64, 128, 256)

Team = Mapping[str, BaseChatModel]
"""The agents by name, and a `coordinator`."""
Shock = Callable[[Team, random.Random, Sequence[Mapping[str, str]]], Team]
"""Gives the team after a shock; it is told the roles of each task so far, by agent."""
Score = Callable[[str, Sequence[Contribution]], float | Mapping[str, float] | None]
"""Gives the quality of what was contributed to a task, or several by name, or None where it is not known."""


def experiment(
    teams: Mapping[str, Callable[[int, int], Team]] | None = None,
    *,
    protocols: Sequence[str] = PROTOCOLS,
    sizes: Sequence[int] = SIZES,
    tasks: Sequence[str] | int = 3,
    repeat: int = 1,
    seed: int = 0,
    score: Score = quality,
    shock: Shock | None = None,
    shock_before: int = 1,
) -> Comparison:
    """Have each protocol, size and model do a series of tasks. Roles are remembered from task to task.

    Args:
        teams: by name, what makes a team of a size and a seed; by default the simulated one.
        protocols: of `PROTOCOLS`.
        sizes: how many agents.
        tasks: the tasks in their order, or how many are drawn for each repetition.
        repeat: how many teams of each kind have the series.
        seed: of the first repetition; the next one has the next.
        score: gives the quality of what was contributed to a task, or several by name, or None.
        shock: what happens to the team.
        shock_before: the number of the task, from 0, before which it happens.

    Returns:
        A table whose rows are `protocol size team`: Q, calls, depth, roles, gini, abstention, tokens and seconds. A
        task that has failed, as a model may, is counted as such, and the others go on.

    Raises:
        ValueError: the shock comes before no task.
    """
    number_of = tasks if isinstance(tasks, int) else len(tasks)
    if shock and not 0 <= shock_before < number_of:
        raise ValueError(f"the shock comes before task {shock_before}, and there are tasks 0 to {number_of - 1}")
    kinds = (teams or {"simulated": simulated}).items()
    runs: list[ComparedRun] = []
    for (kind, make), protocol, size, repetition in itertools.product(kinds, protocols, sizes, range(repeat)):
        own = seed + repetition
        team, draw = make(size, own), random.Random(f"{own} shock")
        memory: list[Mapping[str, str]] = []
        series = [draw_task(f"{own}.{number}") for number in range(tasks)] if isinstance(tasks, int) else tasks
        for number, task in enumerate(series):
            if shock and number == shock_before:
                team = shock(team, draw, memory)
            measures: Mapping[str, float] = {}
            error = None
            try:
                measures, memory = _measured(protocol, team, task, memory, score)
            except Exception as raised:
                error = f"{type(raised).__name__}: {raised}"
            name = f"{protocol} {size} {kind}"
            runs.append(ComparedRun(name, f"task {number}", repetition, own, measures, error))
    return Comparison(tuple(runs))


def _measured(
    protocol: str, team: Team, task: str, memory: Sequence[Mapping[str, str]], score: Score
) -> tuple[dict[str, float], list[Mapping[str, str]]]:
    """What one task has cost and come to, and the roles so far."""
    agents = {name: model for name, model in team.items() if name != "coordinator"}
    given: Any = {"messages": task, "memory": list(memory)}
    with watching(show=False) as run:
        result = build(protocol, agents, team.get("coordinator")).invoke(given)
    done, summary = contributions(result), run.summary()
    roles = Counter(one["role"] for one in done)
    found = score(task, done)
    measures = {
        **(found if isinstance(found, Mapping) else {} if found is None else {"Q": found}),
        "calls": summary.calls,
        "depth": max((one["depth"] for one in done), default=0),
        "roles": len(roles),
        "gini": gini(list(roles.values())),
        "abstention": 1 - len({one["agent"] for one in done}) / len(agents),
        "tokens": summary.tokens,
        "seconds": summary.seconds,
    }
    return measures, result["memory"]


def gini(counts: Sequence[int]) -> float:
    """How unevenly something is shared: 0 where all have as much, towards 1 where one has everything."""
    total = sum(counts)
    ranked = sum(rank * count for rank, count in enumerate(sorted(counts), 1))
    return 2 * ranked / (len(counts) * total) - (len(counts) + 1) / len(counts) if total else 0.0


def remove_one(team: Team, draw: random.Random, memory: Sequence[Mapping[str, str]]) -> Team:
    """An agent is gone, whoever it is."""
    gone = draw.choice([name for name in team if name != "coordinator"])
    return {name: model for name, model in team.items() if name != gone}


def remove_hub(team: Team, draw: random.Random, memory: Sequence[Mapping[str, str]]) -> Team:
    """The agent is gone that has contributed to most tasks, the first one of several."""
    times = Counter(name for roles in memory for name in roles)
    gone = max((name for name in team if name != "coordinator"), key=lambda name: times[name])
    return {name: model for name, model in team.items() if name != gone}


def swap_models(models: Team, share: float = 0.25) -> Shock:
    """A shock in which a share of the agents get other models.

    Args:
        models: by name of an agent, the model that it may get.
        share: of the agents.
    """

    def swap(team: Team, draw: random.Random, memory: Sequence[Mapping[str, str]]) -> Team:
        names = [name for name in team if name != "coordinator"]
        return {**team, **{name: models[name] for name in draw.sample(names, max(1, round(share * len(names))))}}

    return swap


SHOCKS: Final[Mapping[str, Callable[[int], Shock]]] = {
    "an agent removed": lambda size: remove_one,
    "the hub removed": lambda size: remove_hub,
    "a quarter of the models swapped": lambda size: swap_models(simulated(size, 1_000_000)),
}
"""The paper's shocks by name, for simulated teams of a size."""


def judged_by(model: BaseChatModel) -> Score:
    """The paper's quality: a model gives accuracy, completeness, coherence and actionability 1 to 4 points each.

    Where it does not answer with four such numbers, the task has no quality.
    """

    def judge(task: str, done: Sequence[Contribution]) -> float | None:
        said = "\n".join(f"{one['role']}: {one['text']}" for one in done) or "nothing"
        question = (
            f"The task: {task}\nWhat was done:\n{said}\n"
            "Give accuracy, completeness, coherence and actionability 1 to 4 points each: answer with four numbers."
        )
        points = [int(number) for number in re.findall(r"\b[1-4]\b", model.invoke(question).text)]
        return sum(points) / 16 if len(points) == 4 else None

    return judge
