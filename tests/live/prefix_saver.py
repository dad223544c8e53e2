"""A saver that remembers the order of what it has kept, so that a run can be killed after any of it.

`RecordingSaver.killed_after(n)` is what a process that is killed after the n-th operation leaves on its disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, Literal

from langgraph.checkpoint.memory import InMemorySaver

__all__ = ["RecordingSaver"]


class RecordingSaver(InMemorySaver):
    """Keeps everything, and the order in which it has become durable.

    Args:
        late: the operation that becomes durable late: when something has been acknowledged without it, or after a
            moment. None: all at once.
        namespace: operations in other namespaces are never late; None for all namespaces.
        patience: the seconds that an operation is late, if nothing is acknowledged meanwhile, as it should be.
    """

    def __init__(
        self, late: Literal["put", "put_writes"] | None = None, namespace: str | None = None, patience: float = 0.15
    ) -> None:
        super().__init__()
        self._late, self._namespace, self._patience = late, namespace, patience
        self._changing = threading.Lock()
        self._acknowledged = threading.Event()
        self.operations: list[tuple[str, tuple[Any, ...]]] = []

    def acknowledged(self, value: Any) -> None:
        """To be called when the sender of a value has been told that it counts."""
        self.operations.append(("acknowledged", (value,)))
        self._acknowledged.set()

    def killed_after(self, number: int) -> tuple[InMemorySaver, list[Any]]:
        """What is durable after so many operations, and what has been acknowledged by then."""
        left, acknowledged = InMemorySaver(), []
        for operation, given in self.operations[:number]:
            if operation == "acknowledged":
                acknowledged += given
            else:
                getattr(left, operation)(*given)
        return left, acknowledged

    def kills(self) -> Iterator[tuple[InMemorySaver, list[Any]]]:
        """`killed_after` each operation, and before the first."""
        return (self.killed_after(number) for number in range(len(self.operations) + 1))

    def _is_late(self, operation: str, config: Any) -> bool:
        here = config["configurable"].get("checkpoint_ns", "")
        return operation == self._late and self._namespace in (None, here)

    def _keep(self, operation: str, *given: Any) -> Any:
        with self._changing:
            self.operations.append((operation, given))
            return getattr(super(), operation)(*given)

    def put(self, config: Any, *given: Any) -> Any:
        if self._is_late("put", config):
            self._acknowledged.wait(self._patience)
        return self._keep("put", config, *given)

    def put_writes(self, config: Any, *given: Any) -> None:
        if self._is_late("put_writes", config):
            self._acknowledged.wait(self._patience)
        self._keep("put_writes", config, *given)

    async def aput(self, config: Any, *given: Any) -> Any:
        if self._is_late("put", config):
            await asyncio.to_thread(self._acknowledged.wait, self._patience)
        return self._keep("put", config, *given)

    async def aput_writes(self, config: Any, *given: Any) -> None:
        if self._is_late("put_writes", config):
            await asyncio.to_thread(self._acknowledged.wait, self._patience)
        self._keep("put_writes", config, *given)
