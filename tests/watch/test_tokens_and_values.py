"""What is said while it is said (`tokens=True`), and what nodes were given and returned (`values=True`)."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.types import Command, Send
from pydantic import BaseModel

from agentmatrix import ChatGroup, Dag, watching
from agentmatrix.speakers import broadcast
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback
from agentmatrix.watch import RunEvent, WatchedRun
from agentmatrix.watch.event_batches import EventBatches
from agentmatrix.watch.event_log import EventLog
from agentmatrix.watch.recorder import EventRecorder
from agentmatrix.watch.value_text import MOST_CHARACTERS, value_text
from tests.watch.watched_graphs import INPUT, one

WORDS = [f"word{number} " for number in range(50)]


class HeldModel(ScriptedChatModel):
    """Says half of its answer, and the rest when somebody lets it."""

    def _stream(self, *args: Any, **kwargs: Any) -> Any:
        for number, chunk in enumerate(super()._stream(*args, **kwargs)):
            if number == 25:
                half.set()
                assert rest.wait(60)
            yield chunk

    async def _astream(self, *args: Any, **kwargs: Any) -> Any:
        for chunk in self._stream(*args, **kwargs):
            yield chunk


half, rest = threading.Event(), threading.Event()


@pytest.fixture(autouse=True)
def held() -> None:
    half.clear()
    rest.clear()


@pytest.mark.parametrize("where", ["here", "on a host"])
@pytest.mark.parametrize("verb", ["invoke", "ainvoke"])
def test_half_a_message_is_there_before_the_rest(where: str, verb: str) -> None:
    inner = one("write", HeldModel("".join(WORDS)))
    graph = one("desk", loopback(inner) if where == "on a host" else inner)

    def work() -> None:
        _ = graph.invoke(INPUT) if verb == "invoke" else asyncio.run(graph.ainvoke(INPUT))

    with watching(tokens=True) as run:
        worker = threading.Thread(target=work)
        worker.start()
        assert half.wait(60)
        while not run.streamed or len(run.streamed[0].text.split()) < 25:
            assert worker.is_alive()
        (line,) = run.streamed
        assert (line.path, line.speaker, line.text) == ("desk/write", "write", "".join(WORDS[:25]))
        assert [said.text for said in run.transcript] == ["Shall we?"]
        rest.set()
        worker.join()
    assert run.streamed == []
    (_, said) = run.transcript
    # The id is that of the message, so that the whole takes the place of its parts.
    assert (said.id, said.text) == (line.id, "".join(WORDS))
    parts = [event for event in run.events() if event.kind == "token"]
    assert "".join(event.data["text"] for event in parts) == said.text
    assert len(parts) <= 2 + len(WORDS)


def test_nobody_is_made_to_stream_where_tokens_are_not_asked_for() -> None:
    graph = one("desk", loopback(one("write", HeldModel("a b c"))))
    with watching() as run:
        graph.invoke(INPUT)
    assert "token" not in {event.kind for event in run.events()}


def test_members_of_a_broadcast_stream_under_their_names() -> None:
    members = {name: ScriptedChatModel(f"I am {name}") for name in ("ann", "bob")}
    group = ChatGroup(members, speaker=broadcast(), stop=max_turns(1), reply="transcript")
    with watching(tokens=True) as run:
        one("panel", group.compile()).invoke(INPUT)
    said = {event.path: event.data["speaker"] for event in run.events() if event.kind == "token"}
    assert said == {"panel/ann": "ann", "panel/bob": "bob"}
    assert run.streamed == []


@pytest.mark.parametrize("kind", ["model", "graph"])
@pytest.mark.parametrize("where", ["here", "on a host"])
@pytest.mark.parametrize("verb", ["invoke", "ainvoke"])
@pytest.mark.parametrize("is_held", [False, True])
def test_what_a_middleware_holds_back_is_not_told_while_it_is_made(
    kind: str, where: str, verb: str, is_held: bool
) -> None:
    def secrets(message: BaseMessage, *others: Any) -> BaseMessage:
        return message.model_copy(update={"content": message.text.replace("1234", "****")})

    model = ScriptedChatModel("The code is 1234.")
    members = {"ann": model if kind == "model" else one("write", model)}
    group = ChatGroup(members, middleware=[secrets], hold=is_held, stop=max_turns(1)).compile()
    graph = loopback(group) if where == "on a host" else group
    with watching(tokens=True) as run:
        result = graph.invoke(INPUT) if verb == "invoke" else asyncio.run(graph.ainvoke(INPUT))
    told = "".join(event.data["text"] for event in run.events() if event.kind == "token")
    assert told == ("" if is_held else "The code is 1234.")
    assert result["messages"][-1].text == "The code is ****."
    if kind == "model":
        assert run.transcript[-1].text == "The code is ****."


def test_what_nobody_looks_at_is_merged() -> None:
    with watching(tokens=True) as run:
        one("write", ScriptedChatModel("".join(f"word{number} " for number in range(2_000)))).invoke(INPUT)
    assert len([event for event in run.events() if event.kind == "token"]) < 10


def test_tokens_are_bounded() -> None:
    with watching(tokens=True) as run:
        one("write", ScriptedChatModel(("long" * 6 + " ") * 20_000)).invoke(INPUT)
    assert sum(len(event.data["text"]) for event in run.events() if event.kind == "token") == 100_000
    assert len(run.transcript[-1].text) == 500_000


def test_a_host_that_tells_what_it_was_not_asked_for_is_not_heard() -> None:
    told = list[RunEvent]()
    recorder = EventRecorder(told.append)
    graph: Any = None
    recorder.take(RunEvent("token", "1", "a", "a:1", 0.0, {"id": "m", "speaker": "a", "text": "x"}), graph)
    recorder.take(RunEvent("answer", "1", "a", "a:1", 0.0, {"ids": ["q"], "by": "me"}), graph)
    recorder.take(RunEvent("begin", "1", "a", "a:1", 0.0, {"input": "x" * 100_000}), graph)
    assert [(event.kind, event.data) for event in told] == [("begin", {})]


@pytest.mark.parametrize("where", ["here", "on a host"])
@pytest.mark.parametrize("verb", ["invoke", "stream", "ainvoke"])
def test_what_nodes_are_given_and_return(where: str, verb: str) -> None:
    inner = Dag(name="inner")
    inner.add_sequence([("look", lambda messages: "looked"), ("write", ScriptedChatModel("facts"))])
    compiled = inner.compile()
    graph = one("desk", loopback(compiled) if where == "on a host" else compiled)
    with watching(values=True) as run:
        if verb == "stream":
            list(graph.stream(INPUT))
        else:
            _ = graph.invoke(INPUT) if verb == "invoke" else asyncio.run(graph.ainvoke(INPUT))
    (record,) = run.records
    found = {}
    for activation in record.activations:
        before, after = run.values_of(activation)
        assert before and after
        found[activation.path] = json.loads(before), json.loads(after)
    assert sorted(found) == ["", "desk", "desk/look", "desk/write"]
    assert [message["content"] for message in found["desk/write"][0]["messages"]] == ["Shall we?", "looked"]
    assert "facts" in json.dumps(found["desk/write"][1])
    assert found[""][1]["messages"][-1]["content"] == "facts"


def test_an_input_is_told_as_it_was_before_the_node_changed_it() -> None:
    def spoil(state: dict[str, Any]) -> dict[str, Any]:
        state["messages"].clear()
        return {"messages": "spoilt"}

    with watching(values=True) as run:
        one("spoil", spoil).invoke(INPUT)
    activation = next(one for one in run.records[0].activations if one.path == "spoil")
    assert "Shall we?" in str(run.values_of(activation)[0])


class Broken(dict[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no")


class Model(BaseModel):
    name: str = "m"


@dataclass
class Record:
    name: str = "r"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"messages": [HumanMessage("hi", id="1")]}, '{"messages": [{"type": "human", "content": "hi", "id": "1"}]}'),
        ((Model(), Record()), '[{"name": "m"}, {"name": "r"}]'),
        (Command(goto=Send("a", 1)).goto, '{"node": "a", "arg": 1}'),
        ([float("nan"), True, None, b"ab", 10**5000], '["nan", true, null, "<2 bytes>", "<int>"]'),
        (Broken(a=1), '"<Broken>"'),
        (deque(range(3)), "[0, 1, 2]"),
    ],
)
def test_values_as_text(value: Any, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("x" * 10_000_000, "(10,000,000 characters)"),
        ("\0" * 1_000_000, "(1,000,000 characters)"),
        (list(range(1_000_000)), "more"),
        (dict.fromkeys(range(1000000), "y"), "more"),
        ([{"a": ["z" * 30_000]}] * 50, "more"),
    ],
    ids=["text", "escapes", "list", "dict", "nested"],
)
def test_a_large_value_is_cut_and_says_its_size(value: Any, size: str) -> None:
    text = value_text(value)
    assert MOST_CHARACTERS * 0.9 < len(text) <= MOST_CHARACTERS
    json.loads(text)
    assert size in text[-200:]


def test_a_message_that_a_node_changes_is_told_as_it_was_each_time() -> None:
    message = AIMessage("one", name="ann", id="1")
    assert value_text([message]) == '[{"type": "ai", "name": "ann", "content": "one", "id": "1"}]'
    message.content = "two"
    assert value_text([message]) == '[{"type": "ai", "name": "ann", "content": "two", "id": "1"}]'
    message.tool_calls = [{"name": "pay", "args": {"amount": 1}, "id": "c", "type": "tool_call"}]
    assert '"args": {"amount": 1}' in value_text([message])


@given(st.text(), st.none() | st.text(), st.none() | st.text())
def test_the_text_of_a_message_is_that_of_json(content: str, name: str | None, id: str | None) -> None:
    parts = {"type": "ai", "name": name, "content": content, "id": id}
    kept = {key: part for key, part in parts.items() if part or key == "content"}
    assert value_text(AIMessage(content, name=name, id=id)) == json.dumps(kept, ensure_ascii=False)


def test_a_generator_is_not_read() -> None:
    numbers = (number for number in range(3))
    value_text({"numbers": numbers})
    assert list(numbers) == [0, 1, 2]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.text().map(AIMessage),
    ),
    st.integers(300, 2_000),
)
def test_any_value_is_json_within_its_bound(value: Any, most: int) -> None:
    text = value_text(value, most)
    json.loads(text)
    assert len(text) <= most + 200


def test_the_log_is_bounded_by_characters_too() -> None:
    log = EventLog(keep=1_000, characters=1_000)
    for number in range(50):
        log.add(RunEvent("begin", "1", "a", f"a:{number}", float(number), {"input": "x" * 100}))
    assert [event.namespace for event in log.after(0)] == [f"a:{number}" for number in range(40, 50)]
    assert [event.namespace for event in log.after(48)] == ["a:48", "a:49"]
    assert log.after(50) == []


def test_a_frame_of_events_is_bounded() -> None:
    sent = list[list[list[Any]]]()
    batches = EventBatches(sent.append)
    for number in range(40):
        batches.add(RunEvent("begin", "1", "a", f"a:{number}", 0.0, {"input": "x" * 100_000}))
    batches.close()
    assert sum(map(len, sent)) == 40
    assert max(map(len, sent)) <= 5


def test_tokens_that_wait_for_a_frame_are_merged_and_come_in_order() -> None:
    sent = list[Any]()
    batches = EventBatches(sent.extend)
    batches.add(RunEvent("begin", "1", "a", "a:1", 0.0, {}))
    for word in WORDS:
        batches.add(RunEvent("token", "1", "a", "a:1", 0.0, {"id": "m", "speaker": "a", "text": word}))
    batches.add(RunEvent("end", "1", "a", "a:1", 0.0, {}))
    batches.close()
    kinds = [event[0] for event in sent]
    assert kinds[0] == "begin" and kinds[-1] == "end" and len(kinds) < 20
    assert "".join(event[5]["text"] for event in sent if event[0] == "token") == "".join(WORDS)


def test_memory_of_a_run_that_nobody_looks_at_is_bounded() -> None:
    run = WatchedRun(keep=100)
    for number in range(30_000):
        run.take(RunEvent("tool", "", "", "", float(number), {}))
    assert len(run._new) <= 10_001
    assert run.version == 30_000
    assert len(list(run.events())) == 100
