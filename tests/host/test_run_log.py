"""What a host logs of its runs, by `logging` alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from agentmatrix import CyclicGraph, Dag, Host, RemoteAgent, signal
from agentmatrix.errors import AgentNotFound, DeadlineExceeded, HostBusy
from agentmatrix.host.run_log import RunLog
from agentmatrix.session.run_record import RunRecord
from agentmatrix.testing import ScriptedChatModel
from tests.attacks.kit import eventually

Runs = Callable[..., list[logging.LogRecord]]


@pytest.fixture
def runs(caplog: pytest.LogCaptureFixture) -> Iterator[Runs]:
    """The records of runs, once there are so many."""
    caplog.set_level(logging.DEBUG, logger="agentmatrix")

    def found(count: int, level: int = logging.INFO) -> list[logging.LogRecord]:
        def of_level() -> list[logging.LogRecord]:
            return [r for r in caplog.records if r.name == "agentmatrix.runs" and r.levelno == level]

        assert eventually(lambda: len(of_level()) >= count), caplog.text
        return of_level()

    yield found


def test_a_run_is_one_line_with_its_caller_thread_outcome_and_cost(runs: Runs) -> None:
    host = Host({"answer": ScriptedChatModel("one two three", usage=True)}, tokens={"alice": "her-token"})
    with host:
        remote = RemoteAgent("answer", url=host.address, token="her-token")
        config: Any = {"configurable": {"thread_id": "7"}}
        answer: AIMessage = remote.invoke({"messages": "a private question"}, config)["messages"][-1]
        (line,) = runs(1)
    said = line.getMessage()
    assert said.startswith("answer.invoke ok for alice in ")
    assert answer.usage_metadata is not None
    inward, outward = answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"]
    assert outward and f"tokens={inward}+{outward}" in said and "thread=7" in said
    fields = vars(line)
    assert fields["bytes_in"] > 50 and fields["bytes_out"] > 50 and fields["seconds"] > 0
    assert (fields["agent"], fields["caller"], fields["output_tokens"]) == ("answer", "alice", outward)
    (begun,) = runs(1, logging.DEBUG)
    assert vars(begun)["run_id"] == fields["run_id"] != ""


def test_nothing_secret_and_no_content_is_logged(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    host = Host({"answer": ScriptedChatModel("a private answer")}, tokens={"alice": "her-token"})
    with host:
        headers = {"x-api-key": "another-secret"}
        remote = RemoteAgent("answer", url=host.address, token="her-token", headers=headers)
        remote.invoke({"messages": "a private question"}, {"configurable": {"password": "a-third"}})
        runs(1)
        with pytest.raises(PermissionError):
            RemoteAgent("answer", url=host.address, token="a-guess").invoke({"messages": "hi"})
    for record in caplog.records:
        said = f"{record.getMessage()} {vars(record)}"
        assert not any(word in said for word in ("private", "her-token", "another-secret", "a-third", "a-guess"))


def test_an_error_of_a_node_leaves_its_traceback_with_the_host(runs: Runs) -> None:
    def fail(messages: Any) -> str:
        raise ValueError("CUDA out of memory")

    with Host({"fail": fail}) as host:
        with pytest.raises(ValueError, match="CUDA"):
            RemoteAgent("fail", url=host.address).invoke({"messages": "hi"})
        (line,) = runs(1)
        (error,) = runs(1, logging.ERROR)
    assert "fail.invoke failed" in line.getMessage()
    assert error.exc_info is not None and error.exc_info[2] is not None
    assert "CUDA" in str(error.exc_info[1])


def test_refusals_are_told_without_lines_of_the_callers_own(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    with Host({"answer": ScriptedChatModel("yes")}, token="right") as host:
        with pytest.raises(AgentNotFound):
            RemoteAgent("other", url=host.address, token="right").invoke({"messages": "hi"})
        (refused,) = runs(1, logging.WARNING)
        with pytest.raises(PermissionError):
            RemoteAgent("answer", url=host.address, token="wrong").invoke({"messages": "hi"})
        assert eventually(lambda: "the token is not the right one" in caplog.text)
    assert "refused for" in refused.getMessage() and "no agent" in refused.getMessage()


def test_a_caller_cannot_write_a_line_of_its_own(runs: Runs) -> None:
    forged = RunRecord("x\nINFO", "invoke", "1\x1b[31m", "me", thread_id="7\nERROR %s")
    RunLog().on_begin(forged)
    forged.end("ok")
    RunLog().on_end(forged)
    refused = RunRecord("x", "invoke", "1", "me\n")
    refused.end("refused", ValueError("a\nb\x1b"))
    RunLog().on_end(refused)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        (line,) = runs(1, level)
        assert line.getMessage().isprintable()


def test_each_outcome_has_its_name(runs: Runs) -> None:
    started = asyncio.Event()

    async def sleep(state: MessagesState) -> None:
        started.set()
        await asyncio.sleep(600)

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": interrupt("really?")}

    slow = StateGraph(MessagesState).add_node(sleep).add_edge(START, "sleep").compile()
    asking = StateGraph(MessagesState).add_node(ask).add_edge(START, "ask").compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    with Host({"slow": slow, "asking": asking}, max_runs=2) as host:
        RemoteAgent("asking", url=host.address).invoke({"messages": "hi"}, thread)
        assert vars(runs(1)[-1])["outcome"] == "interrupted"
        nested = Dag().add_node("asking", RemoteAgent("asking", url=host.address)).compile(checkpointer=InMemorySaver())
        nested.invoke({"messages": "hi"}, thread)
        assert vars(runs(2)[-1])["outcome"] == "interrupted"
        with pytest.raises(DeadlineExceeded):
            RemoteAgent("slow", url=host.address, timeout=1.0).invoke({"messages": "hi"})
        # Both sides keep it: on a busy machine the caller may leave before the host has looked.
        assert vars(runs(3)[-1])["outcome"] in ("deadline", "cancelled")

        async def cancel() -> None:
            task = asyncio.create_task(RemoteAgent("slow", url=host.address).ainvoke({"messages": "hi"}))
            await asyncio.to_thread(eventually, lambda: len(runs(0, logging.DEBUG)) == 4)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancel())
        assert vars(runs(4)[-1])["outcome"] == "cancelled"


def test_a_busy_host_says_so(runs: Runs) -> None:
    async def both(url: str) -> None:
        async def sleep(state: MessagesState) -> None:
            await asyncio.sleep(600)

        graph = StateGraph(MessagesState).add_node(sleep).add_edge(START, "sleep").compile()
        async with Host({"slow": graph}, max_runs=1, max_queue=0) as host:
            first = asyncio.create_task(RemoteAgent("slow", url=host.address).ainvoke({"messages": "hi"}))
            await asyncio.to_thread(runs, 1, logging.DEBUG)
            with pytest.raises(HostBusy):
                await RemoteAgent("slow", url=host.address).ainvoke({"messages": "hi"})
            first.cancel()
        (refused,) = runs(1, logging.WARNING)
        assert "slow.invoke refused" in refused.getMessage() and "--max-runs" in refused.getMessage()

    asyncio.run(both(""))


def test_signals_of_a_live_run_are_counted(runs: Runs) -> None:
    def listen(messages: Any) -> None:
        return None

    desk = CyclicGraph()
    desk.add_node("listen", listen)
    desk.add_trigger("listen", signal("audio"))
    with Host({"desk": desk.compile()}) as host:
        parent = CyclicGraph()
        parent.add_node("desk", RemoteAgent("desk", url=host.address))
        parent.add_edge(START, "desk")
        with parent.compile().live({"messages": []}) as run:
            run.signal("desk/audio", "hello")
        run.result()
        (line,) = runs(1)
    assert vars(line)["signals"] == 1 and "signals=1" in line.getMessage()


def test_a_model_in_a_traced_and_in_an_untraced_graph_is_counted_once(runs: Runs) -> None:
    model = ScriptedChatModel("one two three", cycle=True, usage=True)

    def speak(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def aspeak(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graphs = {
        "plain": StateGraph(MessagesState).add_node("speak", speak).add_edge(START, "speak").compile(),
        "dag": Dag().add_node("speak", speak).compile(),
        "adag": Dag().add_node("speak", aspeak).compile(),
        "model": model,
    }
    with Host(graphs) as host:
        for count, name in enumerate(graphs, 1):
            remote = RemoteAgent(name, url=host.address)
            answer = remote.invoke({"messages": "hi"})["messages"][-1]
            assert vars(runs(count)[-1])["output_tokens"] == answer.usage_metadata["output_tokens"] > 0, name
        for name in graphs:
            count += 1
            *_, (chunk, _) = RemoteAgent(name, url=host.address).stream({"messages": "hi"}, stream_mode="messages")
            assert vars(runs(count)[-1])["output_tokens"] == answer.usage_metadata["output_tokens"], name
