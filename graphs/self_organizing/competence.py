"""Agents without a language model: each has private skills and a noisy reading of the task, and its words say no more.

A task needs a few of eight roles, each with a weight. An agent does a role as well as its skill. Quality is what is
covered, less what is done twice. The protocols decide what an agent knows of the others when it chooses.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from agentmatrix.testing import ScriptedChatModel

__all__ = ["ROLES", "draw_task", "quality", "simulated"]

ROLES: Final = ("analysis", "budget", "design", "law", "people", "quality", "schedule", "security")
NOISE: Final = 0.05
LEAST_GAIN: Final = 0.02
"""What an agent must expect to add to the coverage; else it abstains."""
CLEARLY_BETTER: Final = 0.3
"""By how much its skill must exceed that of whoever has a role already."""


def draw_task(seed: int | str) -> str:
    """A task that needs five of the roles."""
    draw = random.Random(f"task {seed}")
    raw = {role: draw.uniform(0.5, 2.0) for role in draw.sample(ROLES, 5)}
    return f"Plan {seed}. It needs " + ", ".join(f"{role} {raw[role] / sum(raw.values()):.3f}" for role in sorted(raw))


def quality(task: str, done: Sequence[Mapping[str, Any]], duplicate_cost: float = 0.6) -> float:
    """From 0.25 to 1: how well the roles are covered that a task needs, less the share of contributions to roles that
    somebody else has taken too.

    Args:
        task: as `draw_task` makes it.
        done: what the agents have contributed.
        duplicate_cost: what a duplicate costs.
    """
    skills = skills_in(*(one["text"] for one in done))
    covered = sum(weight * skills.get(role, 0.0) for role, weight in needs(task).items())
    duplicates = 1 - len({one["role"] for one in done}) / len(done) if done else 0.0
    return max(0.25, 0.25 + 0.75 * (covered - duplicate_cost * duplicates))


def simulated(n: int, seed: int) -> dict[str, BaseChatModel]:
    """Agents by name, and a `coordinator`, who knows nobody's skills."""
    names = [f"a{number}" for number in range(1, n + 1)]
    words = {name: partial(answer, name=name, seed=seed) for name in names}
    words["coordinator"] = partial(plan, names=names, seed=seed)
    return {name: ScriptedChatModel(said, cycle=True, usage=True) for name, said in words.items()}


def answer(messages: list[BaseMessage], name: str, seed: int) -> str:
    """What an agent answers to its prompt, the task, and what it has read of others."""
    draw = random.Random(f"{name} {seed}")
    skill = {role: draw.uniform(0.1, 1.0) for role in ROLES}
    prompt, task, *others = [re.sub("<name>.*?</name><content>(.*)</content>", r"\1", m.text) for m in messages]
    value = {role: need * skill[role] for role, need in reading(task, name, seed).items()}
    best = max(ROLES, key=value.__getitem__)
    if "you mean to take" in prompt:
        return f"{best}: {name} can do that."
    done = skills_in(*others)
    # Who is the first to name a role has it. How well somebody would do it nobody knows before.
    intended = dict(reversed(re.findall(r"(\w+): (\w+) can do that", "\n".join(others))))
    if "you are assigned" in prompt:
        role = next((text for text in others if text in skill), best)
    elif name in intended.values():
        role = next(role for role, who in intended.items() if who == name)
    elif others and messages[2].name == "memory":
        # It leaves a role to those who had it in the last task.
        last = others[0].rpartition("\nTask ")[2]
        had = {role: len(re.findall(rf"\b(?!{name}:)a\d+: {role}\b", last)) for role in ROLES}
        role = max(ROLES, key=lambda role: value[role] / (1 + had[role]))
    else:
        gain = {role: value[role] for role in ROLES if role not in intended and role not in done}
        for role in done:
            if skill[role] > done[role] + CLEARLY_BETTER:
                gain[role] = value[role] * (1 - done[role] / skill[role])
        role = max(gain, key=gain.__getitem__, default="")
        if gain.get(role, 0.0) < LEAST_GAIN:
            return "ABSTAIN"
    return f"{role}: done as well as {skill[role]:.3f}"


def plan(messages: list[BaseMessage], names: Sequence[str], seed: int) -> str:
    """What the coordinator answers: a role for each name, the more often the more the task needs it."""
    believed, given = reading(messages[1].text, "coordinator", seed), dict.fromkeys(ROLES, 0)
    for _ in names:
        given[max(ROLES, key=lambda role: believed[role] / (1 + given[role]))] += 1
    roles = [role for role in ROLES for _ in range(given[role])]
    return "\n".join(f"{name}: {role}" for name, role in zip(names, roles, strict=True))


def needs(task: str) -> dict[str, float]:
    """The weights of a task, by role."""
    return {role: float(weight) for role, weight in re.findall(r"(\w+) (\d\.\d+)", task)}


def reading(task: str, name: str, seed: int) -> dict[str, float]:
    """What an agent believes that a task needs."""
    weights, draw = needs(task), random.Random(f"{name} {seed} {task}")
    return {role: max(0.0, weights.get(role, 0.0) + draw.gauss(0.0, NOISE)) for role in ROLES}


def skills_in(*texts: str) -> dict[str, float]:
    """By role, the best skill of those who have done it. Sorted, the last of a role is the best."""
    found = [(role, float(skill)) for role, skill in re.findall(r"(\w+): done as well as (\d\.\d+)", "\n".join(texts))]
    return dict(sorted(found))
