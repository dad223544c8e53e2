"""The experiment: protocols, sizes and models side by side on a series of tasks, with a shock between two of them."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix import compare
from agentmatrix.watch import ComparedRun, Comparison

from . import PROMPTS, PROTOCOLS, Contribution, Team, agents_of, build, contributions
from .competence import draw_task, quality, simulated

__all__ = ["SIZES", "experiment", "gini", "judged_by", "remove_hub", "remove_one", "swap_models"]

SIZES: Final = (4, 8, 16, 32, 64, 128, 256)

Memory = Sequence[Mapping[str, str]]
"""The roles of each task so far, by agent."""
Shock = Callable[[Team, random.Random, Memory], Team]
"""Gives the team after a shock."""
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
        A table whose rows are `protocol size team`: what `compare` measures, Q, depth, roles, gini and abstention.
        A task that has failed, as a model may, is counted as such, and the others go on.

    Raises:
        ValueError: the shock comes before no task.
    """
    count = tasks if isinstance(tasks, int) else len(tasks)
    if shock and not 0 <= shock_before < count:
        raise ValueError(f"the shock comes before task {shock_before}, and there are tasks 0 to {count - 1}")
    runs: list[ComparedRun] = []
    kinds = teams or {"simulated": simulated}
    for kind, protocol, size, repetition in itertools.product(kinds, protocols, sizes, range(repeat)):
        own, saver = seed + repetition, InMemorySaver()
        thread: RunnableConfig = {"configurable": {"thread_id": "series"}}
        team, draw = kinds[kind](size, own), random.Random(f"{own} shock")
        memory: Memory = []
        for number in range(count):
            if shock and number == shock_before:
                team = shock(team, draw, memory)
            graph = build(protocol, team, saver)
            task = draw_task(f"{own}.{number}") if isinstance(tasks, int) else tasks[number]
            measure = partial(measures, score=score, agents=len(agents_of(team)))
            name = f"{protocol} {size} {kind}"
            found = compare({name: graph}, {f"task {number}": task}, seed=own, score=measure, config=thread)
            runs += [replace(run, repetition=repetition) for run in found.runs]
            memory = graph.get_state(thread).values.get("memory", [])
    return Comparison(tuple(runs))


def measures(given: Any, result: Mapping[str, Any], score: Score, agents: int) -> dict[str, float]:
    """What a task has come to, beside its cost."""
    done = contributions(result)
    roles, found = Counter(one["role"] for one in done), score(given["messages"], done)
    return {
        **(found if isinstance(found, Mapping) else {} if found is None else {"Q": found}),
        "depth": max((one["depth"] for one in done), default=0),
        "roles": len(roles),
        "gini": gini(list(roles.values())),
        "abstention": 1 - len({one["agent"] for one in done}) / agents,
    }


def gini(counts: Sequence[int]) -> float:
    """How unevenly something is shared: 0 where all have as much, towards 1 where one has everything."""
    total = sum(counts)
    ranked = sum(rank * count for rank, count in enumerate(sorted(counts), 1))
    return 2 * ranked / (len(counts) * total) - (len(counts) + 1) / len(counts) if total else 0.0


def remove_one(team: Team, draw: random.Random, memory: Memory) -> Team:
    """An agent is gone, whoever it is."""
    return without(draw.choice(agents_of(team)), team)


def remove_hub(team: Team, draw: random.Random, memory: Memory) -> Team:
    """The agent is gone that has contributed to most tasks, the first one of several."""
    times = Counter(name for roles in memory for name in roles)
    return without(max(agents_of(team), key=lambda name: times[name]), team)


def without(gone: str, team: Team) -> Team:
    return {name: model for name, model in team.items() if name != gone}


def swap_models(models: Team, share: float = 0.25) -> Shock:
    """A shock in which a share of the agents get other models: of `models`, by name of an agent."""

    def swap(team: Team, draw: random.Random, memory: Memory) -> Team:
        names = agents_of(team)
        return {**team, **{name: models[name] for name in draw.sample(names, max(1, round(share * len(names))))}}

    return swap


def judged_by(model: BaseChatModel) -> Score:
    """The paper's quality: a model gives accuracy, completeness, coherence and actionability 1 to 4 points each.

    Where it does not answer with four such numbers, the task has no quality.
    """

    def judge(task: str, done: Sequence[Contribution]) -> float | None:
        said = "\n".join(f"{one['role']}: {one['text']}" for one in done) or "nothing"
        answer = model.invoke(PROMPTS["judge"].format(task=task, done=said)).text
        points = [int(number) for number in re.findall(r"\b[1-4]\b", answer)]
        return sum(points) / 16 if len(points) == 4 else None

    return judge
