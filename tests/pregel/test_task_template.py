"""Each task of a run is what LangGraph's own function makes of the same, key by key, whoever has made it."""

from __future__ import annotations

import asyncio
import dataclasses
import operator
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, NamedTuple, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START
from langgraph.managed import RemainingSteps
from langgraph.pregel._algo import prepare_single_task
from langgraph.store.memory import InMemoryStore
from langgraph.types import CachePolicy, Command, PregelExecutableTask, RetryPolicy, Send, TimeoutPolicy, interrupt
from pydantic import BaseModel, ValidationError

from agentmatrix import CyclicGraph, Dag, all_of, any_of
from agentmatrix.pregel import task_template
from agentmatrix.pregel.task_template import TaskStart, TaskTemplate, TaskTemplates
from agentmatrix.testing import loopback
from tests.pregel.door import mend

NEW = "a release of LangGraph has put something new into its tasks, and makes them all: pregel/task_template.py"


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    value: str


class Counted(State, total=False):
    steps: RemainingSteps


class Checked(BaseModel):
    value: int = 0


class Comparison:
    """What was made in a test."""

    def __init__(self) -> None:
        self.made = self.by_template = 0
        self.differences: list[str] = []
        self.known = True


def described(task: PregelExecutableTask) -> dict[str, Any]:
    """A task, as plain as it can be compared."""
    config, configurable = task.config, task.config["configurable"]
    told: dict[str, Any] = {f"task.{field.name}": getattr(task, field.name) for field in dataclasses.fields(task)}
    told["keys"], told["configurable keys"] = list(config), set(configurable)
    told |= {f"config.{key}": value for key, value in config.items()}
    told |= {f"configurable.{key}": value for key, value in configurable.items()}
    told["metadata keys"] = list(config["metadata"])
    if (callbacks := config.get("callbacks")) is not None:
        told["config.callbacks"] = type(callbacks), vars(callbacks)
    told["configurable.__pregel_send"] = configurable["__pregel_send"].__self__ is task.writes
    pad = configurable["__pregel_scratchpad"]
    for name in ("call_counter", "interrupt_counter", "subgraph_counter"):
        told[f"scratchpad.{name}"] = [getattr(pad, name)(), getattr(pad, name)()]
    told |= {f"scratchpad.{name}": getattr(pad, name) for name in ("step", "stop", "resume")}
    told["scratchpad.null_resume"] = pad.get_null_resume(False)
    told["configurable.__pregel_scratchpad"] = {field.name for field in dataclasses.fields(pad)}
    read = configurable["__pregel_read"]
    told["configurable.__pregel_read"] = read.func, read.args[1:], type(read.args[3]), read.keywords
    told["reads"] = read.args[0] is pad, read.args[3].writes is task.writes
    if (read := configurable.get("__pregel_read_state")) is not None:
        told["configurable.__pregel_read_state"] = read.func, read.args, {**read.keywords, "scratchpad": None}
        told["reads state"] = read.keywords["scratchpad"] is pad
    del told["task.config"], told["config.configurable"]
    return told


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Comparison]:
    """Compares each task that is made in the test with LangGraph's."""
    comparison = Comparison()
    prepare, like, is_known = TaskTemplates.prepare, TaskTemplate.task, task_template._is_known

    def prepare_both(self: TaskTemplates, start: TaskStart, common: Any) -> Any:
        ours, by_template = prepare(self, start, common), comparison.by_template
        # The counters of a task are used up here: the run gets another one.
        again = prepare(self, start, common)
        given = {"checkpoint_id_bytes": start.id_bytes, "step": start.step, "channels": start.channels, **common}
        theirs = prepare_single_task(start.path, None, **given)
        assert isinstance(again, PregelExecutableTask) and isinstance(theirs, PregelExecutableTask)
        comparison.by_template = by_template
        one, other = described(again), described(theirs)
        comparison.made += 1
        comparison.differences += [
            f"{theirs.name}: {key}: {one.get(key)!r} for {other.get(key)!r}"
            for key in {**one, **other}
            if key not in one or key not in other or one[key] != other[key]
        ]
        return ours

    def task(self: TaskTemplate, *args: Any) -> Any:
        made = like(self, *args)
        comparison.by_template += made is not None
        return made

    def known(*args: Any) -> bool:
        comparison.known = found = is_known(*args)
        return found

    monkeypatch.setattr(TaskTemplates, "prepare", prepare_both)
    monkeypatch.setattr(TaskTemplate, "task", task)
    monkeypatch.setattr(task_template, "_is_known", known)
    yield comparison
    assert not comparison.differences, mend("task_template.py", "\n".join(comparison.differences))


def node(name: str, **answer: Any) -> Callable[[State], Any]:
    def run(state: State) -> Any:
        return {"log": [name], **answer}

    return run


def anode(name: str) -> Callable[[State], Any]:
    async def run(state: State) -> Any:
        return {"log": [name]}

    return run


def chain(kind: Any = Dag, nodes: Any = None, schema: Any = State, **options: Any) -> Any:
    """A chain of four nodes, or of these, with these options of `add_node`."""
    nodes = nodes or {name: node(name) for name in "abcd"}
    graph, before = kind(schema), START
    for name, run in nodes.items():
        graph.add_node(name, run, **options)
        graph.add_edge(before, name)
        before = name
    return graph


class Handler(BaseCallbackHandler):
    """Wants a run for each node."""


class Variant(NamedTuple):
    """A graph, how it is compiled, and how it is run."""

    graph: Callable[[], Any]
    compile: dict[str, Any] = {}
    config: dict[str, Any] = {}
    options: dict[str, Any] = {}
    templates: bool = True
    """Whether tasks are made by templates at all."""


def fan_out() -> Any:
    graph = Dag(State)
    graph.add_node("first", node("first"))
    graph.add_node("last", node("last"))
    graph.add_edge(START, "first")
    for name in ("left", "middle", "right"):
        graph.add_node(name, node(name))
        graph.add_edge("first", name)
    graph.add_edge(["left", "middle", "right"], "last")
    return graph


def triggers() -> Any:
    graph = Dag(State)
    for name in "abcd":
        graph.add_node(name, node(name))
    graph.add_edge(START, "a")
    graph.add_edge(START, "b")
    graph.add_trigger("c", any_of("a", "b"))
    graph.add_trigger("d", all_of("a", "b", "c"))
    return graph


def nested() -> Any:
    graph = Dag(State)
    graph.add_node("before", node("before"))
    graph.add_node("inner", chain().compile())
    graph.add_node("after", node("after"))
    graph.add_edge(START, "before")
    graph.add_edge("before", "inner")
    graph.add_edge("inner", "after")
    return graph


def remote() -> Any:
    return chain(nodes={"a": node("a"), "b": loopback(chain().compile()), "c": node("c")})


def sends(**options: Any) -> Any:
    def send(state: State) -> Any:
        return Command(goto=[Send("packet", {"value": str(number)}, **options) for number in range(3)])

    graph = Dag(State)
    graph.add_node("send", send, destinations=("packet",))
    graph.add_node("packet", anode("packet") if options else node("packet"))
    graph.add_edge(START, "send")
    return graph


def loop() -> Any:
    def again(state: State) -> str:
        return "a" if len(state["log"]) < 6 else "b"

    graph = CyclicGraph(State)
    graph.add_node("a", node("a"))
    graph.add_node("b", node("b"))
    graph.add_edge(START, "a")
    graph.add_conditional_edges("a", again, ["a", "b"])
    return graph


def managed() -> Any:
    def run(state: Counted) -> Any:
        return {"log": [str(state["steps"])]}

    return chain(nodes=dict.fromkeys("abc", run), schema=Counted)


def checked() -> Any:
    return chain(nodes={name: lambda state: {"value": state.value + 1} for name in "abc"}, schema=Checked)


def handled() -> Any:
    def fails(state: State) -> Any:
        raise ValueError("fails")

    graph = chain()
    graph.add_node("fails", fails, error_handler=lambda state: {"log": ["handled"]})
    graph.add_edge("d", "fails")
    return graph


def about(name: str) -> Callable[[State, RunnableConfig], Any]:
    """A node that changes its config, which is its own."""

    def run(state: State, config: RunnableConfig) -> Any:
        config["metadata"]["mine"] = name
        config["metadata"].get("nested", {})["mine"] = name
        config["callbacks"].add_tags([name])  # type: ignore[union-attr]
        return {"log": [name]}

    return run


NESTED = {"metadata": {"nested": {"deep": {"er": 1}}, "langgraph_step": "the user's", "plain": 1}, "tags": ["x", "y"]}
VARIANTS = {
    "chain": Variant(chain),
    "cycle": Variant(partial(chain, CyclicGraph)),
    "barriers": Variant(chain, {"barriers": True}),
    "loop": Variant(loop),
    "fan_out": Variant(fan_out),
    "fan_out_barriers": Variant(fan_out, {"barriers": True}),
    "triggers": Variant(triggers),
    "nested": Variant(nested),
    "nested_saver": Variant(nested, {"checkpointer": InMemorySaver()}),
    "remote": Variant(remote, {"checkpointer": InMemorySaver()}),
    "sends": Variant(sends),
    "sends_barriers": Variant(sends, {"barriers": True}),
    "tags_metadata": Variant(chain, {}, NESTED),
    "nested_metadata": Variant(nested, {}, NESTED),
    "own_config": Variant(lambda: chain(nodes={name: about(name) for name in "abc"}), {}, NESTED),
    "callbacks": Variant(chain, {}, {"callbacks": [Handler()], **NESTED}),
    "run": Variant(chain, {}, {"run_name": "mine", "run_id": "00000000-0000-0000-0000-000000000001"}),
    "limits": Variant(chain, {}, {"recursion_limit": 30, "max_concurrency": 2, "configurable": {"mine": object()}}),
    "exit": Variant(chain, {"checkpointer": InMemorySaver()}, {}, {"durability": "exit"}),
    "async": Variant(chain, {"checkpointer": InMemorySaver()}, {}, {"durability": "async"}),
    "sync": Variant(fan_out, {"checkpointer": InMemorySaver()}, {}, {"durability": "sync"}),
    "store": Variant(chain, {"store": InMemoryStore()}),
    "context": Variant(chain, {}, {}, {"context": {"who": "me"}}),
    "retry": Variant(partial(chain, retry_policy=RetryPolicy(max_attempts=2))),
    "node_metadata": Variant(partial(chain, metadata={"mine": {"deep": 1}}), templates=False),
    "cache_without": Variant(partial(chain, cache_policy=CachePolicy()), templates=False),
    "cache": Variant(partial(chain, cache_policy=CachePolicy()), {"cache": InMemoryCache()}, templates=False),
    "managed": Variant(managed),
    "checked": Variant(checked),
    "error_handler": Variant(handled),
    "values": Variant(chain, {}, {}, {"stream_mode": "values"}),
    "updates": Variant(fan_out, {}, {}, {"stream_mode": ["updates", "custom", "messages", "tasks", "debug"]}),
    "subgraphs": Variant(nested, {}, {}, {"stream_mode": "debug", "subgraphs": True}),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_task_is_what_langgraph_makes(name: str, is_async: bool, compared: Comparison) -> None:
    variant = VARIANTS[name]
    graph = variant.graph().compile(**variant.compile)
    configurable = {"thread_id": f"{name} {is_async}", **variant.config.get("configurable", {})}
    config: Any = {**variant.config, "configurable": configurable}

    async def astream() -> None:
        async for _ in graph.astream(given, config, **variant.options):
            pass

    given: Any = {"value": 0} if name == "checked" else {"log": []}
    for _ in range(2):
        if "stream_mode" in variant.options:
            asyncio.run(astream()) if is_async else deque(graph.stream(given, config, **variant.options), 0)
        elif is_async:
            asyncio.run(graph.ainvoke(given, config, **variant.options))
        else:
            graph.invoke(given, config, **variant.options)
    assert compared.made > 2
    assert bool(compared.by_template) == variant.templates or not compared.known


def test_a_task_that_goes_on_behind_a_pause(compared: Comparison) -> None:
    def asks(state: State) -> Any:
        return {"log": [interrupt("which?"), interrupt("why?")]}

    graph = chain(nodes={"a": node("a"), "b": asks, "c": node("c"), "d": node("d")}).compile(InMemorySaver())
    outer = chain(nodes={"before": node("before"), "inner": graph, "after": node("after")}).compile(InMemorySaver())
    for one in (graph, outer):
        config: RunnableConfig = {"configurable": {"thread_id": "1"}}
        one.invoke({"log": []}, config)
        one.invoke(Command(resume="this"), config)
        (asked,) = one.get_state(config).interrupts
        assert "because" in one.invoke(Command(resume={asked.id: "because"}), config)["log"]
        one.update_state(config, {"log": ["updated"]}, as_node=None if one is outer else "c")


def test_a_task_of_a_drained_run_and_of_one_behind_a_breakpoint(compared: Comparison) -> None:
    graph = chain().compile(InMemorySaver(), interrupt_before=["b"], interrupt_after=["c"])
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    for given in ({"log": []}, None, None):
        result = graph.invoke(given, config)
    assert result["log"] == list("abcd")


async def test_a_task_with_a_time_limit(compared: Comparison) -> None:
    limited = chain(nodes={name: anode(name) for name in "abc"}, timeout=TimeoutPolicy(run_timeout=60)).compile()
    assert (await limited.ainvoke({"log": []}))["log"] == list("abc")
    assert (await sends(timeout=60).compile().ainvoke({"log": []}))["log"] == ["packet"] * 3


async def test_a_task_whose_run_is_followed_by_events(compared: Comparison) -> None:
    assert [event async for event in nested().compile().astream_events({"log": []}, version="v2")]


def test_an_input_that_does_not_fit_is_langgraphs_to_refuse(compared: Comparison) -> None:
    """LangGraph says so with a note, which the graph's user sees."""
    spoils = lambda state: {"value": "spoilt"} if state.value else {"value": 1}  # noqa: E731
    graph = chain(nodes=dict.fromkeys("abcd", spoils), schema=Checked).compile()
    with pytest.raises(ValidationError) as raised:
        graph.invoke({"value": 0})
    assert any("task with name 'c'" in note for note in raised.value.__notes__)


def test_templates_make_the_tasks_of_this_release(compared: Comparison) -> None:
    chain().compile().invoke({"log": []})
    if not compared.known:
        pytest.skip(NEW)
    assert (compared.made, compared.by_template) == (4, 3)


def with_new_key(task: PregelExecutableTask, key: str) -> PregelExecutableTask:
    task.config[key] = {**task.config[key], "__pregel_new": task.id}  # type: ignore[literal-required]
    return task


@pytest.mark.parametrize("key", ["configurable", "metadata"])
def test_a_key_that_a_release_adds_is_in_every_task(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = lambda *args, **given: with_new_key(prepare_single_task(*args, **given), key)  # noqa: E731
    monkeypatch.setattr(task_template, "prepare_single_task", made)
    found: list[str] = []

    def reads(state: State, config: RunnableConfig) -> Any:
        found.append(config[key]["__pregel_new"])  # type: ignore[literal-required]

    chain(nodes=dict.fromkeys("abcd", reads)).compile().invoke({"log": []})
    assert len(set(found)) == 4


def test_a_field_that_a_release_adds_lets_langgraph_make_all(
    monkeypatch: pytest.MonkeyPatch, compared: Comparison
) -> None:
    monkeypatch.setattr(task_template, "KNOWN_RECORDS", frozenset())
    assert chain().compile().invoke({"log": []})["log"] == list("abcd")
    assert (compared.made, compared.by_template) == (4, 0)
