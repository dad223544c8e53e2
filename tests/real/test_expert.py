"""The expert with a real model, on a host."""

from __future__ import annotations

import pytest

pytest.importorskip("llama_cpp", reason="the extra local is not installed")

from agentmatrix import Host, RemoteAgent
from agentmatrix.testing.local_model import LocalChatModel
from graphs.expert import INPUT, graph, lifespan, model


def test_it_streams_the_tokens_of_a_model_that_was_loaded_before_the_host_served() -> None:
    with Host({"expert": graph}, lifespan=lifespan) as host:
        assert isinstance(model(), LocalChatModel)
        remote = RemoteAgent("expert", url=host.address)
        chunks = [chunk for chunk, _ in remote.stream({"messages": INPUT}, stream_mode="messages")]
        assert len(chunks) > 5 and "".join(chunk.text for chunk in chunks).strip()
