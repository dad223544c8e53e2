"""What messages say, as bytes; the memory for it; and names that say nothing."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from agentmatrix.errors import DecodeError
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.message_cache import MessageCache, content_of, made_of, state_of
from agentmatrix.wire.shared_messages import ReceivedMessages, SentMessages

CALL: Any = {"name": "look", "args": {"at": [1, 2.5, None]}, "id": "1", "type": "tool_call"}
MESSAGES = [
    HumanMessage("hello", id="1"),
    AIMessage([{"type": "text", "text": "a"}], id="2", tool_calls=[CALL], response_metadata={"model_name": "m"}),
    ToolMessage("done", tool_call_id="1", artifact={"rows": [1, 2]}),
    HumanMessage("said more", mark=1),
]


def allowed(name: str) -> type | None:
    return next((type(message) for message in MESSAGES if name.endswith(f":{type(message).__name__}")), None)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_made_anew_from_what_it_says(message: BaseMessage) -> None:
    content = content_of(message)
    assert content is not None
    first, second = made_of(content, allowed), made_of(content, allowed)
    assert first == message == second and first is not None and second is not None
    assert first.model_fields_set == message.model_fields_set and content_of(first) == content
    first.additional_kwargs["changed"] = True
    assert second == message and state_of(first) != state_of(second) == state_of(message)
    assert made_of(content, lambda name: None) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (1, 1.0), (0.0, -0.0), ("1", b"1"), ([], {}), ([1], [1, None])],
)
def test_contents_are_equal_to_the_last_type(one: Any, other: Any) -> None:
    first, second = (HumanMessage("", additional_kwargs={"value": value}) for value in (one, other))
    assert content_of(first) != content_of(second) and state_of(first) != state_of(second)


@pytest.mark.parametrize("value", [uuid4(), (1, 2), {1: 2}, 1 << 70, "\ud800", object(), {"agentmatrix:type": "a:B"}])
def test_more_than_plain_data_has_no_content(value: Any) -> None:
    assert content_of(ToolMessage("", tool_call_id="1", artifact=value)) is None


def test_a_cache_keeps_what_was_used_last() -> None:
    cache: MessageCache[str, int] = MessageCache(10)
    cache.put("a", 1, 4)
    cache.put("b", 2, 4)
    assert cache.get("a") == 1
    cache.put("c", 3, 4)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]
    cache.put("a", 5, 10)
    assert [cache.get(key) for key in "abc"] == [5, None, None]
    cache.put("huge", 6, 11)
    assert [cache.get(key) for key in ("a", "huge")] == [None, None]


def sent(connection: int | None, messages: list[BaseMessage]) -> tuple[SentMessages, bytes]:
    run = SentMessages(connection)
    return run, Codec().encode_pieces(messages, "value", run)[0]


def test_one_connection_does_not_see_what_another_has_sent() -> None:
    given: list[BaseMessage] = [HumanMessage("secret " * 100, id=str(number)) for number in range(10)]
    run, by_value = sent(-1, given)
    first = ReceivedMessages(-1)
    assert Codec().with_messages(first, encodes=True).decode(by_value) == given
    assert first.keep()
    run.keep(-1)
    _, named = sent(-1, given)
    assert len(named) < 100 < len(by_value)
    again, other = ReceivedMessages(-1), ReceivedMessages(-2)
    assert Codec().with_messages(again, encodes=True).decode(named) == given
    with pytest.raises(DecodeError, match="not here any more"):
        Codec().with_messages(other, encodes=True).decode(named)
    assert len(other.missing) == 10  # all at once


@pytest.mark.parametrize("ranges", [[1], [1, -(1 << 40)], [1, 1 << 60], [1.0, 1], "ab", [[1], 1]])
def test_names_that_are_none(ranges: Any) -> None:
    from ormsgpack import packb

    from agentmatrix.wire.shared_messages import NAMED

    received = ReceivedMessages(-3)
    with pytest.raises(DecodeError):
        Codec().with_messages(received, encodes=True).decode(packb([NAMED.ext, ranges]))
    assert not received.missing
