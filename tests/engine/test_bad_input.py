"""What cannot be kept or folded ends the run with its cause, and spoils no thread.

In each graph `b` and `c` follow `a`, and `d` follows both. `b` does what is wrong, until it is mended.
"""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.errors import InvalidUpdateError, NodeError
from langgraph.graph import START, MessagesState
from langgraph.types import Command, Send, interrupt

from agentmatrix import CyclicGraph, Dag, all_of, signal
from agentmatrix.errors import SignalError

THREAD: Any = {"configurable": {"thread_id": "1"}}
KINDS = ["Dag", "barriers", "CyclicGraph", "Dag with triggers", "CyclicGraph with triggers"]
WHOLE = ["i", "a", "b", "c", "d"]


def strict(left: list[str], right: list[str]) -> list[str]:
    """A reducer that takes no doubt beside a certainty, in whatever order they come."""
    joined = [*left, *right]
    if {"doubt", "certainty"} <= {*joined}:
        raise ValueError("a doubt beside a certainty")
    return joined


class State(MessagesState, total=False):
    log: Annotated[list[str], operator.add]
    said: Annotated[list[str], strict]
    x: Any


class Story:
    """Four nodes, of which `b` (and `c`) return what they are told to until `mend`.

    Args:
        kind: the builder, and whether triggers or edges lead from node to node.
        bad: by node, what it returns besides its line in the log.
        saver: the checkpointer.
        verb: "sync" or "async".
        durability: as LangGraph has it.
    """

    def __init__(
        self, kind: str, bad: dict[str, Callable[[], Any]], saver: Any, verb: str = "sync", durability: str = "sync"
    ) -> None:
        self.ran: list[str] = []
        self.bad, self.verb, self.durability, self.saver = bad, verb, durability, saver
        builder: Any = (CyclicGraph if kind.startswith("CyclicGraph") else Dag)(State)
        for name in "abcd":
            builder.add_node(name, self._node(name))
        builder.add_edge(START, "a")
        if "triggers" in kind:
            for name, group in (("b", all_of("a")), ("c", all_of("a")), ("d", all_of("b", "c"))):
                builder.add_trigger(name, group)
        else:
            builder.add_edge("a", "b")
            builder.add_edge("a", "c")
            builder.add_edge(["b", "c"], "d")
        options = {"barriers": True} if kind == "barriers" else {}
        self.graph = builder.compile(checkpointer=saver, **options)

    def _node(self, name: str) -> Callable[[State], Any]:
        def node(state: State) -> Any:
            self.ran.append(name)
            if (bad := self.bad.get(name)) is None:
                return {"log": [name]}
            found = bad()
            return {"log": [name], **found} if isinstance(found, dict) else found

        return node

    def mend(self) -> None:
        self.bad.clear()
        self.ran.clear()

    def run(self, input: Any) -> Any:
        if self.verb == "async":
            return asyncio.run(self.graph.ainvoke(input, THREAD, durability=self.durability))
        return self.graph.invoke(input, THREAD, durability=self.durability)

    def fails(self) -> BaseException:
        with pytest.raises(Exception) as caught:
            self.run({"log": ["i"]})
        return caught.value

    @property
    def snapshot(self) -> Any:
        return self.graph.get_state(THREAD)


def told(error: BaseException) -> str:
    """What a user reads of an error."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["sync", "async"])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_value_that_no_saver_keeps(kind: str, verb: str, durability: str) -> None:
    """The saver in memory takes the writes of a node one by one: the first ones must not stay without the rest."""
    story = Story(kind, {"b": lambda: {"x": threading.Lock()}}, InMemorySaver(), verb, durability)
    error = story.fails()
    assert isinstance(error, TypeError)
    said = told(error)
    assert "'b'" in said and "'x'" in said and "lock" in said and "UntrackedValue" in said

    if durability == "exit":
        # Nothing of the run was to be kept before its end.
        assert story.snapshot.values.get("log", []) == []
        story.mend()
        assert story.run({"log": ["i"]})["log"] == WHOLE
        return
    values = story.snapshot.values
    assert "x" not in values and "b" not in values["log"], "half of what b wrote was kept"
    story.mend()
    assert story.run(None)["log"] == WHOLE
    assert "b" in story.ran and "a" not in story.ran


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_no_saver_keeps_on_disk(kind: str, tmp_path: Path) -> None:
    with SqliteSaver.from_conn_string(str(tmp_path / "threads.db")) as saver:
        story = Story(kind, {"b": lambda: {"x": threading.Lock()}}, saver)
        said = told(story.fails())
        assert "'b'" in said and "'x'" in said
        assert story.snapshot.values["log"] in (["i", "a"], ["i", "a", "c"])
        story.mend()
        assert story.run(None)["log"] == WHOLE


class FailingSaver(InMemorySaver):
    """Fails once.

    Args:
        method: "put" or "put_writes".
        number: which of its calls, from 1.
    """

    def __init__(self, method: str, number: int) -> None:
        super().__init__()
        self.method, self.left = method, number

    def _count(self, method: str) -> None:
        self.left -= method == self.method
        if method == self.method and self.left == 0:
            raise OSError("disk full")

    def put(self, *args: Any, **options: Any) -> Any:
        self._count("put")
        return super().put(*args, **options)

    def put_writes(self, *args: Any, **options: Any) -> None:
        self._count("put_writes")
        super().put_writes(*args, **options)

    async def aput(self, *args: Any, **options: Any) -> Any:
        return self.put(*args, **options)

    async def aput_writes(self, *args: Any, **options: Any) -> None:
        self.put_writes(*args, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["sync", "async"])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("method", ["put", "put_writes"])
def test_a_saver_that_fails_in_the_middle(kind: str, verb: str, durability: str, method: str) -> None:
    """Whichever call fails, the thread can be read, and goes on to what it would have come to."""
    failed = 0
    for number in range(1, 12):
        saver = FailingSaver(method, number)
        story = Story(kind, {}, saver, verb, durability)
        try:
            assert story.run({"log": ["i"]})["log"] == WHOLE
        except OSError as error:
            failed += 1
            assert str(error) == "disk full" and "checkpointer" in told(error), told(error)
            if method == "put_writes" and durability != "exit":
                assert any(f"'{name}'" in told(error) for name in ("__start__", *"abcd")), told(error)
        else:
            # Fewer calls than that.
            break
        log = story.snapshot.values.get("log", [])
        assert log == [name for name in WHOLE if name in log], "each line once, in order"
        again = None if log else {"log": ["i"]}
        assert story.run(again)["log"] == WHOLE, (number, log)
    assert failed or (method, durability) == ("put_writes", "exit")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["sync", "async"])
@pytest.mark.parametrize("bad", ["text", None])
def test_a_reducer_does_not_take_what_a_node_returns(kind: str, verb: str, bad: Any) -> None:
    """`operator.add` on a list and a text: a StateGraph's thread cannot be read any more."""
    story = Story(kind, {"b": lambda: {"log": bad}}, InMemorySaver(), verb)
    error = story.fails()
    assert isinstance(error, TypeError)
    said = told(error)
    assert "'b'" in said and "'log'" in said and "reducer" in said
    snapshot = story.snapshot
    assert snapshot.values["log"] in (["i", "a"], ["i", "a", "c"]) and "b" in snapshot.next
    story.mend()
    assert story.run(None)["log"] == WHOLE
    assert "a" not in story.ran


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_stays_of_a_write_whose_other_key_is_refused(kind: str) -> None:
    """Whichever of its keys is looked at first."""
    story = Story(kind, {"b": lambda: {"said": ["b"], "log": "text", "x": 1}}, InMemorySaver())
    story.fails()
    assert story.snapshot.values.get("said", []) == [] and "x" not in story.snapshot.values
    story.bad = {"c": lambda: {"said": ["c"]}}
    assert (result := story.run(None))["log"] == WHOLE
    assert result.get("said", []) in ([], ["c"]) and "x" not in result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["sync", "async"])
def test_a_reducer_does_not_take_what_two_nodes_return(kind: str, verb: str) -> None:
    bad = {"b": lambda: {"said": ["doubt"]}, "c": lambda: {"said": ["certainty"]}}
    story = Story(kind, bad, InMemorySaver(), verb)
    error = story.fails()
    assert isinstance(error, ValueError)
    said = told(error)
    assert "'b'" in said and "'c'" in said and "'said'" in said and "strict" in said
    assert len(story.snapshot.values.get("said", [])) <= 1
    story.mend()
    assert sorted(story.run(None)["log"]) == sorted(WHOLE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reducer_that_fails_beside_a_time_limit(kind: str) -> None:
    """With a limit LangGraph commits in the callback of a future, which swallows exceptions."""
    story = Story(kind, {"b": lambda: {"log": "text"}}, InMemorySaver())
    story.graph.step_timeout = 60
    for verb in ("sync", "async"):
        story.verb = verb
        with pytest.raises(TypeError, match="can only concatenate"):
            story.run({"log": ["i"]})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["sync", "async"])
@pytest.mark.parametrize(
    ("nonsense", "error", "words"),
    [
        (lambda: 5, InvalidUpdateError, ["Expected dict", "5"]),
        (lambda: iter(()), InvalidUpdateError, ["Expected dict"]),
        (lambda: Command(goto="nobody"), InvalidUpdateError, ["'nobody'"]),
        (lambda: Command(goto=Send("nobody", {})), InvalidUpdateError, ["'nobody'"]),
        (lambda: Command(goto=5), TypeError, []),  # type: ignore[arg-type]
        (lambda: {"messages": [object()]}, NotImplementedError, ["'messages'"]),
    ],
    ids=["number", "iterator", "goto", "send", "goto number", "message"],
)
def test_a_node_returns_nonsense(kind: str, verb: str, nonsense: Any, error: Any, words: list[str]) -> None:
    story = Story(kind, {"b": nonsense}, InMemorySaver(), verb)
    found = story.fails()
    assert isinstance(found, error)
    assert all(word in told(found) for word in ["'b'", *words]), told(found)
    assert "b" in story.snapshot.next
    story.mend()
    assert story.run(None)["log"] == WHOLE
    assert "a" not in story.ran


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_pause_beside_what_no_saver_keeps(kind: str, durability: str) -> None:
    """`b` asks a question while `c` returns what cannot be kept."""
    story = Story(kind, {"c": lambda: {"x": threading.Lock()}}, InMemorySaver(), durability=durability)
    story.bad["b"] = lambda: {"said": [interrupt("b?")]}
    assert "'c'" in told(story.fails())
    values = story.snapshot.values
    assert "c" not in values.get("log", [])
    del story.bad["c"]
    paused = story.run(None if values.get("log") else {"log": ["i"]})
    assert [asked.value for asked in paused["__interrupt__"]] == ["b?"]
    assert story.run(Command(resume="yes"))["log"] == WHOLE


@pytest.mark.parametrize("verb", ["sync", "async"])
@pytest.mark.parametrize("limit", [None, 60])
def test_an_error_handler_answers_for_what_a_reducer_refuses(verb: str, limit: float | None) -> None:
    """And is not asked again where its own answer is refused."""
    handled: list[str] = []

    def handle(state: State, error: NodeError) -> Any:
        handled.append(str(error.error))
        return {"log": answer}

    def fails(state: State) -> Any:
        return {"log": "text"}

    builder = Dag(State)
    builder.add_node("b", fails, error_handler=handle)
    graph = builder.compile()
    graph.step_timeout = limit

    def run() -> Any:
        return graph.invoke({"log": []}) if verb == "sync" else asyncio.run(graph.ainvoke({"log": []}))

    answer: Any = ["handled"]
    assert run()["log"] == ["handled"]
    assert len(handled) == 1 and "concatenate" in handled[0]
    answer = "text"
    with pytest.raises(TypeError, match="concatenate"):
        run()
    assert len(handled) == 2


@pytest.mark.parametrize("durability", ["sync", "async"])
def test_a_saver_that_fails_in_a_live_run_loses_no_signal_that_was_acknowledged(durability: Any) -> None:
    for number in range(1, 12):
        saver = FailingSaver("put_writes", number)
        builder = CyclicGraph(State)
        builder.add_node("listen", lambda state: {"log": ["heard"]})
        builder.add_trigger("listen", signal("audio"))
        graph = builder.compile(checkpointer=saver)
        acknowledged = 0
        try:
            with graph.live({"log": []}, THREAD, durability=durability) as run:
                for word in range(3):
                    try:
                        run.signal("audio", word)
                        acknowledged += 1
                    except (OSError, SignalError) as refused:
                        # The sender is told why, and so is who waits for the run.
                        assert "disk full" in str(refused) or "has failed with OSError" in str(refused)
            assert run.result()["log"] == ["heard"] * 3
        except OSError as error:
            assert "checkpointer" in told(error)
        if saver.left > 0:
            break
        assert len(graph.get_state(THREAD).values.get("log", [])) <= 3
        heard = graph.invoke(None, THREAD)["log"]
        assert acknowledged <= len(heard) <= 3
    else:
        raise AssertionError("no run without a failure")
