"""The page's own model of a run comes to what `WatchedRun` comes to; and many events leave it small and quick."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import interrupt

from agentmatrix import Dag
from agentmatrix.testing import loopback
from agentmatrix.ui.page_run import PageRun
from tests.ui.browser import Browser, browser
from tests.ui.page_client import PageClient, entry, page, wait_for
from tests.watch.watched_graphs import SHAPES

MODEL = """
const {model} = agentmatrix;
return JSON.stringify({
  state: model.state,
  nodes: [...model.nodes.values()].map((node) => [
    node.path, node.state, node.count, node.running, node.done, node.failed, node.cutOff,
    Math.round(node.seconds * 1e6), node.calls, node.tokens, node.tools, node.silent, node.errors, node.hidden,
  ]),
  said: model.transcript.filter((line) => !line.own).map((line) => [line.path, line.speaker, line.text]),
  streamed: model.streamed.size,
  questions: [...model.questions.values()].map((asked) => [asked.id, asked.path, asked.value]).sort(),
  activations: model.activations.map((one) => [one.path, one.namespace, Math.round(one.seconds * 1e6)]),
});
"""


def told(run: PageRun) -> dict[str, Any]:
    (record,) = run.watched.records
    nodes = record.nodes.values()
    return {
        "state": run.state,
        "nodes": [
            [node.path, node.state, node.count, node.running, node.done, node.failed, node.cut_off]
            + [round(node.seconds * 1e6), node.calls, node.tokens, node.tools, node.silent, node.errors, node.is_hidden]
            for node in nodes
        ],
        "said": [[line.path, line.speaker, line.text] for line in record.transcript],
        "streamed": 0,
        "questions": sorted([asked.id, asked.path, asked.value] for asked in record.questions.values()),
        "activations": [[one.path, one.namespace, round(one.seconds * 1e6)] for one in record.activations],
    }


def retried(wrap: Any) -> Any:
    """Fails the first time."""
    tries: list[int] = []

    def boom(messages: Any) -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("no facts")
        return "facts"

    return Dag(name="retried").add_node("e", wrap(Dag(name="e").add_node("boom", boom).compile())).compile()


def twice(wrap: Any) -> Any:
    """Two ask at once, in turns."""

    def ask(name: str) -> Any:
        return lambda messages: f"{name} {interrupt('1?')} {interrupt('2?')}"

    inner = Dag(name="inner").add_node("ann", ask("ann")).add_node("bob", ask("bob")).compile()
    return Dag(name="twice").add_node("e", wrap(inner)).compile(checkpointer=InMemorySaver())


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as window:
        yield window


def seen(window: Browser, client: PageClient, run: PageRun) -> dict[str, Any]:
    if not window.driver.current_url.startswith(client.server.base_url):
        window.driver.get(client.server.url)
        window.find("#graphs button")
    # What was looked at before is gone on with, as it comes.
    window.run(f"location.hash = 'run={run.id}'")
    loaded = f"return agentmatrix.run === '{run.id}' && agentmatrix.model.items"
    window.wait(lambda: (window.run(loaded) or 0) >= len(run.items), "all of the run")
    found: dict[str, Any] = json.loads(window.run(MODEL))
    return found


@pytest.mark.parametrize("where", ["here", "on a host"])
def test_the_page_counts_as_the_model_does(window: Browser, where: str) -> None:
    shapes = {**SHAPES, "retried": retried, "twice": twice}
    wrap = loopback if where == "on a host" else lambda graph: graph
    with page(*(entry(name, shape(wrap)) for name, shape in shapes.items())) as client:
        for name in shapes:
            run = client.start(name, text="Shall we?")
            wait_for(client, run, lambda run=run: not run.is_at_work and run.state != "waiting")
            assert seen(window, client, run) == told(run), name
            if name == "retried":
                assert client.act(run, "go-on").status_code == 200
                wait_for(client, run, lambda run=run: run.state == "done")
            while run.state == "asking":
                for question in run.watched.questions:
                    assert client.act(run, "answer", question=question.id, value="yes").status_code == 200
                    wait_for(client, run, lambda run=run: not run.is_at_work)
                    assert seen(window, client, run) == told(run), name
            assert seen(window, client, run) == told(run), name


def many(count: int, width: int) -> Iterator[dict[str, Any]]:
    """A run with so many events, of groups of many members each."""

    def event(kind: str, path: str, namespace: str, at: float, **data: Any) -> dict[str, Any]:
        return {"kind": kind, "run": "many", "path": path, "namespace": namespace, "at": at, "data": data}

    yield event("begin", "", "", 1.0, name="many")
    number, at = 1, 1.0
    while number < count:
        group = (number // (3 * width)) % 8
        yield event("begin", f"g{group}", f"g{group}:{number}", at)
        members = [(f"g{group}/m{index}", f"g{group}:{number}|m{index}:{number}") for index in range(width)]
        yield from (event("begin", path, namespace, at) for path, namespace in members)
        for index, (path, namespace) in enumerate(members):
            at += 0.001
            speaker = path.rpartition("/")[2]
            yield event("say", path, namespace, at, speaker=speaker, text=f"I am {index}", id=f"{number}-{index}")
            yield event("end", path, namespace, at, seconds=0.001 * index)
        yield event("end", f"g{group}", f"g{group}:{number}", at, seconds=0.001 * width)
        number += 3 * width + 2
    yield event("end", "", "", at, seconds=at)


def test_ten_thousand_events_leave_the_page_small(window: Browser) -> None:
    _ = window.errors  # Of servers that have stopped.
    with page() as client:
        lines = list(many(10_000, 100))
        client.server.remote_runs.take("p", "elsewhere", lines[: len(lines) // 2])
        (run,) = client.server.runs
        window.driver.get(f"{client.server.url}#run={run.id}")
        # What comes while one looks.
        for first in range(len(lines) // 2, len(lines), 500):
            client.server.remote_runs.take("p", "elsewhere", lines[first : first + 500])
        window.wait(lambda: window.run("return agentmatrix.model.items") >= len(run.items), "all events")
        window.says("#state", "done")
        window.says("#timeline", "activations, grouped.")
        assert window.run("return agentmatrix.model.activations.length") > 3000
        assert 0 < window.run("return document.querySelectorAll('#timeline .bar').length") <= 2000
        assert window.run("return document.querySelectorAll('#transcript .line').length") <= 1000
        assert window.run("return document.querySelectorAll('*').length") < 12_000
        assert window.run("return document.querySelectorAll('#nodes tbody tr').length") <= 500
        window.says("#transcript", "before")
        assert window.errors == []
