"""The second process of the demo: a host with white's team, started, killed in the middle of a turn, and ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix.errors import HostUnreachable

from .team import MODEL

_ADDRESS = re.compile(r" at (\S+)$")
_START = 60.0
_ROOT = Path(__file__).parents[__name__.count(".")]
"""The folder on the path that this package is in, under either of its names."""


class Second:
    """`agentmatrix serve` in a process of its own, which ends with this context.

    Args:
        target: the team to serve, as `serve` takes it.
        model: `"provider:name"` of a chat model for the critics' seats.

    Attributes:
        address: where it serves, such as `"127.0.0.1:41234"`.
        killed: whether `kill` has been called since it was last started.

    Raises:
        HostUnreachable: on entering, when it does not start to serve.
    """

    def __init__(self, target: str = f"{__package__}:white", model: str | None = None) -> None:
        self.address, self.killed = "", False
        self._target, self._model = target, model
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Second:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end(5)

    def start(self) -> None:
        """Starts it on a free port and waits until it serves."""
        with tempfile.TemporaryFile("w+") as log:
            self._process = self._popen(log)
            self.killed = False
            try:
                self.address = _address(self._process, log)
            except BaseException:
                self._end(0)
                raise

    def kill(self) -> None:
        """Ends it as `kill -9` does: without a last word."""
        self.killed = True
        self._end(0)

    def _popen(self, log: IO[str]) -> subprocess.Popen[str]:
        """In a session of its own, since Ctrl-C is for us and we end it; the end of its stdin tells it if we cannot."""
        command = [sys.executable, "-m", "agentmatrix", "serve", self._target, "--port", "0", "--until-eof"]
        # Its only caller is this process: when that is gone, nobody takes its runs up.
        command += ["--linger", "0", "--log-level", "warning"]
        path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
        environment = os.environ | {"PYTHONPATH": path} | ({MODEL: self._model} if self._model else {})
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environment, start_new_session=True
        )

    def _end(self, grace: float) -> None:
        """Ends the process; `grace` in seconds is what it has to end by itself."""
        process, self._process = self._process, None
        if process is None:
            return
        with process:
            if grace:
                process.terminate()
                try:
                    process.wait(grace)
                except subprocess.TimeoutExpired:
                    pass
            process.kill()


def _address(process: subprocess.Popen[str], log: IO[str]) -> str:
    """The address that a host prints when it listens."""
    timer = threading.Timer(_START, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
    finally:
        timer.cancel()
    if found := _ADDRESS.search(said.strip()):
        return found[1]
    process.wait()
    log.seek(0)
    why = log.read().strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
    raise HostUnreachable(f"the second process did not start to serve: {why[0]}")


class KillingSaver(InMemorySaver):
    """Keeps checkpoints in memory, and at one of them calls `kill`: in white's turn, when its search is done.

    The checkpoint is kept, but its host is gone before it hears so: what it would have done next, it has not begun.

    Args:
        kill: what kills white's host, once.
        move: the number of the move at which it is killed.
    """

    def __init__(self, kill: Callable[[], None], move: int) -> None:
        super().__init__()
        self._kill, self._move, self._done = kill, move, False

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keeps a checkpoint."""
        saved = super().put(config, checkpoint, metadata, new_versions)
        if not self._done and self._searched(config, checkpoint):
            self._done = True
            self._kill()
        return saved

    def _searched(self, config: RunnableConfig, checkpoint: Checkpoint) -> bool:
        """Whether this is white's proposer at the chosen move, between its search and its proposal."""
        within = [level.partition(":")[0] for level in config["configurable"]["checkpoint_ns"].split("|")]
        values = checkpoint["channel_values"]
        return within == ["white", "proposer"] and "line" in values and len(values["moves"]) + 1 == self._move


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end this process as Ctrl-C does, so that the second one ends with it."""

    heard: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        signal.raise_signal(signal.SIGINT)

    here = threading.current_thread() is threading.main_thread()
    names = [name for name in ("SIGTERM", "SIGHUP") if here and hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in (signal.Signals[name] for name in names)}
    try:
        yield
    except KeyboardInterrupt:
        if heard:
            raise SystemExit(128 + heard[0]) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
