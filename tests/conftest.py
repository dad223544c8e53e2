"""Fixtures for all tests: every place that a graph can run in, and both twins of each verb."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from agentmatrix import Host, RemoteAgent
from agentmatrix.host import graph_types
from agentmatrix.testing import loopback

# How long an example takes says how busy the machine is: no test fails for it.
# The same examples each time, so that a change is judged by itself; "pytest --hypothesis-profile search" looks further.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("any_machine", settings.get_profile("search"), derandomize=True)
settings.load_profile("any_machine")

# A shell's background jobs ignore SIGINT and hand that down; tests that press Ctrl-C need it in their children.
signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = count(1)


# Every test of a remote graph over two replicas, by hand: AGENTMATRIX_TEST_PLACES=replicas pytest tests/interaction
PLACES = os.environ.get("AGENTMATRIX_TEST_PLACES", "local inproc grpc").split()


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Puts a compiled graph where the parent meets it: as it is, behind inproc, or a real gRPC server, or two hosts."""
    hosts: list[Host] = []

    def put(graph: Any, *, allow: tuple[object, ...] = (), **options: Any) -> Any:
        if request.param == "local":
            return graph
        options.setdefault("store_prefix", ())
        if request.param == "grpc":
            return loopback(graph, allow=allow, **options)
        count = 2 if request.param == "replicas" else 1
        started = [Host({"agent": graph}, address=f"inproc://test-{next(_numbers)}", allow=allow) for _ in range(count)]
        hosts.extend(host.start() for host in started)
        types = (*graph_types(graph), *allow)
        targets = [f"{host.address}/agent" for host in started]
        remote = RemoteAgent(targets, name=graph.get_name(), allow=types, **options)
        remote.card  # noqa: B018
        return remote

    put.kind = request.param  # type: ignore[attr-defined]
    yield put
    for host in hosts:
        host.stop()


class Verbs:
    """Calls the sync or the async twin of a verb, so that a test is written once."""

    def __init__(self, is_async: bool) -> None:
        self.is_async = is_async

    async def call(self, graph: Any, verb: str, *args: Any, **kwargs: Any) -> Any:
        if not self.is_async:
            return getattr(graph, verb)(*args, **kwargs)
        result = getattr(graph, f"a{verb}")(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    async def invoke(self, graph: Any, *args: Any, **kwargs: Any) -> Any:
        return await self.call(graph, "invoke", *args, **kwargs)

    async def listed(self, graph: Any, verb: str, *args: Any, **kwargs: Any) -> list[Any]:
        if self.is_async:
            return [part async for part in getattr(graph, f"a{verb}")(*args, **kwargs)]
        return list(getattr(graph, verb)(*args, **kwargs))


@pytest.fixture(params=["sync", "async"])
def verbs(request: pytest.FixtureRequest) -> Verbs:
    return Verbs(request.param == "async")
