"""Runs of a graph on one thread, as `run` and `chat` need them: streamed to an output, paused and resumed."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.types import Command

from agentmatrix.approvals import approval_request
from agentmatrix.cli.error_report import FAILED, KEYBOARD_INTERRUPT, CommandError
from agentmatrix.cli.graph_input import parse_answer
from agentmatrix.cli.output import Output
from agentmatrix.cli.process_end import end_process
from agentmatrix.cli.terminal_text import terminal_text

__all__ = ["WRAPPER", "ThreadRunner", "resume_command"]


WRAPPER: Final = "agentmatrix-cli"
"""The name of the graph that gives a remote graph a memory."""
_LEAVING_SECONDS: Final = 1.0


class ThreadRunner:
    """Runs a graph on one thread, and shows what it streams. All runs must be on one event loop.

    Args:
        graph: a compiled graph or a remote agent.
        output: where the parts of its stream, its interrupts and its result are shown.
        thread: the id of the thread; None makes a new one.
    """

    def __init__(self, graph: Any, output: Output, thread: str | None) -> None:
        self.graph = graph
        self._is_wrapped = graph.name == WRAPPER
        self.thread = thread or f"cli-{uuid.uuid4().hex[:8]}"
        self._output = output
        self._config = {"configurable": {"thread_id": self.thread}, "callbacks": [_QueueNotice()]}

    async def run(self, value: Any) -> list[Any]:
        """Run the graph until it ends or pauses.

        Args:
            value: an input or a `Command`.

        Returns:
            The interrupts at which it paused; empty when it ended.

        Raises:
            CommandError: the run was cancelled by a node or by its host.
        """
        values: Any = None
        # Each of several nodes that ask at once has a part of its own.
        asked: dict[str, Any] = {}
        try:
            with self._output.watched(self.graph):
                async with aclosing(self._stream(value)) as parts:
                    async for namespace, mode, data in parts:
                        if mode == "values" and not namespace:
                            values = data
                            if isinstance(data, dict):
                                asked |= {interrupt.id: interrupt for interrupt in data.get("__interrupt__", ())}
                        if self._is_wrapped and namespace:
                            # Paths are those of the remote graph, as if it were here.
                            self._output.show_part(namespace[1:], mode, data)
                        elif not self._is_wrapped or mode == "values":
                            self._output.show_part(namespace, mode, data)
        except asyncio.CancelledError:
            # Ctrl-C cancels this task from outside; a cancelled node or remote run only raises the error here.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise CommandError("the run was cancelled before it ended", FAILED) from None
        interrupts = list(asked.values())
        if interrupts:
            self._output.show_interrupts(interrupts)
        else:
            self._output.show_result(values)
        return interrupts

    async def paused_at(self) -> list[Any]:
        """The interrupts at which the thread has paused; empty where that was a breakpoint.

        Raises:
            CommandError: it has not paused.
        """
        config: Any = self._config
        if await self._is_sync_only():
            state = self.graph.get_state(config)
        else:
            state = await self.graph.aget_state(config)
        if not state.next:
            raise CommandError(f"the thread {self.thread!r} waits for no answer: begin a run with --input")
        return list(state.interrupts)

    async def _stream(self, value: Any) -> AsyncGenerator[Any, None]:
        options: dict[str, Any] = {"stream_mode": list(self._output.stream_modes), "subgraphs": True}
        if await self._is_sync_only():
            parts: Iterator[Any] = self.graph.stream(value, self._config, **options)
            with _interrupted_at_once():
                for part in parts:
                    yield part
        else:
            async for part in self.graph.astream(value, self._config, **options):
                yield part

    async def _is_sync_only(self) -> bool:
        """Whether the graph's saver, such as SqliteSaver, has sync methods only."""
        try:
            if hasattr(self.graph.checkpointer, "aget_tuple"):
                await self.graph.checkpointer.aget_tuple(self._config)
        except NotImplementedError:
            return True
        return False


@contextmanager
def _interrupted_at_once() -> Iterator[None]:
    """Ctrl-C ends sync code on the main thread, which an asyncio runner would only look at behind it.

    LangGraph waits for nodes in threads before it leaves a stream; the process does not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        threading.Timer(_LEAVING_SECONDS, end_process, (KEYBOARD_INTERRUPT,)).start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _QueueNotice(BaseCallbackHandler):
    """Tells the person at the terminal that a host is busy with other runs."""

    ignore_chain = ignore_llm = ignore_chat_model = ignore_agent = ignore_retriever = True
    run_inline = True

    def on_custom_event(self, name: str, data: Any, **_: Any) -> None:
        if name == "queue" and isinstance(data, dict) and "place" in data:
            text = f"waiting for {data.get('agent')}: place {data['place']} in its queue"
            print(terminal_text(text), file=sys.stderr, flush=True)


def resume_command(interrupts: list[Any], answers: list[str | list[str]]) -> Command[Any]:
    """The command that resumes a graph.

    Args:
        interrupts: those at which it paused; empty where that was a breakpoint.
        answers: the typed answers to the interrupts, in their order; for a request to approve tool calls one for all of
            them, or a list.

    Raises:
        AnswerError: an answer to such a request is none.
    """
    if interrupts:
        values = [_value_of(answer, interrupt) for answer, interrupt in zip(answers, interrupts, strict=True)]
    else:
        values = [_value_of(answer, None) for answer in answers]
    if len(interrupts) <= 1:
        return Command(resume=values[0])
    return Command(resume={interrupt.id: value for interrupt, value in zip(interrupts, values, strict=True)})


def _value_of(answer: str | list[str], interrupt: Any) -> Any:
    texts = [answer] if isinstance(answer, str) else answer
    request = interrupt and approval_request(interrupt.value, getattr(interrupt, "response_schema", None))
    if request is None:
        return parse_answer(texts[0])
    whole = parse_answer(texts[0])
    return whole if isinstance(whole, dict) and "decisions" in whole else request.answer(texts)
