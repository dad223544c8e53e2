"""The local model with odd answers of llama.cpp, which is not needed here. tests/real has it with its weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from agentmatrix.errors import AgentMatrixError
from agentmatrix.testing.local_model import LocalChatModel


class Grammar:
    """The text of a grammar."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def from_string(cls, text: str, verbose: bool) -> Grammar:
        return cls(text)

    @classmethod
    def from_json_schema(cls, schema: str, verbose: bool) -> Grammar:
        raise ValueError("no grammar of that")


class Llama:
    """Answers by a script, and keeps what it was asked for."""

    script: list[str]
    asked: list[tuple[str, dict[str, Any]]]
    n_tokens = 100

    def __init__(self, **options: Any) -> None:
        pass

    def create_completion(self, prompt: str, **options: Any) -> Any:
        if len(prompt) > 5_000:
            raise ValueError("Requested tokens (9000) exceed context window of 4096")
        self.asked.append((prompt, options))
        text = self.script.pop(0)
        if options.get("stream"):
            return self.streamed(text)
        reason = "length" if text.endswith("...") else "stop"
        choice = {"text": text.removesuffix("..."), "finish_reason": reason}
        return {"id": "cmpl-1", "choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}

    def streamed(self, text: str) -> Iterator[Any]:
        for word in text.split():
            yield {"choices": [{"text": word, "finish_reason": None}]}
        yield {"choices": [{"text": "", "finish_reason": "stop"}]}


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> type[Llama]:
    Llama.script, Llama.asked = [], []
    monkeypatch.setitem(sys.modules, "llama_cpp", SimpleNamespace(Llama=Llama, LlamaGrammar=Grammar))
    grammars = SimpleNamespace(JSON_GBNF="any object", LlamaGrammar=Grammar)
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_grammar", grammars)
    return Llama


def note(text: str, place: str = "desk") -> str:
    """Leave a note."""
    return text


def look() -> str:
    """Look around."""
    return "dark"


MODEL = LocalChatModel(model_path="weights of a test", max_tokens=5)


@pytest.mark.parametrize(
    ("answer", "arguments", "reason"),
    [
        ('{"text": "hello"}', {"text": "hello"}, "tool_calls"),
        ('{"text": "hel...', {}, "length"),
        ("[1, 2]", {}, "tool_calls"),
        ('"text"', {}, "tool_calls"),
        ("", {}, "tool_calls"),
    ],
)
def test_a_call_with_odd_arguments_has_none(llama: type[Llama], answer: str, arguments: Any, reason: str) -> None:
    chosen, forced = MODEL.bind_tools([note, look]), MODEL.bind_tools([note, look], tool_choice="any")
    llama.script = ["functions.note:", answer, answer, answer]
    streamed = None
    said = [chosen.invoke("Go."), forced.invoke("Go.")]
    for chunk in forced.stream("Go."):
        streamed = chunk if streamed is None else streamed + chunk
    assert isinstance(streamed, AIMessage)
    for message in (*said, streamed):
        [call] = message.tool_calls
        assert (call["name"], call["args"]) == ("note", arguments)
        assert message.response_metadata["finish_reason"] == reason
    assert [options["max_tokens"] for _, options in llama.asked] == [None, 5, 5, 5]


def test_it_chooses_words_which_are_streamed_and_bounded(llama: type[Llama]) -> None:
    llama.script = ["message:", "a b c"]
    chunks = [*MODEL.bind_tools([note, look]).stream("Go.")]
    assert [chunk.text for chunk in chunks if chunk.text] == ["a", "b", "c"]
    (_, choice), (prompt, words) = llama.asked
    assert choice["grammar"].text == 'root ::= "message:" | "functions.note:" | "functions.look:"'
    assert "grammar" not in words and words["max_tokens"] == 5 and prompt.endswith("assistant\nmessage:\n")


def test_instructions_calls_and_results_are_in_the_prompt(llama: type[Llama]) -> None:
    llama.script = ["message:", ""]
    asked = AIMessage("Well.", tool_calls=[{"name": "note", "args": {"text": "{x}"}, "id": "1"}])
    told = ToolMessage("done", tool_call_id="1", name="note")
    said = MODEL.bind_tools([note]).invoke([SystemMessage("Be {kind}."), HumanMessage("Go."), asked, told])
    prompt = llama.asked[0][0]
    assert said.text == "" and prompt.startswith("<|im_start|>system\nBe {kind}.\n\nYou have access to")
    assert "functions.note:\nLeave a note.\n{" in prompt
    assert 'assistant\nmessage:\nWell.\nfunctions.note:\n{"text": "{x}"}<|im_end|>' in prompt
    assert "user\nResult of note: done<|im_end|>" in prompt


def test_a_prompt_that_is_too_long_and_a_tool_that_is_none(llama: type[Llama]) -> None:
    with pytest.raises(AgentMatrixError, match=r"exceed context window.*; give it a larger n_ctx="):
        MODEL.bind_tools([note]).invoke("word " * 1_000)
    with pytest.raises(ValueError, match="there is no tool 'nite' to choose; there are: note, look"):
        MODEL.bind_tools([note, look], tool_choice="nite")
