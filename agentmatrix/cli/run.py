"""`agentmatrix run`: one run of a graph, with the answers to its interrupts given beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmatrix.cli.error_report import PAUSED, CommandError, error_sentence
from agentmatrix.cli.graph_input import empty_input, parse_input
from agentmatrix.cli.host_options import REMOTE, HostOptions, Thread, takes_host_options

if TYPE_CHECKING:
    from agentmatrix.cli.thread_runner import ThreadRunner

__all__ = ["run", "run_graph"]


@takes_host_options()
def run(
    target: Annotated[
        str | None, typer.Argument(help="module:attribute, path.py:attribute or host:port/agent", show_default=False)
    ] = None,
    remote: Annotated[str | None, typer.Option(help="The graph is at host:port/agent.", rich_help_panel=REMOTE)] = None,
    input: Annotated[
        str | None,
        typer.Option("--input", "-i", help="JSON, a file (or @file), - for stdin, or plain text as a user's message."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines, for machines.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show every node while it runs: its state, time, calls and tokens.")
    ] = False,
    thread: Thread = None,
    resume: Annotated[
        list[str] | None,
        typer.Option(help="Answer to a question of the graph (JSON or text); repeat it for several questions."),
    ] = None,
    *,
    options: HostOptions,
) -> None:
    """Run a graph once, and show its messages and updates as they are streamed."""
    from agentmatrix.cli.resolve import resolve

    if (target is None) == (remote is None):
        raise CommandError("give one graph: module:attribute, or --remote host:port/agent")
    graph = resolve(target or remote or "", options, remote=remote is not None)
    if json and watch:
        raise CommandError("--json prints for machines and --watch for people: choose one of the two")
    run_graph(graph, target or f"--remote {remote}", input, thread, resume or [], json, watch=watch)


def run_graph(
    graph: Any,
    target: str,
    text: str | None,
    thread: str | None,
    answers: list[str],
    as_json: bool,
    *,
    watch: bool = False,
) -> None:
    """Run a graph until it ends.

    Args:
        graph: a compiled graph or a remote agent.
        target: the target, for the hint how to resume.
        text: the value of `--input`.
        thread: the id of the thread; None makes a new one.
        answers: the answers to the interrupts, in their order.
        as_json: print JSON lines.
        watch: show the nodes while they run.

    Raises:
        CommandError: the input is wrong, or the graph paused and no answer is left.
    """
    from langgraph.checkpoint.memory import InMemorySaver

    from agentmatrix.cli.output import JsonOutput, TextOutput
    from agentmatrix.cli.thread_runner import WRAPPER, ThreadRunner, resume_command
    from agentmatrix.event_loop import runner_without_executor_shutdown
    from agentmatrix.remote.thread_memory import with_memory

    output: Any = JsonOutput() if as_json else TextOutput()
    if watch:
        from agentmatrix.cli.watch_output import WatchOutput

        output = WatchOutput()
    pending: list[Any] = list(answers)
    # By a checkpointer that a later process has too.
    is_kept = bool(graph.checkpointer) and not isinstance(graph.checkpointer, InMemorySaver)
    value: Any = parse_input(text, graph) if text is not None else None
    if text is None and not pending:
        value = empty_input(graph, thread)
    runner = ThreadRunner(with_memory(graph, name=WRAPPER) if pending else graph, output, thread)
    with runner_without_executor_shutdown() as loop:
        try:
            if text is None and pending:
                # The questions of a run that an earlier command has left.
                if thread is None or not is_kept:
                    raise CommandError(_nothing_kept(thread))
                interrupts = loop.run(runner.paused_at())
                count = max(len(interrupts), 1)
                if len(pending) < count:
                    raise CommandError(_how_to_answer(runner, target, interrupts, is_kept), PAUSED)
                value = resume_command(interrupts, pending[:count])
                del pending[:count]
            while interrupts := loop.run(runner.run(value)):
                if len(pending) < len(interrupts):
                    raise CommandError(_how_to_answer(runner, target, interrupts, is_kept), PAUSED)
                value = resume_command(interrupts, pending[: len(interrupts)])
                del pending[: len(interrupts)]
        except (Exception, SystemExit) as error:
            if as_json:
                JsonOutput().show_error(error_sentence(error))
            raise


def _nothing_kept(thread: str | None) -> str:
    if thread is None:
        return "--resume answers a question of an earlier run: name its --thread, or begin a run with --input"
    return (
        f"nothing is kept of the thread {thread!r}, the graph has no checkpointer that does: run it again with --input"
    )


def _how_to_answer(runner: ThreadRunner, target: str, interrupts: list[Any], is_kept: bool) -> str:
    from agentmatrix.cli.output import one_line

    question = ", ".join(repr(one_line(interrupt.value)) for interrupt in interrupts)
    each = "ANSWER" if len(interrupts) == 1 else f"ANSWER, {len(interrupts)} times and in this order"
    if is_kept:
        how = f"agentmatrix run {target} --thread {runner.thread} --resume {each}"
    else:
        how = f"run it again with --input and --resume {each}: the graph has no checkpointer that keeps the pause"
    return f"the graph paused and asks {question}; to answer: {how}"
