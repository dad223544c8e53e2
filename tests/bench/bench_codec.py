"""What a value costs on its way to bytes and back: `python tests/bench/bench_codec.py [seconds per figure]`."""

from __future__ import annotations

import sys
import timeit
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from agentmatrix.wire.codec import Codec


def conversation(turns: int) -> dict[str, Any]:
    """A state of `turns` times four messages, 1.5 KB for one turn."""
    call = {"name": "weather", "args": {"city": "Paris"}, "id": "c1", "type": "tool_call"}
    turn = [
        HumanMessage("hello there, what is the weather in Paris today?", id="a1", name="user"),
        AIMessage("", id="a2", tool_calls=[call], response_metadata={"finish_reason": "tool_calls"}),
        ToolMessage("sunny, 21 degrees", tool_call_id="c1", id="a3", name="weather"),
        AIMessage("It is sunny in Paris, 21 degrees. " * 5, id="a4", name="bot"),
    ]
    docs = [{"id": number, "text": "some text of the document " * 2, "score": 0.5} for number in range(5)]
    return {"messages": turn * turns, "next": ["a", "b"], "docs": docs}


def microseconds(work: Any, seconds: float) -> float:
    """The best of five means."""
    timer = timeit.Timer(work)
    number = max(1, int(seconds / 5 / max(timer.timeit(1), 1e-7)))
    return min(timer.repeat(5, number)) / number * 1e6


def main() -> None:
    """Print bytes and microseconds for a few values."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    codec = Codec()
    values = {
        "plain dict, 1.2 KB": {"text": "x" * 1200, "n": 1, "tags": ["a", "b"], "meta": {"k": 1.5, "u": None}},
        "4 messages, 1.5 KB": conversation(1),
        "400 messages": conversation(100),
        "10,000 small dicts": [{"id": number, "name": f"n{number}", "score": 0.5} for number in range(10_000)],
        "10 MB of bytes": {"data": bytes(10_000_000)},
    }
    for name, value in values.items():
        data = codec.encode(value)
        there = microseconds(lambda v=value: codec.encode(v), seconds)
        back = microseconds(lambda d=data: codec.decode(d), seconds)
        print(f"{name:22} {len(data):>12,} bytes   encode {there:>10,.1f} us   decode {back:>10,.1f} us")


if __name__ == "__main__":
    main()
