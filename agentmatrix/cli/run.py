"""`run` and `chat`: a graph is given an input, streams, asks, and is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from agentmatrix.cli.error_report import FAILED, PAUSED, CommandError, complain, debugging, sentence
from agentmatrix.cli.output import MODES, JsonLines, Transcript, View, one_line

__all__ = ["chat", "parse_input", "run", "takes_messages"]


class Conversation:
    """One graph on one thread, shown by a view. All turns run on one event loop."""

    def __init__(self, graph: Any, view: View, thread: str | None) -> None:
        self.graph = graph
        self.thread = thread or f"cli-{uuid.uuid4().hex[:8]}"
        self._view = view
        self._config = {"configurable": {"thread_id": self.thread}}

    async def turn(self, value: Any) -> list[Any]:
        """Runs the graph on an input or a `Command` until it ends or pauses; returns what it asks, if anything.

        Raises:
            CommandError: the run was cancelled from inside, or by its host.
        """
        values: Any = None
        try:
            async for namespace, mode, data in self._parts(value):
                self._view.part(namespace, mode, data)
                if mode == "values" and not namespace:
                    values = data
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise CommandError("the run was cancelled before it ended", FAILED) from None
        interrupts = list(values.get("__interrupt__", ())) if isinstance(values, dict) else []
        if interrupts:
            self._view.interrupted(interrupts)
        else:
            self._view.ended(values)
        return interrupts

    async def _parts(self, value: Any) -> AsyncIterator[Any]:
        options: dict[str, Any] = {"stream_mode": MODES, "subgraphs": True}
        if await self._is_sync_only():
            parts: Iterator[Any] = self.graph.stream(value, self._config, **options)
            for part in parts:
                yield part
        else:
            async for part in self.graph.astream(value, self._config, **options):
                yield part

    async def _is_sync_only(self) -> bool:
        """Some savers, such as SqliteSaver, answer sync verbs only."""
        try:
            if hasattr(self.graph.checkpointer, "aget_tuple"):
                await self.graph.checkpointer.aget_tuple(self._config)
        except NotImplementedError:
            return True
        return False


def input_keys(graph: Any) -> list[str]:
    """The keys of the state that the graph takes."""
    try:
        return list(graph.get_input_jsonschema().get("properties", ()))
    except Exception:
        # Pydantic makes no schema of some TypedDicts; the graph runs all the same.
        return list(getattr(graph, "channels", ()))


def takes_messages(graph: Any) -> bool:
    """Whether the graph's input has a `messages` key, so that plain text can be a user's message."""
    return "messages" in input_keys(graph)


def parse_input(text: str, graph: Any) -> Any:
    """What `--input` means: JSON, `@file` or a file's path, `-` for stdin, or else a user's message.

    Raises:
        CommandError: it is none of these.
    """
    text = _read(text)
    try:
        value = json.loads(text)
    except ValueError as error:
        if text.lstrip()[:1] in ("{", "["):
            raise CommandError(f"--input is not JSON: {error}") from None
        if not takes_messages(graph):
            raise CommandError(
                "--input is plain text, and this graph takes no messages: give its state as JSON"
            ) from None
        return _said(text)
    return value if isinstance(value, dict | list) or not takes_messages(graph) else _said(text)


def _said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def without_input(graph: Any, thread: str | None) -> Any:
    """What a graph runs on when nothing is given: its thread where there is one, else an empty state.

    Raises:
        CommandError: the graph takes messages and nothing else, so that there is nothing to run on.
    """
    if thread is not None:
        return None
    if input_keys(graph) == ["messages"]:
        raise CommandError("this graph takes messages: say something with --input")
    return {}


def _read(text: str) -> str:
    if text == "-":
        return sys.stdin.read()
    path = Path(text.removeprefix("@"))
    try:
        if text.startswith("@") or path.is_file():
            return path.read_text()
    except (OSError, ValueError) as error:
        if text.startswith("@"):
            raise CommandError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return text


def parse_answer(text: str) -> Any:
    """An answer to an interrupt: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def resume(interrupts: list[Any], answers: list[Any]) -> Command[Any]:
    """The command that gives each interrupt its answer, in order."""
    if len(interrupts) <= 1:
        return Command(resume=answers[0])
    return Command(resume={interrupt.id: answer for interrupt, answer in zip(interrupts, answers, strict=True)})


def run(graph: Any, target: str, text: str | None, thread: str | None, answers: list[str], as_json: bool) -> None:
    """`agentmatrix run`.

    Raises:
        CommandError: the input is wrong, or the graph paused and no answer was given.
    """
    queue = [parse_answer(answer) for answer in answers]
    if text is not None:
        value = parse_input(text, graph)
    else:
        value = resume([], [queue.pop(0)]) if queue else without_input(graph, thread)
    view = JsonLines() if as_json else Transcript()
    conversation = Conversation(with_memory(graph) if queue else graph, view, thread)
    with asyncio.Runner() as runner:
        try:
            while interrupts := runner.run(conversation.turn(value)):
                if len(queue) < len(interrupts):
                    raise CommandError(_how_to_answer(conversation, target, interrupts), PAUSED)
                value = resume(interrupts, queue[: len(interrupts)])
                del queue[: len(interrupts)]
        except (Exception, SystemExit) as error:
            if as_json:
                JsonLines().failed(sentence(error))
            raise


def with_memory(graph: Any, state: type[Any] = dict) -> Any:
    """The graph with a checkpointer in memory where it has none, so that it can pause and be answered.

    A remote graph takes its parent's, so it gets a parent with this state.
    """
    if graph.checkpointer:
        return graph
    if not getattr(graph, "is_remote", False):
        return graph.copy({"checkpointer": InMemorySaver()})
    name = graph.get_name()
    return StateGraph(state).add_node(name, graph).add_edge(START, name).compile(checkpointer=InMemorySaver())


def _how_to_answer(conversation: Conversation, target: str, interrupts: list[Any]) -> str:
    asked = one_line(interrupts[0].value)
    if conversation.graph.checkpointer:
        how = f"agentmatrix run {target} --thread {conversation.thread} --resume ANSWER"
    else:
        how = "run it again with --resume ANSWER beside the --input: the graph has no checkpointer that keeps the pause"
    return f"the graph paused and asks {asked!r}; to answer: {how}"


def chat(graph: Any, thread: str | None) -> None:
    """`agentmatrix chat`: a line is a message, and what the graph asks is answered in place; Ctrl-D ends.

    Raises:
        CommandError: the graph takes no messages.
    """
    if not takes_messages(graph):
        raise CommandError("this graph takes no messages, so one cannot talk with it; try `agentmatrix run`")
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its line editing
    conversation = Conversation(with_memory(graph, MessagesState), Transcript(), thread)
    with asyncio.Runner() as runner:
        while (line := _ask("> ")) is not None:
            try:
                if line.strip() and not _answered(runner, conversation, line):
                    return
            except Exception as error:
                if debugging() or not sys.stdin.isatty():
                    raise
                complain(sentence(error))


def _answered(runner: asyncio.Runner, conversation: Conversation, line: str) -> bool:
    """Has the graph answer a message; False when the input ended while it asked something itself."""
    value: Any = _said(line)
    while interrupts := runner.run(conversation.turn(value)):
        answers = [_ask("answer> ") for _ in interrupts]
        if None in answers:
            return False
        value = resume(interrupts, [parse_answer(answer) for answer in answers if answer is not None])
    return True


def _ask(prompt: str) -> str | None:
    try:
        return input(prompt if sys.stdin.isatty() else "")
    except EOFError:
        return None
