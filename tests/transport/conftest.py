from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agentmatrix.transport import ClientOptions, ServerOptions, Transport, connect, listen, parse_target
from tests.transport.echo import EchoHost

ROOT = Path(__file__).parents[2]
_names = itertools.count()

Connect = Callable[..., Transport]
Serve = Callable[..., str]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def serve(stack: ExitStack) -> Serve:
    """Hosts echo in this process; returns its address."""

    def serve(address: str = "127.0.0.1:0", host: EchoHost | None = None, **options: object) -> str:
        server = listen(address, host or EchoHost(), ServerOptions(**options))
        bound = server.start()
        server.ready()
        stack.callback(server.stop, 0)
        return bound

    return serve


@pytest.fixture
def reach(stack: ExitStack) -> Connect:
    """A transport to an address, closed after the test."""

    def reach(address: str, **options: object) -> Transport:
        transport = connect(parse_target(address), ClientOptions(**options))
        stack.callback(transport.close)
        return transport

    return reach


@pytest.fixture(params=["grpc", "inproc"])
def new_address(request: pytest.FixtureRequest) -> str:
    """An address that is free, over each kind of transport."""
    return "127.0.0.1:0" if request.param == "grpc" else f"inproc://host-{next(_names)}"


class Program:
    """The echo host as a process of its own."""

    def __init__(self, **settings: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.transport.echo", json.dumps({"address": "127.0.0.1:0", **settings})],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.address = self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def say(self, word: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()


@pytest.fixture
def program(stack: ExitStack) -> Callable[..., Program]:
    def program(**settings: object) -> Program:
        started = Program(**settings)
        stack.callback(started.process.communicate)
        stack.callback(started.process.kill)
        return started

    return program
