"""What becomes of a node is told: failed, cut off, asking, skipped, tried again; and nothing of it changes the run."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import CachePolicy, RetryPolicy, interrupt

from agentmatrix import ChatGroup, CyclicGraph, Dag, any_of, get_activation, signal, watching
from agentmatrix.errors import AnswerError
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback
from agentmatrix.watch import WatchedRun, watched_run
from tests.watch.watched_graphs import INPUT, THREAD, model, one, panel


def states(run: WatchedRun) -> dict[str, tuple[str, int]]:
    return {path: (node.state, node.count) for path, node in run.nodes.items()}


@pytest.mark.parametrize("where", ["here", "on a host"])
async def test_a_source_that_is_cut_off_is_told_so(where: str) -> None:
    async def slow(messages: Any) -> str:
        await asyncio.Event().wait()
        return "never"

    async def quick(messages: Any) -> str:
        while states(run)["slow/deep"] != ("running", 1):  # A host tells of it a moment after it has begun.
            await asyncio.sleep(0.001)
        return "quick"

    dag = Dag(name="race")
    inner = one("deep", slow)
    dag.add_node("slow", loopback(inner) if where == "on a host" else inner)
    dag.add_node("quick", quick)
    dag.add_node("then", lambda messages: "then")
    dag.add_trigger("then", any_of("slow", "quick", cancel_rest=True))
    with watching() as run:
        await dag.compile().ainvoke(INPUT)
    assert states(run) == {
        "slow": ("cut off", 1),
        "slow/deep": ("cut off", 1),
        "quick": ("done", 1),
        "then": ("done", 1),
    }
    assert run.state == "done"


def test_a_thread_that_runs_out_after_it_was_cut_off_stays_cut_off() -> None:
    quick_is_over, ended = threading.Event(), threading.Event()

    def slow(messages: Any) -> str:
        quick_is_over.wait(100)
        ended.set()
        return "too late"

    dag = Dag(name="race")
    dag.add_node("slow", slow)
    dag.add_node("quick", lambda messages: "quick")

    def then(messages: Any) -> str:
        quick_is_over.set()
        assert ended.wait(100)
        return "then"

    dag.add_node("then", then)
    dag.add_trigger("then", any_of("slow", "quick", cancel_rest=True))
    with watching() as run:
        dag.compile().invoke(INPUT)
    assert states(run)["slow"] == ("cut off", 1)
    assert "too late" not in [line.text for line in run.transcript]


def test_what_was_not_started_is_skipped_and_what_waits_waits() -> None:
    seen: list[dict[str, Any]] = []
    graph = StateGraph(MessagesState)
    graph.add_node("first", lambda state: seen.append(states(run)) or {})  # type: ignore[func-returns-value]
    graph.add_node("left", lambda state: {}).add_node("right", lambda state: {})
    graph.add_edge(START, "first").add_conditional_edges("first", lambda state: "left", ["left", "right"])
    with watching() as run:
        graph.compile(name="fork").invoke(INPUT)
    assert seen == [{"first": ("running", 1), "left": ("waiting", 0), "right": ("waiting", 0)}]
    assert states(run) == {"first": ("done", 1), "left": ("done", 1), "right": ("skipped", 0)}


@pytest.mark.parametrize("verb", ["sync", "async"])
async def test_turns_of_models_are_seen(verb: str) -> None:
    members = {"loud": model("hear, hear"), "quiet": model(""), "broken": ScriptedChatModel(ValueError("no line"))}
    for turns, broken in ((2, ("skipped", 0)), (3, ("failed", 1))):
        group = ChatGroup(members, stop=max_turns(turns)).compile()
        with watching() as run, pytest.raises(ValueError) if turns == 3 else nullcontext():
            _ = await group.ainvoke(INPUT) if verb == "async" else group.invoke(INPUT)
        assert states(run).items() >= {"loud": ("done", 1), "quiet": ("done", 1), "broken": broken}.items()
        assert run.summary().silent_turns == run.nodes["quiet"].silent == 1
        if turns == 2:
            assert [step.path for step in run.summary().critical_path] == ["loud", "quiet"]


def test_a_node_that_is_tried_again_counts_once_and_keeps_its_errors() -> None:
    tries: list[int] = []

    def flaky(state: MessagesState) -> dict[str, Any]:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("no line")
        return {}

    for is_watched in (False, True):
        tries.clear()
        dag = Dag(name="tries")
        policy = RetryPolicy(initial_interval=0.001, max_attempts=5, retry_on=ConnectionError)
        dag.add_node("flaky", flaky, retry_policy=policy)
        graph = dag.compile()
        if is_watched:
            with watching() as run:
                graph.invoke(INPUT)
        else:
            graph.invoke(INPUT)
        assert len(tries) == 3
    assert states(run) == {"flaky": ("done", 1)}
    assert run.nodes["flaky"].errors == ["ConnectionError: no line"] * 2


def test_questions_are_open_at_their_deepest_path_until_they_are_answered() -> None:
    inner = Dag(name="inner")
    inner.add_node("ask", lambda messages: interrupt("why?"))
    both = Dag(name="both")
    both.add_node("left", loopback(inner.compile()))
    both.add_node("right", inner.compile())
    graph = both.compile(checkpointer=InMemorySaver())
    with watching() as run:
        graph.invoke(INPUT, THREAD)
    assert run.state == "asking"
    assert sorted((question.path, question.value) for question in run.questions) == [
        ("left/ask", "why?"),
        ("right/ask", "why?"),
    ]
    assert {node.state for node in run.nodes.values()} == {"asking"}
    with pytest.raises(AnswerError, match="2 questions are open, and 1 answers were given"):
        run.answer("because")
    result = run.answer({question.id: f"because of {question.path}" for question in run.questions})
    said = {message.text for message in result["messages"]}
    assert said == {"Shall we?", "because of left/ask", "because of right/ask"}
    assert run.questions == [] and run.state == "done"
    assert set(states(run).values()) == {("done", 1)}
    with pytest.raises(AnswerError, match="no question is open"):
        run.answer("again")


def test_an_answer_needs_a_graph_that_keeps_its_pause() -> None:
    with watching() as run:
        one("ask", lambda messages: interrupt("why?")).invoke(INPUT)
    with pytest.raises(AnswerError, match="no checkpointer"):
        run.answer("because")


def test_several_runs_at_once_are_one_picture_and_two_graphs_are_two() -> None:
    graph = panel(lambda inner: inner)
    with watching() as run:
        graph.batch([INPUT] * 3)
        one("say", model(), "other").invoke(INPUT)
        one("say", model(), "other").invoke(INPUT)
    assert [record.name for record in run.records] == ["report", "other", "other (2)"]
    assert run.nodes["panel/expert"].count == 3
    assert run.summary().runs == 5
    assert run.summary().by_agent["other/say"].calls == 1


def test_a_block_in_a_block_sees_what_is_its_own() -> None:
    graph = one("say", model(), "said")
    with watching() as outer:
        graph.invoke(INPUT)
        with watching() as inner:
            graph.invoke(INPUT)
        graph.invoke(INPUT)
    graph.invoke(INPUT)
    assert (outer.nodes["say"].count, inner.nodes["say"].count) == (3, 1)


def test_a_block_inside_of_a_node_sees_the_graph_that_runs_there() -> None:
    inner, seen = one("say", model(), "inner"), list[WatchedRun]()

    def work(state: MessagesState) -> dict[str, Any]:
        with watching() as run:
            answer = inner.invoke({"messages": state["messages"]})
        seen.append(run)
        return {"messages": answer["messages"][-1:]}

    with watching() as outer:
        StateGraph(MessagesState).add_node("work", work).add_edge(START, "work").compile(name="outer").invoke(INPUT)
    assert outer.nodes["work/say"].count == 1
    assert states(seen[0]) == {"say": ("done", 1)}


def test_threads_of_a_pool_inside_of_a_node_are_seen() -> None:
    graph = one("say", model(), "in a thread")

    def work(messages: Any) -> str:
        with ThreadPoolExecutor(2) as pool:
            said = [found["messages"][-1].text for found in pool.map(lambda _: graph.invoke(INPUT), range(3))]
        return " ".join(said)

    with watching() as run:
        one("work", work, "outer").invoke(INPUT)
    assert {record.name: record.nodes[""].count for record in run.records} == {"outer": 1, "in a thread": 3}
    assert run.summary().calls == 3
    assert run.summary().state == "done"


def test_nothing_is_seen_of_other_threads_and_after_the_block() -> None:
    graph, go, done = one("say", model()), threading.Event(), threading.Event()

    def other() -> None:
        go.wait(100)
        graph.invoke(INPUT)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with watching() as run:
        go.set()
        assert done.wait(100)
    graph.invoke(INPUT)
    thread.join()
    assert list(run.events()) == []


def test_a_watcher_that_fails_is_logged_once_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: WatchedRun, event: Any) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(WatchedRun, "take", fail)
    with caplog.at_level(logging.WARNING), watching():
        result = panel(loopback).invoke(INPUT)
    assert [message.text for message in result["messages"]] == ["Shall we?", "a plan", "facts"]
    assert [record.message for record in caplog.records if record.name == "agentmatrix"] == [
        "a watcher has failed; the run goes on, and not all of it is shown"
    ]


def test_a_live_run_is_seen_with_its_signals() -> None:
    desk = CyclicGraph(name="desk")
    desk.add_node("listen", lambda messages: f"heard {get_activation().items['audio']}")
    desk.add_trigger("listen", signal("audio"))
    with watching() as run, desk.compile().live({"messages": []}) as live:
        live.signal("audio", "hello")
    assert live.result()["messages"][-1].text == "heard hello"
    assert run.nodes["listen"].state == "done"
    assert [line.text for line in run.transcript] == ["heard hello"]


def test_a_run_that_nobody_reads_on_is_cut_off() -> None:
    with watching() as run:
        stream = panel(lambda inner: inner).stream(INPUT)
        next(stream)
        stream.close()
    assert run.state == "cut off"


def test_more_events_are_counted_than_wait_for_somebody_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_run, "_MOST_WAITING", 1_000)
    with watching() as run:
        for _ in range(15):
            one("say", model(), "many").batch([INPUT] * 40)
    assert run.summary().calls == 600
    assert sum(1 for _ in run.events()) >= 3_000
    assert run.nodes_of("many")["say"].count == 40


def test_members_are_seen_that_speak_in_the_task_of_others() -> None:
    with watching() as run:
        panel(lambda inner: inner).invoke(INPUT)
    assert states(run) == {
        "plan": ("done", 1),
        "panel": ("done", 1),
        "panel/optimist": ("done", 1),
        "panel/expert": ("done", 1),
        "panel/expert/look": ("done", 1),
        "panel/expert/write": ("done", 1),
        "panel/quiet": ("done", 1),
    }
    assert run.summary().silent_turns == 1
    said = [(line.path, line.speaker, line.text) for line in run.transcript]
    assert said == [
        ("", "user", "Shall we?"),
        ("plan", "plan", "a plan"),
        ("panel/optimist", "optimist", "quick"),
        ("panel/expert/look", "look", "looked"),
        ("panel/expert/write", "write", "facts"),
    ]


def test_a_graph_without_a_name_is_called_so() -> None:
    graph = StateGraph(MessagesState).add_node("a", lambda state: {}).add_edge(START, "a").compile()
    with watching() as run:
        graph.invoke(INPUT)
    assert run.records[0].name == "(a graph without a name)"
    page = run._repr_html_()
    assert page is not None and "compile(name=...) gives it one" in page


@pytest.mark.parametrize("where", ["here", "on a host"])
def test_a_member_that_fails_in_the_task_that_chooses_it_fails_once(where: str) -> None:
    group = ChatGroup({"broken": ScriptedChatModel(ValueError("no line"))}, stop=max_turns(2)).compile()
    with watching() as run, pytest.raises(ValueError):
        one("panel", loopback(group) if where == "on a host" else group).invoke(INPUT)
    assert run.nodes["panel/broken"].errors == ["ValueError: no line"]
    assert "panel/next_turn" not in run.nodes
    assert run.summary().errors == 1


def test_a_speaker_that_fails_is_shown() -> None:
    def nobody(conversation: Any) -> str:
        raise ValueError("who?")

    group = ChatGroup({"ann": model()}, speaker=nobody, stop=max_turns(2)).compile()
    with watching() as run, pytest.raises(Exception, match=r"who\?"):
        group.invoke(INPUT)
    assert run.summary().errors == 1


@pytest.mark.parametrize("verb", ["sync", "async"])
@pytest.mark.parametrize("barriers", [False, True])
async def test_what_the_cache_has_is_done(verb: str, barriers: bool) -> None:
    dag = Dag(name="desk")
    dag.add_node("look", lambda messages: "looked", cache_policy=CachePolicy(key_func=lambda *given: "one"))
    dag.add_node("write", model("facts"))
    dag.add_edge("look", "write")
    graph = dag.compile(cache=InMemoryCache(), **({"barriers": True} if barriers else {}))
    for is_cached in (False, True):
        with watching(values=True) as run:
            _ = await graph.ainvoke(INPUT) if verb == "async" else graph.invoke(INPUT)
        assert states(run) == {"look": ("done", 1), "write": ("done", 1)}
        assert [line.text for line in run.transcript] == ["Shall we?", "looked", "facts"]
        told = [bool(event.data.get("cached")) for event in run.events() if event.path == "look"]
        assert any(told) is is_cached


@pytest.mark.parametrize("verb", ["sync", "async"])
async def test_what_the_cache_of_a_state_graph_has_is_skipped_and_what_runs_is_right(verb: str) -> None:
    # LangGraph tells no handler of a node that the cache stands in for: `docs/watch.md` says what is seen.
    builder = StateGraph(MessagesState)
    builder.add_node("look", lambda state: {"messages": "looked"}, cache_policy=CachePolicy(key_func=lambda *_: "one"))
    builder.add_node("write", lambda state: {"messages": "facts"})
    builder.add_edge(START, "look")
    builder.add_edge("look", "write")
    graph = builder.compile(cache=InMemoryCache())
    for is_cached in (False, True):
        with watching(values=True) as run:
            result = await graph.ainvoke(INPUT) if verb == "async" else graph.invoke(INPUT)
        assert run.state == "done"
        assert states(run) == {"look": ("skipped", 0) if is_cached else ("done", 1), "write": ("done", 1)}
        assert [message.text for message in result["messages"]] == ["Shall we?", "looked", "facts"]
        written = next(one for one in run.records[0].activations if one.path == "write")
        assert "looked" in str(run.values_of(written)[0])
        assert [line.path for line in run.transcript] == (["", "write"] if is_cached else ["", "look", "write"])
