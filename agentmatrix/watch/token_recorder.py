"""A recorder for which models stream: it tells what they say while they say it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final
from uuid import UUID

from langchain_core.messages import AIMessageChunk
from langchain_core.utils.utils import LC_ID_PREFIX
from langgraph.constants import TAG_NOSTREAM

from agentmatrix.watch.recorder import EventRecorder, guarded
from agentmatrix.watch.run_event import RunEvent

__all__ = ["TokenRecorder", "new_recorder"]

_MOST_CHARACTERS: Final = 100_000
"""Of one message; the message itself is told whole."""


class TokenRecorder(EventRecorder):
    """Tells of tokens too. LangChain has models stream for a handler that has the two `tap_output` methods."""

    streams_tokens = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # By run of a model that streams, the characters that were told.
        self._streamed: dict[UUID, int] = {}

    def tap_output_iter(self, run_id: UUID, output: Iterator[Any]) -> Iterator[Any]:
        """The output as it is."""
        return output

    def tap_output_aiter(self, run_id: UUID, output: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The output as it is."""
        return output

    def begin_call(
        self,
        run_id: UUID,
        parent: UUID | None,
        metadata: dict[str, Any] | None,
        *,
        tool: str = "",
        tags: list[str] | None = None,
    ) -> None:
        super().begin_call(run_id, parent, metadata, tool=tool, tags=tags)
        # What is held back until it has passed a middleware is not to be seen before.
        if not tool and TAG_NOSTREAM not in (tags or ()):
            self._streamed[run_id] = 0

    @guarded
    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any) -> None:
        message = getattr(chunk, "message", None)
        text = str(message.text) if isinstance(message, AIMessageChunk) else token if isinstance(token, str) else ""
        told = self._streamed.get(run_id)
        found = self.open_call(run_id)
        if not text or told is None or told >= _MOST_CHARACTERS or found is None:
            return
        text = text[: _MOST_CHARACTERS - told]
        self._streamed[run_id] = told + len(text)
        id = getattr(message, "id", None) or f"{LC_ID_PREFIX}-{run_id}"
        graph, namespace = found
        speaker = getattr(message, "name", None) or graph.path(namespace).rpartition("/")[2] or "ai"
        self.tell("token", graph, namespace, {"id": id, "speaker": speaker, "text": text})

    def end_call(self, kind: str, run_id: UUID, data: dict[str, Any]) -> None:
        self._streamed.pop(run_id, None)
        super().end_call(kind, run_id, data)


def new_recorder(
    sink: Callable[[RunEvent], None], *args: Any, tokens: bool, values: bool, **kwargs: Any
) -> EventRecorder:
    """A recorder.

    Args:
        sink, args, kwargs: as of `EventRecorder`.
        tokens: whether it tells of tokens, and models stream for it.
        values: whether it tells the inputs and outputs of nodes.
    """
    kind = TokenRecorder if tokens else EventRecorder
    return kind(sink, *args, has_values=values, **kwargs)
