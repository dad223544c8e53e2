"""The scripted model stands where a real one would."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManager, get_usage_metadata_callback
from langchain_core.globals import set_debug
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_core.tracers.context import tracing_v2_callback_var
from pydantic import BaseModel

from agentmatrix.errors import ScriptExhausted
from agentmatrix.testing.scripted import ScriptedChatModel

PROMPT = [HumanMessage("hi")]


def test_it_answers_in_order_and_says_when_it_has_nothing_left() -> None:
    model = ScriptedChatModel(["one", AIMessage("two", id="kept"), lambda messages: f"heard {messages[-1].content}"])
    answers = [model.invoke(text) for text in ("hi", "hi", "you")]
    assert (answers[0].content, answers[1].id, answers[2].content) == ("one", "kept", "heard you")
    with pytest.raises(ScriptExhausted, match="3 answers.*called 4 times.*cycle=True"):
        model.invoke("more")
    assert model.calls == 4
    assert model.prompts[2] == [HumanMessage("you")]


async def test_it_streams_word_by_word_sync_and_async() -> None:
    model = ScriptedChatModel("  to be, or\nnot", cycle=True, usage=True)
    words = [chunk.content for chunk in model.stream("hi")]
    assert [w for w in words if w] == ["  ", "to ", "be, ", "or\n", "not"]
    chunks = [chunk async for chunk in model.astream("hi")]
    whole: Any = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert isinstance(whole, AIMessageChunk) and whole.content == "  to be, or\nnot"
    assert whole.usage_metadata is not None and whole.usage_metadata["output_tokens"] == 4


async def test_it_calls_tools_streamed_or_not() -> None:
    @tool
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    model = ScriptedChatModel([{"name": "add", "args": {"a": 1, "b": 2}}], cycle=True).bind_tools([add])
    calls = [model.invoke("hi").tool_calls, (await model.ainvoke("hi")).tool_calls]
    whole: Any = None
    for chunk in model.stream("hi"):
        whole = chunk if whole is None else whole + chunk
    calls.append(whole.tool_calls)
    assert [call[0]["args"] for call in calls] == [{"a": 1, "b": 2}] * 3


def test_it_gives_structured_output() -> None:
    class Point(BaseModel):
        x: int

    model = ScriptedChatModel([[{"name": "Point", "args": {"x": 3}}]])
    assert model.with_structured_output(Point).invoke("hi") == Point(x=3)


def test_it_raises_what_it_is_told_to_raise() -> None:
    model = ScriptedChatModel([ConnectionError("gone"), "back"])
    with pytest.raises(ConnectionError, match="gone"):
        model.invoke("hi")
    assert model.invoke("hi").content == "back"


def test_threads_share_its_answers_and_lose_none() -> None:
    model = ScriptedChatModel([str(i) for i in range(100)])
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda _: model.invoke("hi").content, range(100)))
    assert sorted(said, key=int) == [str(i) for i in range(100)]


def test_it_can_be_copied_pickled_and_dumped() -> None:
    model = ScriptedChatModel(["one", "two"])
    model.invoke("hi")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.invoke("hi").content == "two"
    assert model.model_dump()["answers"] == ["one", "two"]


def _by_callbacks(model: ScriptedChatModel, follower: BaseCallbackHandler) -> None:
    model.invoke(PROMPT, {"callbacks": [follower]})


def _by_a_manager(model: ScriptedChatModel, follower: BaseCallbackHandler) -> None:
    model.invoke(PROMPT, {"callbacks": CallbackManager([follower])})


def _by_the_model(model: ScriptedChatModel, follower: BaseCallbackHandler) -> None:
    model.callbacks = [follower]
    model.invoke(PROMPT)


def _by_the_caller(model: ScriptedChatModel, follower: BaseCallbackHandler) -> None:
    RunnableLambda(lambda _: model.invoke(PROMPT)).invoke(None, {"callbacks": [follower]})


def _by_a_tracer(model: ScriptedChatModel, follower: BaseCallbackHandler) -> None:
    before = tracing_v2_callback_var.set(follower)  # type: ignore[arg-type]
    try:
        model.invoke(PROMPT)
    finally:
        tracing_v2_callback_var.reset(before)


@pytest.mark.parametrize("follow", [_by_callbacks, _by_a_manager, _by_the_model, _by_the_caller, _by_a_tracer])
def test_whoever_follows_a_call_is_told_of_it(follow: Callable[[ScriptedChatModel, Any], None]) -> None:
    told: list[Any] = []

    class Follower(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            told.append(messages)

    follow(ScriptedChatModel("hello"), Follower())
    assert told == [[PROMPT]]


def test_the_usage_of_a_block_of_code_is_counted() -> None:
    with get_usage_metadata_callback() as counter:
        ScriptedChatModel(AIMessage("hi", response_metadata={"model_name": "m"}), usage=True).invoke(PROMPT)
    assert counter.usage_metadata["m"]["output_tokens"] == 1


def test_verbose_and_debug_show_a_call(capsys: pytest.CaptureFixture[str]) -> None:
    ScriptedChatModel("hello", verbose=True).invoke(PROMPT)
    set_debug(True)
    try:
        ScriptedChatModel("hello").invoke(PROMPT)
    finally:
        set_debug(False)
    assert "hello" in capsys.readouterr().out


def test_its_answers_have_ids_of_their_own() -> None:
    model = ScriptedChatModel("hello", cycle=True)
    answers = [model.invoke(PROMPT) for _ in range(100)]
    assert len({answer.id for answer in answers}) == 100


def test_a_prompt_is_kept_as_it_was_and_bad_ones_are_refused() -> None:
    model = ScriptedChatModel("hello", cycle=True)
    prompt: list[Any] = [HumanMessage("hi")]
    prompt.append(model.invoke(prompt))
    model.invoke([*prompt, ("user", "and?"), HumanMessage("well?")])
    assert [len(asked) for asked in model.prompts] == [1, 4]
    assert model.prompts[1][2] == HumanMessage("and?")
    with pytest.raises(NotImplementedError):
        model.invoke([HumanMessage("hi"), 42, HumanMessage("hi")])  # type: ignore[list-item]
