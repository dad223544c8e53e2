"""`compare`: graphs side by side, by what their watched runs have cost."""

from __future__ import annotations

import functools
import inspect
import itertools
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple
from uuid import uuid4

from langchain_core.runnables import RunnableConfig

from agentmatrix.errors import BuildError
from agentmatrix.watch.summary import RunSummary, aligned
from agentmatrix.watch.watched_run import WatchedRun
from agentmatrix.watch.watching import watching

__all__ = ["ComparedRun", "Comparison", "acompare", "compare"]

Score = Callable[[Any, Any], float | Mapping[str, float]]
_LONGEST_NAME: Final = 40


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One run of a graph on a task.

    Attributes:
        graph: the name of the graph.
        task: the name of the task.
        repetition: from 0.
        seed: of this run.
        measures: by name, what was measured; `critical_path` is in seconds.
        error: why it counts for nothing but a failure: what it raised, or that it has paused; None if it counts.
        summary: by agent, what it has cost; None where that was not kept.
    """

    graph: str
    task: str
    repetition: int
    seed: int
    measures: Mapping[str, float]
    error: str | None = None
    summary: RunSummary | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of several graphs. As text it is a table with a row for each graph: mean, and spread where there is any.

    Attributes:
        runs: all of them, by graph, task and repetition, in the order in which those were given.
    """

    runs: tuple[ComparedRun, ...]

    @property
    def graphs(self) -> list[str]:
        """The names of the graphs."""
        return list(dict.fromkeys(run.graph for run in self.runs))

    @property
    def measures(self) -> list[str]:
        """The names of what was measured."""
        return list(dict.fromkeys(name for run in self.runs for name in run.measures))

    def values(self, graph: str, measure: str, *, task: str | None = None) -> list[float]:
        """What was measured in the runs of a graph that count.

        Args:
            graph: its name.
            measure: `"calls"`, `"tokens"`, `"seconds"`, `"critical_path"`, `"silent_turns"`, or of `score=`.
            task: the name of a task; by default all of them.

        Raises:
            KeyError: there is no such graph, measure or task.
        """
        known = {"graph": self.graphs, "measure": self.measures, "task": [run.task for run in self.runs]}
        for kind, name in (("graph", graph), ("measure", measure), ("task", task)):
            if name is not None and name not in known[kind]:
                raise KeyError(f"there is no {kind} {name!r}; there are: {', '.join(dict.fromkeys(known[kind]))}")
        runs = [run for run in self.runs if run.graph == graph and task in (None, run.task) and run.error is None]
        return [run.measures[measure] for run in runs if measure in run.measures]

    def mean(self, graph: str, measure: str, *, task: str | None = None) -> float:
        """The mean of `values`; nan where no run counts."""
        values = self.values(graph, measure, task=task)
        return statistics.fmean(values) if values else float("nan")

    def spread(self, graph: str, measure: str, *, task: str | None = None) -> float:
        """The standard deviation of `values`, as of a sample; 0 for a single run, nan where no run counts."""
        values = self.values(graph, measure, task=task)
        return statistics.stdev(values) if len(values) > 1 else 0.0 if values else float("nan")

    def failures(self, graph: str) -> list[ComparedRun]:
        """The runs of a graph that have failed, or paused with a question."""
        return [run for run in self.runs if run.graph == graph and run.error is not None]

    def as_json(self) -> list[dict[str, Any]]:
        """The runs as JSON types."""
        return [asdict(run) for run in self.runs]

    def __str__(self) -> str:
        rows = [("graph", "runs", "failed", *(measure.replace("_", " ") for measure in self.measures))]
        for graph in self.graphs:
            number = sum(run.graph == graph for run in self.runs)
            cells = (_cell(self.mean(graph, measure), self.spread(graph, measure)) for measure in self.measures)
            rows.append((graph, str(number), str(len(self.failures(graph))), *cells))
        return "\n".join(aligned(rows, left=1))


def compare(
    graphs: Mapping[str, Any] | Iterable[Any],
    tasks: Mapping[str, Any] | Iterable[Any],
    *,
    repeat: int = 1,
    seed: int = 0,
    score: Score | None = None,
    config: RunnableConfig | None = None,
) -> Comparison:
    """Run each graph on each task, one run at a time, and compare what that costs.

    The order of the runs in a repetition is drawn, so that a machine that becomes slower favours none. Each run has a
    thread of its own. A run that fails, or that pauses with a question, is counted as failed, and the others go on.

    Args:
        graphs: the graphs by name, or graphs with names of their own: compiled, builders, remote agents; or functions
            of a seed that make one, called anew for each run.
        tasks: the inputs, by name or not; a text is the user's message.
        repeat: how often each graph has each task.
        seed: of the order. The runs of a repetition have the seed `seed + repetition`, which nodes find in
            `config["configurable"]["seed"]`.
        score: gives a number, or several by name, for the input of a task and what the graph has returned.
        config: as of `invoke`; for each run.

    Raises:
        BuildError: there is nothing to compare, two graphs have one name, or something is no graph.
    """
    plan = _Plan(graphs, tasks, repeat, seed, score, config)
    for one in plan:
        graph = one.graph()
        with watching(show=False) as run:
            try:
                run.result = graph.invoke(one.input, one.config)
            except Exception as error:
                one.error = error
        plan.take(one, run)
    return plan.comparison()


async def acompare(
    graphs: Mapping[str, Any] | Iterable[Any],
    tasks: Mapping[str, Any] | Iterable[Any],
    *,
    repeat: int = 1,
    seed: int = 0,
    score: Score | None = None,
    config: RunnableConfig | None = None,
) -> Comparison:
    """The same as `compare`, async; `score` stays a plain function."""
    plan = _Plan(graphs, tasks, repeat, seed, score, config)
    for one in plan:
        graph = one.graph()
        with watching(show=False) as run:
            try:
                run.result = await graph.ainvoke(one.input, one.config)
            except Exception as error:
                one.error = error
        plan.take(one, run)
    return plan.comparison()


class _Task(NamedTuple):
    name: str
    given: Any


@dataclass(slots=True)
class _Planned:
    """A run that is to be made."""

    name: str
    make: Any
    task: _Task
    repetition: int
    seed: int
    config: RunnableConfig
    error: Exception | None = None

    @property
    def input(self) -> Any:
        return {"messages": self.task.given} if isinstance(self.task.given, str) else self.task.given

    def graph(self) -> Any:
        """The compiled graph."""
        return (
            self.make if hasattr(self.make, "invoke") else _compiled(f"{self.name}({self.seed})", self.make(self.seed))
        )


class _Plan:
    """The runs of a comparison, in their order, and what has become of them."""

    def __init__(
        self, graphs: Any, tasks: Any, repeat: int, seed: int, score: Score | None, config: RunnableConfig | None
    ) -> None:
        if isinstance(tasks, str):
            raise BuildError(f"tasks={tasks!r} is one text: give a list of tasks, [{tasks!r}]")
        if not isinstance(repeat, int) or repeat < 1:
            raise BuildError(f"repeat={repeat!r} is no number of repetitions: give 1 or more")
        self._graphs, self._tasks = _by_name(graphs), _named_tasks(tasks)
        if not (self._graphs and self._tasks):
            raise BuildError(f"there are no {'tasks' if self._graphs else 'graphs'} to compare: give one or more")
        self._graphs = {
            name: graph if inspect.isroutine(graph) or isinstance(graph, functools.partial) else _compiled(name, graph)
            for name, graph in self._graphs.items()
        }
        self._repeat, self._seed, self._score, self._config = repeat, seed, score, config or {}
        self.runs: list[ComparedRun] = []

    def __iter__(self) -> Iterator[_Planned]:
        for repetition in range(self._repeat):
            pairs = [(name, task) for name in self._graphs for task in self._tasks]
            random.Random(f"{self._seed}:{repetition}").shuffle(pairs)
            for name, task in pairs:
                seed = self._seed + repetition
                own = {"thread_id": str(uuid4()), **self._config.get("configurable", {}), "seed": seed}
                yield _Planned(name, self._graphs[name], task, repetition, seed, {**self._config, "configurable": own})

    def take(self, one: _Planned, run: WatchedRun) -> None:
        """What has become of a run."""
        summary = run.summary()
        error = None if one.error is None else f"{type(one.error).__name__}: {one.error}"
        if run.questions:
            asked = run.questions[0]
            error = f"{asked.path or one.name} has paused with the question {asked.value!r}: compare without people"
        measures: dict[str, float] = {
            "calls": summary.calls,
            "tokens": summary.tokens,
            "seconds": summary.seconds,
            "critical_path": sum(step.seconds for step in summary.critical_path),
            "silent_turns": summary.silent_turns,
        }
        if self._score and error is None:
            try:
                scored = self._score(one.input, run.result)
                measures |= scored if isinstance(scored, Mapping) else {"score": scored}
            except Exception as failed:
                error = f"score= has failed: {type(failed).__name__}: {failed}"
        made = ComparedRun(one.name, one.task.name, one.repetition, one.seed, measures, error, summary)
        self.runs.append(made)

    def comparison(self) -> Comparison:
        """All runs, whatever the order was in which they were made."""
        graphs, tasks = list(self._graphs), [task.name for task in self._tasks]
        made = {(run.graph, run.task, run.repetition): run for run in self.runs}
        return Comparison(tuple(made[key] for key in itertools.product(graphs, tasks, range(self._repeat))))


def _by_name(graphs: Any) -> dict[str, Any]:
    if isinstance(graphs, Mapping):
        return {str(name): graph for name, graph in graphs.items()}
    if hasattr(graphs, "invoke") or hasattr(graphs, "compile"):
        raise BuildError("graphs= is one graph: give several, {'name': graph, ...}")
    named: dict[str, Any] = {}
    for graph in graphs:
        name = getattr(graph, "name", None) or getattr(graph, "__name__", None)
        if not name or name in named:
            what = f"two graphs are named {name!r}" if name else f"{graph!r} has no name"
            raise BuildError(f"{what}: give names, {{'one': graph, 'other': graph}}")
        named[str(name)] = graph
    return named


def _compiled(name: str, graph: Any) -> Any:
    if hasattr(graph, "invoke"):
        return graph
    if hasattr(graph, "compile"):
        return graph.compile()
    raise BuildError(f"{name} is {graph!r}, which is no graph: give a graph, a builder, or a function of a seed")


def _named_tasks(tasks: Any) -> Sequence[_Task]:
    if isinstance(tasks, Mapping):
        return [_Task(str(name), given) for name, given in tasks.items()]
    named: dict[str, Any] = {}
    for number, given in enumerate(tasks, 1):
        name = given[:_LONGEST_NAME] if isinstance(given, str) else f"task {number}"
        named[name if name not in named else f"{name} ({number})"] = given
    return [_Task(name, given) for name, given in named.items()]


def _cell(mean: float, spread: float) -> str:
    if mean != mean:
        return "-"
    digits = 0 if abs(mean) >= 100 or (mean == int(mean) and not spread) else 1 if abs(mean) >= 10 else 3
    return f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread else "")
