"""A watcher of the caller's, and the recorder that stands for it on the host."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from agentmatrix.session.proxies import RpcClient
from agentmatrix.watch.event_batches import EventBatches
from agentmatrix.watch.hooks import mute_process_hook
from agentmatrix.watch.recorder import EventRecorder
from agentmatrix.watch.token_recorder import new_recorder

__all__ = ["hosted_recorder", "packed_watcher"]


def packed_watcher(number: int, recorder: EventRecorder, namespace: str) -> dict[str, Any]:
    """A watcher as the host is told of it.

    Args:
        number: by which its events come back.
        recorder: the caller's.
        namespace: of the node that the host works for.
    """
    wanted = {"tokens": recorder.streams_tokens, "values": recorder.has_values, "page": recorder.page}
    return {"watcher": number, "namespace": namespace, **wanted}


def hosted_recorder(
    rpc: RpcClient, packed: dict[str, Any], parent_run: UUID | None
) -> tuple[EventRecorder, EventBatches]:
    """A recorder next to the nodes: it measures here, and tells the caller's.

    Args:
        rpc: reaches the caller.
        packed: of `packed_watcher`.
        parent_run: the caller's run that the runs here belong to.
    """
    number = packed["watcher"]
    mute_process_hook(packed.get("page", ""))
    batches = EventBatches(lambda events: rpc.notify("watched", number, events))
    # A caller of an earlier version does not say what else it wants.
    recorder = new_recorder(
        batches.add,
        tokens=packed.get("tokens", False),
        values=packed.get("values", False),
        outer=parent_run,
        namespace=packed["namespace"],
        is_remote=True,
    )
    return recorder, batches
