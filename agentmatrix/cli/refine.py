"""`agentmatrix refine`: an agent over the rows of a dataset. The same line again goes on."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmatrix.cli.error_report import FAILED, KEYBOARD_INTERRUPT, PAUSED, USAGE, CommandError
from agentmatrix.cli.host_options import HostOptions, takes_host_options

if TYPE_CHECKING:
    from agentmatrix.dataset.progress_display import ProgressSnapshot
    from agentmatrix.dataset.report import Report

__all__ = ["refine"]

ROWS = "Rows and columns"
LIMITS = "Limits"
RAY = "Ray"
PROGRESS = "What is done already"

_JSON_SECONDS = 5.0


@takes_host_options("timeout")
def refine(
    target: Annotated[
        str, typer.Argument(help="module:attribute, path.py:attribute or host:port/agent; several hosts with commas")
    ],
    rows: Annotated[
        str, typer.Argument(help="A file (.jsonl, .csv, also .gz; .parquet), or - for JSON lines on stdin")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help=".jsonl, .csv or .parquet")] = None,
    input: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="KEY=COLUMN: what the graph is given; repeatable.", rich_help_panel=ROWS),
    ] = None,
    result: Annotated[
        str | None,
        typer.Option(
            help="module:function of a row and the state; returns a record, a list, None", rich_help_panel=ROWS
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="module:function of a row: is it run at all?", rich_help_panel=ROWS)
    ] = None,
    accept: Annotated[
        str | None, typer.Option(help="module:function of a row and the state: is it good?", rich_help_panel=ROWS)
    ] = None,
    id: Annotated[
        str | None,
        typer.Option(help="The column that names a row; by default id, if there is one", rich_help_panel=ROWS),
    ] = None,
    repetitions: Annotated[int, typer.Option(help="Run each row so many times.", rich_help_panel=ROWS)] = 1,
    limit: Annotated[
        int | None,
        typer.Option(
            help="A preview: run so many rows and print what they give. No file is written, nor is --output;"
            " the same line without --limit writes all.",
            rich_help_panel=ROWS,
        ),
    ] = None,
    order: Annotated[str, typer.Option(help="Of the output: done, or input.", rich_help_panel=ROWS)] = "done",
    skip_bad_lines: Annotated[
        bool, typer.Option("--skip-bad-lines", help="Count lines that are no row.", rich_help_panel=ROWS)
    ] = False,
    shard: Annotated[
        str | None, typer.Option(help="3/8: the third of eight parts, of this output.", rich_help_panel=ROWS)
    ] = None,
    max_concurrency: Annotated[int, typer.Option(help="Rows at the same time.", rich_help_panel=LIMITS)] = 64,
    max_attempts: Annotated[int, typer.Option(min=1, help="Attempts of a row.", rich_help_panel=LIMITS)] = 3,
    timeout: Annotated[
        float, typer.Option(help="Seconds for an attempt; 0 is no limit.", rich_help_panel=LIMITS)
    ] = 600,
    budget: Annotated[
        float | None, typer.Option(help="Tokens, or money where there are prices.", rich_help_panel=LIMITS)
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(help="MODEL=INPUT,OUTPUT for a million tokens; repeatable.", rich_help_panel=LIMITS),
    ] = None,
    max_failures: Annotated[
        float, typer.Option(help="The share of failed rows that ends it.", rich_help_panel=LIMITS)
    ] = 0.5,
    max_crashes: Annotated[
        int, typer.Option(help="Crashes of this process after which a row is tombstoned.", rich_help_panel=LIMITS)
    ] = 3,
    grace: Annotated[
        float, typer.Option(help="Seconds for the rows under way after Ctrl-C.", rich_help_panel=LIMITS)
    ] = 60,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run rows again that have failed.", rich_help_panel=PROGRESS)
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget what is done, and begin anew.", rich_help_panel=PROGRESS)
    ] = False,
    failures: Annotated[
        bool,
        typer.Option("--failures", help="Print the rows that are not done; run nothing.", rich_help_panel=PROGRESS),
    ] = False,
    answers: Annotated[
        Path | None, typer.Option(help='Lines {"id": .., "answer": ..} for paused rows.', rich_help_panel=PROGRESS)
    ] = None,
    progress: Annotated[
        Path | None, typer.Option(help="Another place than OUTPUT.progress.", rich_help_panel=PROGRESS)
    ] = None,
    ray: Annotated[
        int | None, typer.Option(help="Run the graph in so many Ray actors (extra ray).", rich_help_panel=RAY)
    ] = None,
    num_gpus: Annotated[
        float, typer.Option(help="GPUs of each Ray actor; 0.5 is half of one.", rich_help_panel=RAY)
    ] = 0,
    context: Annotated[str | None, typer.Option(help="The graph's context, as JSON.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines on stdout: progress, then the report.")
    ] = False,
    *,
    options: HostOptions,
) -> None:
    """Run a graph on each row of a dataset. The same line again goes on."""
    if failures:
        _print_failures(output, progress)
        return
    if output is None and limit is None:
        raise CommandError("say where the rows go: --output answers.jsonl; --limit 5 prints five")
    agents = _agents(target, options)
    functions = {"result": result, "where": where, "accept": accept}
    from langgraph.types import RetryPolicy

    from agentmatrix.cli.targets import load_function
    from agentmatrix.dataset.interrupted import run_draining
    from agentmatrix.dataset.progress_display import PeriodicDisplay
    from agentmatrix.dataset.ray_hosts import Ray
    from agentmatrix.dataset.refinement import arefine
    from agentmatrix.errors import DatasetError, MissingExtra, TooManyFailures

    arguments: dict[str, Any] = {
        "output": None if limit is not None else output,
        "input": _pairs(input, "--input", "KEY=COLUMN"),
        "id": id, "repetitions": repetitions, "limit": limit, "order": order, "skip_bad_lines": skip_bad_lines,
        "shard": shard, "max_concurrency": max_concurrency, "timeout": timeout or None, "budget": budget,
        "prices": _prices(price), "max_failures": max_failures, "max_crashes": max_crashes, "grace": grace,
        "retry_failed": retry_failed, "restart": restart, "answers": answers, "progress": progress,
        "context": _context(context), "engine": None if ray is None else Ray(replicas=ray, num_gpus=num_gpus),
        "retry": RetryPolicy(max_attempts=max_attempts),
        "show_progress": PeriodicDisplay(_JSON_SECONDS, _print_snapshot) if json else True,
        **{name: target and load_function(target) for name, target in functions.items()},
    }  # fmt: skip
    try:
        report = run_draining(lambda: arefine(agents, rows, **arguments))
    except TooManyFailures as error:
        _print_report(error.report, json, limit, output)  # type: ignore[arg-type]
        raise
    except (DatasetError, MissingExtra) as error:
        raise CommandError(_as_options(str(error)), USAGE) from None
    if limit is not None:
        _print_rows(report)
    _print_report(report, json, limit, output)
    raise typer.Exit(_exit_code(report, is_preview=limit is not None))


def _agents(target: str, options: HostOptions) -> list[Any]:
    from agentmatrix.cli.resolve import resolve
    from agentmatrix.cli.targets import is_remote, load_agent

    targets = [part for part in target.split(",") if part]
    if len(targets) > 1 and not all(map(is_remote, targets)):
        raise CommandError("several agents are several hosts of one: host:port/agent,host:port/agent")
    return [resolve(part, options) if is_remote(part) else load_agent(part) for part in targets]


def _pairs(texts: list[str] | None, option: str, form: str) -> dict[str, str] | None:
    pairs = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise CommandError(f"{option} is {form}, not {text!r}")
        pairs[key] = value
    return pairs or None


def _prices(texts: list[str] | None) -> dict[str, tuple[float, float]] | None:
    prices = {}
    for model, text in (_pairs(texts, "--price", "MODEL=INPUT,OUTPUT") or {}).items():
        try:
            of_input, of_output = map(float, text.split(","))
        except ValueError:
            raise CommandError(f"--price is MODEL=INPUT,OUTPUT, two numbers, not {model}={text}") from None
        prices[model] = (of_input, of_output)
    return prices or None


def _context(text: str | None) -> Any:
    import json

    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise CommandError(f"--context is not JSON: {error}") from None


def _as_options(text: str) -> str:
    """What the error of a function's argument says, in the words of the command line."""
    text = re.sub(r"input=\{'([^']*)': COLUMN\}", r"--input \1=COLUMN", text)
    text = text.replace("refine(context={...})", "--context JSON")
    text = re.sub(
        r"^(max_concurrency|max_crashes|repetitions|limit|timeout|budget|grace|max_failures|order)\b(?= is )",
        lambda found: f"--{found[0].replace('_', '-')}",
        text,
    )
    for argument in ("restart", "skip_bad_lines"):
        text = text.replace(f"{argument},", f"--{argument.replace('_', '-')},")
        text = text.replace(f"{argument} ", f"--{argument.replace('_', '-')} ")
    return text


def _print_failures(output: Path | None, progress: Path | None) -> None:
    from dataclasses import asdict

    from agentmatrix.cli.terminal_text import json_line
    from agentmatrix.dataset.progress_file import ProgressFile

    if output is None:
        raise CommandError("say of which output: --output answers.jsonl --failures")
    path = progress or output.with_name(output.name + ".progress")
    if not path.exists():
        raise CommandError(f"there is no progress file {path}")
    file = ProgressFile(path)
    try:
        for row in file.failures():
            print(json_line(asdict(row)))
    finally:
        file.close()


def _print_rows(report: Report) -> None:
    from agentmatrix.cli.terminal_text import json_line

    for record in report.rows:
        print(json_line(record))


def _print_snapshot(snapshot: ProgressSnapshot) -> None:
    from agentmatrix.cli.terminal_text import json_line

    print(json_line({"type": "progress", **vars(snapshot)}), flush=True)


def _print_report(report: Report, as_json: bool, limit: int | None, output: Path | None) -> None:
    from dataclasses import asdict

    from agentmatrix.cli.terminal_text import json_line, terminal_text

    if as_json:
        numbers = {key: value for key, value in asdict(report).items() if key not in ("rows", "failures")}
        print(json_line({"type": "report", **numbers, "total": report.total, "tokens": report.tokens}), flush=True)
        return
    summary = _summary(report)
    if limit is not None:
        whole = f"the same line without --limit writes {output}" if output else "give --output instead of --limit"
        summary += f"; a preview, no file was written: {whole}"
    print(terminal_text(summary), file=sys.stderr, flush=True)


def _summary(report: Report) -> str:
    if not report.total:
        return "no rows"
    counts = {name: getattr(report, name) for name in ("done", "rejected", "failed", "tombstoned", "paused", "left")}
    parts = [
        f"{report.total:,} row{'s' * (report.total != 1)}: "
        + ", ".join(f"{n:,} {name}" for name, n in counts.items() if n)
    ]
    beside = {name: getattr(report, name) for name in ("duplicates", "filtered", "bad_lines")}
    parts += [f"{n:,} {_named(name, n)} beside" for name, n in beside.items() if n]
    if report.tokens:
        parts.append(f"{report.tokens:,} tokens" + ("" if report.cost is None else f", cost {report.cost:.4g}"))
    if not (report.asked or report.left):
        parts.append("nothing was to be run")
    if report.ended in ("budget", "interrupted"):
        parts.append(
            f"ended by the {report.ended}" if report.ended == "budget" else "interrupted; the same line goes on"
        )
    if failed := [row for row in report.failures if row.status in ("failed", "tombstoned")]:
        first = failed[0]
        parts.append(
            f"the first that failed is {first.name} (id {first.id!r}): {first.error_type}: {first.error[:300]}"
        )
    if report.output and (report.failed or report.tombstoned or report.rejected):
        parts.append("--failures prints the rows that are not done, --retry-failed runs them again")
    if report.output and report.paused:
        parts.append("--failures prints the questions, --answers FILE answers them")
    if report.output:
        parts.append(report.output)
    return "; ".join(parts)


def _named(name: str, count: int) -> str:
    words = name.replace("_", " ")
    return words.removesuffix("s") if count == 1 and name != "filtered" else words


def _exit_code(report: Report, *, is_preview: bool) -> int:
    if report.ended == "interrupted":
        return KEYBOARD_INTERRUPT
    if report.failed or report.tombstoned or (report.left and not is_preview):
        return FAILED
    return PAUSED if report.paused else 0
