"""Ray places hosts, rows go over the wire: the same output as here, also where an actor is killed under load."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import RetryPolicy

from agentmatrix import ChatGroup, Dag, Ray, RemoteAgent, arefine
from agentmatrix.dataset.ray_hosts import RayHosts
from agentmatrix.errors import DatasetError
from agentmatrix.speakers import broadcast, free
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel
from tests.dataset.hosted_rows import State

pytest.importorskip("ray", reason="Ray is the extra `ray`")

ROOT = Path(__file__).parents[2]
QUICK = RetryPolicy(initial_interval=0.01, jitter=False)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One local cluster for all tests."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray

    env = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}}
    ray.init(
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 << 20,
        runtime_env=env,
    )
    yield
    ray.shutdown()


async def answer(state: State) -> State:
    await asyncio.sleep(0.02)
    return {"answer": state["id"] * 2}


def graph(**options: Any) -> Any:
    return Dag(State).add_node("answer", answer).compile(**options)


def result(row: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "answer": state["answer"]}


def expected(count: int) -> list[dict[str, Any]]:
    return [{"id": n, "answer": 2 * n} for n in range(count)]


@pytest.mark.usefixtures("cluster")
@pytest.mark.timeout(300)
async def test_the_output_is_that_of_a_local_run() -> None:
    rows = [{"id": n} for n in range(100)]
    report = await arefine(graph(), rows, result=result, engine="ray")
    assert sorted(report.rows, key=lambda row: row["id"]) == expected(100)

    async def double(columns: dict[str, Any]) -> dict[str, Any]:
        return {"answer": columns["id"] * 2}

    report = await arefine(double, rows, result=result, engine=Ray(replicas=1))
    assert sorted(report.rows, key=lambda row: row["id"]) == expected(100)


@pytest.mark.usefixtures("cluster")
@pytest.mark.timeout(300)
async def test_one_of_two_actors_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[RayHosts] = []
    start = RayHosts.start

    async def noted(self: RayHosts, agent: Any) -> Any:
        started.append(self)
        return await start(self, agent)

    monkeypatch.setattr(RayHosts, "start", noted)
    output = tmp_path / "out.jsonl"
    rows = [{"id": n} for n in range(600)]
    run = asyncio.create_task(
        arefine(graph(), rows, output, result=result, engine=Ray(), max_concurrency=16, retry=QUICK)
    )
    while not (output.exists() and output.read_bytes().count(b"\n") > 50):
        assert not run.done()
        await asyncio.sleep(0.02)
    pid = await asyncio.wrap_future(started[0]._actors[0].pid.remote().future())
    os.kill(pid, signal.SIGKILL)
    report = await run
    assert (report.done, report.failed, report.tombstoned, report.total) == (600, 0, 0, 600)
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(found, key=lambda row: row["id"]) == expected(600)


@pytest.mark.usefixtures("cluster")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("speaker", [broadcast, free])
async def test_a_group_is_sent(speaker: Any) -> None:
    members = {name: ScriptedChatModel(name, cycle=True) for name in ("ann", "bob")}
    group = ChatGroup(members, speaker=speaker(), stop=max_turns(4), reply="transcript").compile()
    report = await arefine(group, [{"id": 1, "messages": "hello"}], engine=Ray(replicas=1))
    here = await arefine(group, [{"id": 1, "messages": "hello"}])
    assert [m["content"] for m in report.rows[0]["messages"]] == [m["content"] for m in here.rows[0]["messages"]]


@pytest.mark.usefixtures("cluster")
async def test_what_cannot_be_placed_is_a_sentence() -> None:
    rows = [{"id": 1}]
    for agent, engine, sentence in (
        (graph(), Ray(replicas=3, num_gpus=0.5), "3 replicas with 0.5 GPU each are more than the cluster has: 0"),
        (graph(), Ray(replicas=0), "Ray needs one replica at least"),
        (graph(checkpointer=InMemorySaver()), Ray(), "a graph with a checkpointer is not sent to Ray"),
        (graph(), "dask", "engine is 'ray' or Ray"),
    ):
        with pytest.raises(DatasetError, match=sentence):
            await arefine(agent, rows, engine=engine)  # type: ignore[arg-type]
    lock = threading.Lock()

    async def held(state: State) -> State:
        with lock:
            return {}

    with pytest.raises(DatasetError, match="the graph cannot be sent to Ray's workers"):
        await arefine(Dag(State).add_node("held", held).compile(), rows, engine=Ray())
    with pytest.raises(DatasetError, match="is at a host already"):
        hosts = RayHosts(Ray())
        from agentmatrix.dataset.row_agent import RowAgent

        await hosts.start(RowAgent(RemoteAgent("127.0.0.1:1/x"), None, (), {}))


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], dict[str, Any]]:
    """The page's recipes that need Ray, and the names that they see, in a reader's folder."""
    text = (ROOT / "docs" / "refine.md").read_text()
    (agent,) = re.findall(r"^```python\n(# answers.py.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (rows,) = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "answers.py").write_text(agent)
    (tmp_path / "questions.jsonl").write_text(rows)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "refine.md"}
    exec(agent, names)
    return re.findall(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL), names


@pytest.mark.usefixtures("cluster")
@pytest.mark.timeout(300)
def test_the_recipe_with_ray(page: tuple[list[str], dict[str, Any]]) -> None:
    recipes, names = page
    exec(compile(recipes[0], "refine.md", "exec", dont_inherit=True), names)
    assert names["report"].done == 2


@pytest.mark.usefixtures("cluster")
@pytest.mark.timeout(300)
def test_the_recipe_in_ray_data(page: tuple[list[str], dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="Ray Data is ray[data], with pandas")
    recipes, names = page
    # The cluster was not started in the reader's folder.
    recipe = recipes[1].replace('read_json("questions.jsonl"', f'read_json("{tmp_path}/questions.jsonl"')
    recipe = recipe.replace("from answers", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from answers")
    exec(compile(recipe, "refine.md", "exec", dont_inherit=True), names)
    assert sorted(row["text"] for row in names["texts"]) == [
        "You ask 'What is half of 90?'.",
        "You ask 'Why is the sky blue?'.",
    ]
