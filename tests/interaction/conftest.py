"""Hosts in other processes, for graphs that a parent holds from afar."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.forked import Forked
from tests.interaction import served


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, Forked]]]:
    """Starts a host in another process; returns its address and the process."""
    with contextlib.ExitStack() as processes:

        def start(*address: str) -> tuple[str, Forked]:
            process = processes.enter_context(Forked(served.serve, *address))
            return process.stdout.readline().strip(), process

        yield start
