"""What is sent to an actor: words, or values for its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages

from agentmatrix.errors import SendError
from agentmatrix.scheduling.actors import split_path
from agentmatrix.scheduling.scheduled_activation import Write

__all__ = ["as_messages", "message_writes"]


def message_writes(path: str, keys: Iterable[str], value: Any, sender: str) -> list[Write]:
    """What a message writes to the state of an actor.

    Args:
        path: the actor's.
        keys: those of its state.
        value: the message.
        sender: the path of whoever has sent it; "" for the run's input.

    Raises:
        SendError: it is no message for this actor.
    """
    keys = frozenset(keys)
    if value is None:
        return []
    if isinstance(value, Mapping):
        if unknown := sorted(str(key) for key in value if key not in keys):
            raise SendError(
                f"the message for {path!r} has the key {unknown[0]!r}, which its state has not got (there are: "
                f"{', '.join(sorted(keys))})",
                "unfit",
            )
        return [(key, item) for key, item in value.items()]
    # A checkpointer gives a tuple back as a list, so that a role and a text would become two texts.
    is_pair = isinstance(value, tuple) and not all(isinstance(message, BaseMessage) for message in value)
    if "messages" in keys and not is_pair:
        with suppress(Exception):
            return [("messages", as_messages(value, sender))]
    wanted = "a text, a message, a list of messages, or a dict" if "messages" in keys else "a dict"
    raise SendError(f"the message for {path!r} is of type {type(value).__name__}: send {wanted} of its state", "unfit")


def as_messages(value: Any, sender: str) -> list[BaseMessage]:
    """Words as messages.

    Args:
        value: what `add_messages` takes: a message, a text, a pair of a role and a text, a dict, or several of them.
        sender: the path of whoever says them, under whose name a text goes; "" for the run's input.

    Raises:
        Exception: they are no words.
    """
    is_one = not isinstance(value, list) and not (isinstance(value, tuple) and isinstance(value[0], BaseMessage))
    name = split_path(sender)[1] or sender
    return [_as_message(one, name) for one in ([value] if is_one else value)]


def _as_message(one: Any, name: str) -> BaseMessage:
    if isinstance(one, str):
        return HumanMessage(one, name=name or None)
    return one if isinstance(one, BaseMessage) else convert_to_messages([one])[0]
