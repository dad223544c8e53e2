"""The checkpoint that a run goes on from: in its first frame, so that the host need not ask for it; and at its loss."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple

from agentmatrix.errors import DecodeError
from agentmatrix.session.saver_scope import LentSaver
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.shared_messages import SharedMessages

__all__ = ["StartCheckpoint", "SentCheckpoint"]


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
    def encode(
        cls,
        asked: RunnableConfig,
        found: CheckpointTuple | None,
        codec: Codec,
        messages: SharedMessages | None = None,
    ) -> bytes:
        """The bytes for the host.

        Raises:
            EncodeError: it cannot be sent.
        """
        return codec.encode([[*cls.place_of(asked)], found], "checkpoint", messages)

    @classmethod
    def decode(cls, data: bytes, codec: Codec) -> SentCheckpoint:
        """What the caller has sent.

        Raises:
            DecodeError: it is none.
        """
        sent: Any = codec.decode(data, "checkpoint")
        if not (isinstance(sent, list) and len(sent) == 2 and isinstance(sent[0], list) and len(sent[0]) == 3):
            raise DecodeError("the checkpoint of a run is its place and what was found there")
        (thread, namespace, number), found = sent
        if not isinstance(found, CheckpointTuple | None):
            raise DecodeError("the checkpoint of a run is none")
        return cls((thread, namespace, number), found)


class StartCheckpoint:
    """What a run began from in the caller's checkpointer: by it is seen whether the run has saved anything since.

    Args:
        saver: the caller's checkpointer, as the host may use it.
        asked: the config by which the host asks for the checkpoint.
        found: what was there when the run began.
    """

    def __init__(self, saver: LentSaver, asked: RunnableConfig, found: CheckpointTuple | None) -> None:
        self._saver, self._asked, self._id = saver, asked, _id_of(found)

    def has_advanced(self) -> bool | None:
        """Whether there is a later checkpoint now; None where the checkpointer does not say."""
        with contextlib.suppress(Exception):
            return _id_of(self._saver.get_tuple(self._asked)) != self._id
        return None

    async def ahas_advanced(self) -> bool | None:
        """The same, awaited."""
        with contextlib.suppress(Exception):
            return _id_of(await self._saver.aget_tuple(self._asked)) != self._id
        return None


def _id_of(found: CheckpointTuple | None) -> str | None:
    return None if found is None else found.checkpoint["id"]
