"""`agentmatrix chat`: each line is a message, and the graph's interrupts are answered in place."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from agentmatrix.cli.error_report import CommandError, error_sentence, print_error, wants_traceback
from agentmatrix.cli.graph_input import takes_messages, user_message
from agentmatrix.cli.host_options import HostOptions, Target, Thread, takes_host_options

if TYPE_CHECKING:
    import asyncio

    from agentmatrix.cli.thread_runner import ThreadRunner

__all__ = ["chat"]


@takes_host_options()
def chat(
    target: Target,
    thread: Thread = None,
    *,
    options: HostOptions,
) -> None:
    """Talk with a graph that takes messages, and answer its questions in place. Ctrl-D ends."""
    from agentmatrix.cli.resolve import resolve

    _chat_with(resolve(target, options), thread)


def _chat_with(graph: Any, thread: str | None) -> None:
    """Read messages from stdin until it ends.

    Raises:
        CommandError: the graph takes no messages.
    """
    from langgraph.graph import MessagesState

    from agentmatrix.cli.output import TextOutput
    from agentmatrix.cli.thread_runner import WRAPPER, ThreadRunner
    from agentmatrix.event_loop import runner_without_executor_shutdown
    from agentmatrix.remote.thread_memory import with_memory

    if not takes_messages(graph):
        raise CommandError("this graph takes no messages, so one cannot talk with it; try `agentmatrix run`")
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its line editing
    runner = ThreadRunner(with_memory(graph, MessagesState, name=WRAPPER), TextOutput(), thread)
    with runner_without_executor_shutdown() as loop:
        while (line := _read_line("> ")) is not None:
            try:
                if line.strip() and not _answer(loop, runner, line):
                    return
            except Exception as error:
                # On a terminal the chat continues after a failure; piped lines end with the first one.
                if wants_traceback() or not sys.stdin.isatty():
                    raise
                print_error(error_sentence(error))


def _answer(loop: asyncio.Runner, runner: ThreadRunner, line: str) -> bool:
    """Run the graph on a message; False when stdin ended at an interrupt."""
    from agentmatrix.cli.thread_runner import resume_command

    value: Any = user_message(line)
    while interrupts := loop.run(runner.run(value)):
        answers = [answer for interrupt in interrupts if (answer := _read_answer(interrupt)) is not None]
        if len(answers) < len(interrupts):
            return False
        value = resume_command(interrupts, answers)
    return True


def _read_answer(interrupt: Any) -> str | list[str] | None:
    """The answer to a question; to a request to approve tool calls, a decision for each. None at the end of stdin."""
    from agentmatrix.approvals import approval_request
    from agentmatrix.errors import AnswerError

    request = approval_request(interrupt.value, getattr(interrupt, "response_schema", None))
    if request is None:
        return _read_line("answer> ")
    decisions: list[str] = []
    for action in request.actions:
        while (line := _read_line(f"{action.name}> ")) is not None:
            try:
                action.decision(line)
            except AnswerError as error:
                # A bad answer is asked again: it would end the run, or be taken for something else.
                print_error(str(error))
                continue
            decisions.append(line)
            break
    return decisions if len(decisions) == len(request.actions) else None


def _read_line(prompt: str) -> str | None:
    """A line of stdin, or None at its end; the prompt is for terminals only."""
    try:
        return input(prompt if sys.stdin.isatty() else "")
    except EOFError:
        return None
