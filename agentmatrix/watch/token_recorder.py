"""A recorder for which models stream: it tells what they say while they say it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from langchain_core.messages import AIMessageChunk
from langchain_core.utils.utils import LC_ID_PREFIX
from langgraph.constants import TAG_NOSTREAM

from agentmatrix.watch.recorder import EventRecorder, guarded
from agentmatrix.watch.run_event import RunEvent
from agentmatrix.watch.watched_graph import WatchedGraph

__all__ = ["TokenRecorder", "new_recorder"]

_MOST_CHARACTERS: Final = 100_000
"""Of one message; the message itself is told whole."""


@dataclass(slots=True)
class _ModelStream:
    """What a model says, as far as it has come; `room` is the number of characters that may follow."""

    graph: WatchedGraph
    namespace: str
    speaker: str
    room: int = _MOST_CHARACTERS


class TokenRecorder(EventRecorder):
    """Tells of tokens too. LangChain has models stream for a handler that has the two `tap_output` methods."""

    streams_tokens = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # By run of a model that streams. Each token is taken in the middle of the run: what is the same for all of a
        # message is looked up once.
        self._streamed: dict[UUID, _ModelStream] = {}

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
        if not tool and TAG_NOSTREAM not in (tags or ()) and (found := self.open_call(run_id)) is not None:
            speaker = found[0].path(found[1]).rpartition("/")[2] or "ai"
            self._streamed[run_id] = _ModelStream(*found, speaker)

    @guarded
    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any) -> None:
        if (streamed := self._streamed.get(run_id)) is None or streamed.room <= 0:
            return
        message, text, id, name = getattr(chunk, "message", None), token, None, None
        if isinstance(message, AIMessageChunk):
            id, name, text = message.id, message.name, message.content
            # LangChain makes an object of its own of each `text`.
            text = text if type(text) is str else str(message.text)
        if not text or not isinstance(text, str):
            return
        text = text[: streamed.room]
        streamed.room -= len(text)
        data = {"id": id or f"{LC_ID_PREFIX}-{run_id}", "speaker": name or streamed.speaker, "text": text}
        self.tell("token", streamed.graph, streamed.namespace, data)

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
