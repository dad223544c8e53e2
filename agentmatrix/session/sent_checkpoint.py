"""The checkpoint that a run goes on from, in its first frame: so the host need not ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple

from agentmatrix.errors import DecodeError
from agentmatrix.wire.codec import Codec

__all__ = ["SentCheckpoint"]


@dataclass(frozen=True)
class SentCheckpoint:
    """What the caller's checkpointer has answered.

    Attributes:
        place: thread, namespace and id that were asked for.
        found: the checkpoint; None where there is none.
    """

    place: tuple[str, str, str | None]
    found: CheckpointTuple | None

    @staticmethod
    def place_of(config: RunnableConfig) -> tuple[str, str, str | None]:
        """What a config for a checkpointer asks for."""
        asked = config.get("configurable", {})
        return str(asked.get("thread_id")), asked.get("checkpoint_ns") or "", asked.get("checkpoint_id") or None

    @classmethod
    def encode(cls, asked: RunnableConfig, found: CheckpointTuple | None, codec: Codec) -> bytes:
        """The bytes for the host.

        Raises:
            EncodeError: it cannot be sent.
        """
        return codec.encode((cls.place_of(asked), found), "checkpoint")

    @classmethod
    def decode(cls, data: bytes, codec: Codec) -> SentCheckpoint:
        """What the caller has sent.

        Raises:
            DecodeError: it is none.
        """
        sent: Any = codec.decode(data, "checkpoint")
        if not (isinstance(sent, tuple) and len(sent) == 2 and isinstance(sent[0], tuple) and len(sent[0]) == 3):
            raise DecodeError("the checkpoint of a run is its place and what was found there")
        place, found = sent
        if not isinstance(found, CheckpointTuple | None):
            raise DecodeError("the checkpoint of a run is none")
        return cls(place, found)
