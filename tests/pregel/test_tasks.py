"""A task's config, and the loop that it runs in, as the door reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_config
from langgraph.errors import GraphInterrupt, ParentCommand
from langgraph.func import task
from langgraph.graph import END, START, StateGraph
from langgraph.pregel._loop import PregelLoop
from langgraph.runtime import get_runtime
from langgraph.types import Command, Interrupt, Send

from agentmatrix.pregel import task_config
from agentmatrix.pregel.execution import channels_from_checkpoint, triggered_nodes
from agentmatrix.pregel.virtual_tasks import LoopHandle, VirtualTask
from tests.pregel.door import State, mend


def test_a_task_tells_where_it_stands() -> None:
    found: dict[str, Any] = {}
    broken = mend("task_config.py", "what the config of a task has")

    @task
    def called() -> str:
        return str(task_config.node_of(task_config.node_config(get_config())))

    def start(state: State, config: RunnableConfig) -> Any:
        found["node"] = task_config.node_of(config)
        found["namespace"] = task_config.namespace_of(config)
        found["parent"] = task_config.parent_node_of(config)
        found["index"] = task_config.send_index(config)
        found["update"] = task_config.is_update(config)
        found["read"] = task_config.read_channel(config, "text")
        found["loop"] = task_config.loop_of(config)
        found["called"] = called().result()
        task_config.send_writes(config, [("texts", ["sent"])])
        return Command(goto=[Send("packet", {}), Send("packet", {})])

    def packet(state: State, config: RunnableConfig) -> State:
        return {"texts": [str(task_config.send_index(config))]}

    def fails(state: State, config: RunnableConfig) -> State:
        assert task_config.failed_node(config) is None
        raise ValueError

    def handler(state: State, config: RunnableConfig) -> State:
        return {"texts": [str(task_config.failed_node(config))]}

    made = StateGraph(State).add_node("start", start).add_node("packet", packet).add_edge(START, "start")
    made.add_node("fails", fails, error_handler=handler).add_edge("start", "fails")
    graph = made.compile()
    outer = StateGraph(State).add_node("outer", graph).add_edge(START, "outer").compile()
    result = outer.invoke({"text": "given"})
    assert sorted(result["texts"]) == ["0", "1", "fails", "sent"], broken
    assert isinstance(found.pop("loop"), PregelLoop), broken
    namespace = found.pop("namespace")
    assert [part.split(":")[0] for part in namespace.split("|")] == ["outer", "start"], broken
    assert found == {
        "node": "start",
        "parent": "outer",
        "index": None,
        "update": False,
        "read": "given",
        "called": "start",
    }, broken
    config: RunnableConfig = {"configurable": {"checkpoint_ns": namespace}}
    for goal, expected in (("outer", None), (namespace, True), ("start", True)):
        command: Command[Any] = Command(graph=goal, update={"text": "x"})
        assert (task_config.command_for_node(ParentCommand(command), config) is not None) == bool(expected), broken
    assert list(task_config.updates_of(Command(update={"text": "x"}))) == [("text", "x")], broken


def test_a_writer_knows_an_update_from_a_task() -> None:
    found: list[bool] = []

    def router(state: State, config: RunnableConfig) -> str:
        found.append(task_config.is_update(config))
        return END

    made = StateGraph(State).add_node("node", lambda state: {"text": "x"}).add_edge(START, "node")
    graph = made.add_conditional_edges("node", router, [END]).compile(InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    graph.invoke({}, config)
    graph.update_state(config, {"text": "y"}, as_node="node")
    assert found == [False, True], mend("task_config.py", "the path of the task that update_state makes")


def test_a_task_stands_for_several_nodes() -> None:
    broken = mend("virtual_tasks.py", "the attributes of PregelLoop")
    found: list[Any] = []

    def node(state: State, config: RunnableConfig) -> State:
        handle = LoopHandle(config)
        assert handle.has_checkpointer and handle.breakpoints == ["other"] and handle.is_followed, broken
        handle.at_exit(lambda: found.append("exit"))
        virtual = VirtualTask(handle, "virtual", "id", [])
        handle.emit_start(virtual, {"text": "in"})
        handle.save("00000000-0000-0000-0000-000000000001", ["value"])
        inner = virtual.enter()
        found.append((task_config.node_of(inner), task_config.namespace_of(inner), handle.saved))
        around, given = get_runtime().execution_info, config["configurable"]["__pregel_runtime"]
        assert get_runtime() == replace(given, execution_info=around), broken
        assert around == given.execution_info.patch(task_id="id", checkpoint_ns="virtual:id"), broken
        pads = [handle.config_of(virtual)["configurable"]["__pregel_scratchpad"] for _ in range(2)]
        assert [pad.call_counter() for pad in (*pads, pads[0])] == [0, 0, 1] and pads[0].resume == [], broken
        handle.emit_end(virtual, {"text": "out"})
        return {}

    made = StateGraph(State).add_node("node", node).add_node("other", lambda state: {}).add_edge(START, "node")
    graph = made.compile(InMemorySaver(), interrupt_before=["other"])
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    chunks = list(graph.stream({}, config, stream_mode=["updates", "tasks"]))
    assert found == [("virtual", "virtual:id", ["value"]), "exit"], broken
    ours = [(mode, chunk) for mode, chunk in chunks if chunk.get("name") == "virtual" or "virtual" in chunk]
    assert [mode for mode, _ in ours] == ["tasks", "updates", "tasks"] and ours[1][1] == {"virtual": {"text": "out"}}, (
        broken
    )
    assert GraphInterrupt([Interrupt.from_ns("asked", ns="ns")]).args[0][0].value == "asked", broken


def test_the_nodes_of_the_next_step_are_those_that_langgraph_runs() -> None:
    def nothing(state: State) -> State:
        return {}

    made = StateGraph(State)
    for name in ("first", "left", "right", "last", "never"):
        made.add_node(name, nothing)
    made.add_edge(START, "first").add_edge("first", "left").add_edge("first", "right")
    made.add_edge(["left", "right"], "last").add_edge("last", END).add_edge("never", END)
    saver = InMemorySaver()
    graph = made.compile(saver, interrupt_before="*")
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    given: Any = {}
    for expected in (["first"], ["left", "right"], ["last"], []):
        graph.invoke(given, config)
        saved, given = saver.get_tuple(config), None
        assert saved is not None
        channels, _ = channels_from_checkpoint(graph.channels, saved.checkpoint)
        found = triggered_nodes(channels, saved.checkpoint, made.nodes, graph.nodes)
        assert found == list(graph.get_state(config).next) == expected, mend("execution.py", "versions_seen")


async def test_the_loop_has_the_attributes_that_a_task_reads() -> None:
    read = {
        *("checkpointer", "interrupt_before", "interrupt_after", "manager", "stream", "checkpoint_pending_writes"),
        *("stack", "step", "stop", "tasks", "output_keys", "checkpoint_ns"),
    }
    loops: list[Any] = []

    def node(state: State, config: RunnableConfig) -> State:
        loops.append(LoopHandle(config).loop)
        return {}

    graph = StateGraph(State).add_node("node", node).add_edge(START, "node").compile()
    graph.invoke({})
    await graph.ainvoke({})
    for found in loops:
        lost = {name for name in read if not hasattr(found, name)}
        assert not lost, mend("virtual_tasks.py", f"{type(found).__name__} has lost {lost}")


def test_the_declared_targets_of_a_node_are_read_from_its_writers() -> None:
    seen: dict[str, object] = {}

    def look(name: str) -> Callable[[State, RunnableConfig], State]:
        def node(state: State, config: RunnableConfig) -> State:
            seen[name] = task_config.declared_targets(config["configurable"])
            return {}

        return node

    graph = StateGraph(State).add_node("held", look("held"), destinations=("free", END)).add_node("free", look("free"))
    graph.add_edge(START, "held").add_conditional_edges("held", lambda state: "free", ["free"]).compile().invoke({})
    broken = mend("task_config.py", "how a node's writers keep its destinations")
    assert seen == {"held": {"free", END}, "free": None}, broken
