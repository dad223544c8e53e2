"""The page on limits names options that exist, with the defaults that they have."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import typer

from agentmatrix import Host, RemoteAgent
from agentmatrix.cli.serve import serve
from agentmatrix.session.run_limiter import RunLimiter
from agentmatrix.transport.framing import FRAMES_OF_A_MESSAGE
from agentmatrix.transport.options import ClientOptions, ServerOptions

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
ROWS = [[cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\|.*\|$", PAGE, re.MULTILINE)][2:]


def default_of(parameters: Any, name: str) -> Any:
    return parameters[name].default


def test_each_limit_can_be_set_on_a_host_and_on_the_command_line() -> None:
    app = typer.Typer()
    app.command()(serve)
    command: Any = typer.main.get_command(app)
    options = {name for parameter in command.params for name in parameter.opts}
    host, line = inspect.signature(Host).parameters, inspect.signature(serve).parameters
    rows = [row for row in ROWS if not row[0].startswith("a caller:")]
    named = [(re.findall(r"(\w+)=", row[2]), re.findall(r"--[\w-]+", row[2])) for row in rows]
    pairs = [(keywords[0], flags[0]) for keywords, flags in named if keywords]
    assert len(pairs) == 12
    for keyword, flag in pairs:
        assert keyword in host and flag in options
        ours, theirs = default_of(host, keyword), default_of(line, flag.strip("-").replace("-", "_"))
        assert ours == theirs or (ours, theirs) == (1 << 30, 1024), (keyword, ours, theirs)


def test_each_limit_of_a_caller_is_an_option_of_its_remote_agent() -> None:
    options = inspect.signature(RemoteAgent).parameters
    named = [re.findall(r"(\w+)=", row[2]) for row in ROWS if row[0].startswith("a caller:")]
    assert named == [["max_value"], ["max_bytes"], [], ["reconnect_timeout"]]
    assert {"max_value", "max_bytes", "reconnect_timeout"} <= options.keys()
    assert default_of(options, "max_value") == ClientOptions().max_frame == 1 << 30


def test_the_defaults_are_those_of_the_page() -> None:
    said = {row[0]: row[1] for row in ROWS}
    host, server = inspect.signature(Host).parameters, ServerOptions()
    assert said["runs at a time, of all callers"] == f"{default_of(host, 'max_runs'):,}"
    assert said["runs that a run of this host starts here"] == f"{RunLimiter(1).most_of_all - 1} times `max_runs`"
    assert said["callers (processes) connected"] == f"{default_of(host, 'max_streams'):,}"
    assert said["streams over one connection"].startswith(f"{server.max_caller_streams}, ")
    assert said["seconds until a new connection starts a run"] == f"{default_of(host, 'start_timeout'):g}"
    timeout = said["seconds until a caller's checkpointer, store or cache answers"]
    assert timeout == f"{default_of(host, 'answer_timeout'):g}"
    assert said["frames of one message"] == f"{FRAMES_OF_A_MESSAGE:,}"
    assert said["watches of the host's health, which need no token"] == str(server.max_watches)
