"""The expert for a GPU box, with its model of numpy: loaded in a lifespan, streamed token by token."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pydoc_data.topics import topics
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk

from agentmatrix import Host, RemoteAgent
from graphs.expert import INPUT, TrigramChatModel, graph, lifespan, model


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the extra `local`, whether it is installed or not."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llama_cpp" else find(name))
    model.cache_clear()
    yield
    model.cache_clear()


async def test_a_hosted_expert_streams_its_tokens(verbs: Any) -> None:
    with Host({"expert": graph}, lifespan=lifespan) as host:
        assert model.cache_info().currsize == 1
        remote = RemoteAgent("expert", url=host.address)
        parts = await verbs.listed(remote, "stream", {"messages": INPUT}, stream_mode="messages")
        chunks = [chunk for chunk, _ in parts if isinstance(chunk, AIMessageChunk)]
        answer = (await verbs.invoke(remote, {"messages": INPUT}))["messages"][-1]
    assert len(chunks) > 5 and "".join(chunk.text for chunk in chunks) == answer.text
    assert answer.usage_metadata["output_tokens"] == len([chunk for chunk in chunks if chunk.text])
    assert model.cache_info().currsize == 0


def test_the_model_says_what_its_text_says() -> None:
    text = " ".join(topics.values())
    trigrams = TrigramChatModel(text=text)
    answers = {trigrams.invoke(question).text for question in ("What is a class?", "And a lambda?", "", "zzz")}
    assert len(answers) == 4
    words = set(text.split())
    assert all(answer.endswith(".") and set(answer[:-1].split()) & words for answer in answers)
    assert trigrams.invoke("What is a class?").text in answers
