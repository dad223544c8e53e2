"""What a person does on the page: run, answer, stop, send signals, go back; and what is said to what does not fit."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from agentmatrix import CyclicGraph, Dag, get_activation, signal
from agentmatrix.testing import loopback
from agentmatrix.ui.graph_catalog import CatalogGraph
from tests.ui.page_client import PageClient, entry, page, wait_for
from tests.watch.watched_graphs import model, one


class Order(TypedDict, total=False):
    size: int
    paid: str


def order_graph() -> Any:
    def pay(state: Order) -> Order:
        return {"paid": interrupt(f"pay {state['size']} euros?")}

    return StateGraph(Order).add_node("pay", pay).add_edge(START, "pay").compile(name="order")


def ask(name: str) -> Any:
    return lambda messages: f"{name} heard {interrupt(f'{name}?')}"


def two_questions() -> Any:
    """Two members ask at the same time, one of them on a host."""
    inner = Dag(name="both")
    inner.add_node("ann", ask("ann"))
    inner.add_node("bob", loopback(one("ask", ask("bob"), "hosted")))
    return one("both", inner.compile(), "two", checkpointer=InMemorySaver())


def clerk_graph() -> Any:
    """Asks as LangChain's middleware does."""

    def act(messages: Any) -> str:
        action = {"name": "pay", "args": {"amount": 5}, "description": "Paying"}
        review = {"action_name": "pay", "allowed_decisions": ["approve", "edit", "reject"]}
        decided = interrupt({"action_requests": [action], "review_configs": [review]})
        return f"decided {decided['decisions'][0]['type']}"

    return one("act", act, "clerk")


def listener() -> Any:
    desk = CyclicGraph(name="desk")
    desk.add_node("listen", lambda messages: f"heard {get_activation().items['audio']}")
    desk.add_trigger("listen", signal("audio"))
    return desk.compile()


class Counted(TypedDict):
    notes: Annotated[list[str], operator.add]


def count_graph() -> Any:
    graph = StateGraph(Counted)
    graph.add_node("one", lambda state: {"notes": ["one"]})
    graph.add_node("two", lambda state: {"notes": [f"two after {state['notes'][-1]}"]})
    return graph.add_edge(START, "one").add_edge("one", "two").compile(checkpointer=InMemorySaver(), name="count")


class Gate:
    """A node that waits to be let go."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.begun = threading.Event()

    async def __call__(self, messages: Any) -> str:
        import asyncio

        self.begun.set()
        while not self.is_open.is_set():
            await asyncio.sleep(0.005)
        return "let go"


GATE = Gate()


@pytest.fixture(scope="module")
def client() -> Iterator[PageClient]:
    graphs = {
        "plain": one("say", model("yes")),
        "order": order_graph(),
        "two": two_questions(),
        "clerk": clerk_graph(),
        "desk": listener(),
        "count": count_graph(),
        "gate": one("wait", GATE, "gate"),
        "fails": one("boom", lambda messages: 1 / 0, "fails"),
    }
    with page(*(entry(name, graph) for name, graph in graphs.items())) as client:
        yield client


def texts(run: Any) -> list[tuple[str, str]]:
    return [(line.path, line.text) for line in run.watched.transcript]


def test_text_is_a_message_and_the_transcript_has_the_answer(client: PageClient) -> None:
    run = client.start("plain", text="Shall we?")
    wait_for(client, run, lambda: run.state == "done")
    assert texts(run) == [("", "Shall we?"), ("say", "yes")]


def test_json_is_checked_against_the_schema(client: PageClient) -> None:
    for graph, given, told in [
        ("plain", {"text": "  "}, "the input is empty"),
        ("order", {"text": "hello"}, "order takes no messages: give its state as JSON; it has size, paid"),
        ("order", {"json": "{size"}, "the input is not JSON: "),
        ("order", {"json": "[1]"}, "a JSON object with the keys of the state; it has size, paid"),
        ("order", {"json": '{"sise": 1}'}, "the state of order has no key 'sise'; did you mean 'size'?"),
        ("order", {"json": '{"size": "large"}'}, "size does not fit: Input should be a valid integer"),
        ("nobody", {"text": "hello"}, "the page has no graph 'nobody'"),
    ]:
        answer = client.post("/api/runs", {"graph": graph, **given})
        assert answer.status_code in (404, 422), answer.text
        assert told in answer.json()["error"]


def test_a_question_is_answered_once_and_the_second_is_told(client: PageClient) -> None:
    run = client.start("order", json='{"size": 5}')
    wait_for(client, run, lambda: run.state == "asking")
    (question,) = run.watched.questions
    assert question.value == "pay 5 euros?"
    answers = [client.act(run, "answer", question=question.id, value=value) for value in ("yes", "no")]
    assert [answer.status_code for answer in answers] == [200, 409]
    assert "answered" in answers[1].json()["error"]
    wait_for(client, run, lambda: run.state == "done")
    assert not run.watched.questions


def test_two_at_once_both_hear_that_one_was_first(client: PageClient) -> None:
    run = client.start("order", json='{"size": 5}')
    wait_for(client, run, lambda: run.state == "asking")
    (question,) = run.watched.questions
    codes: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: codes.append(client.act(run, "answer", question=question.id, value="x").status_code)
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(codes) == [200, 409, 409, 409]
    wait_for(client, run, lambda: run.state == "done")


@pytest.mark.parametrize("order", ["ann first", "bob first", "at once"])
def test_several_questions_are_answered_one_by_one_at_any_depth_and_on_a_host(client: PageClient, order: str) -> None:
    run = client.start("two")
    wait_for(client, run, lambda: run.state == "asking" and len(run.watched.questions) == 2)
    asked = {question.path: question.id for question in run.watched.questions}
    assert set(asked) == {"both/ann", "both/bob/ask"}
    paths = sorted(asked, reverse=order == "bob first")
    for path in paths:
        answer = client.act(run, "answer", question=asked[path], value=f"{path[5:8]}!")
        assert answer.status_code == 200, answer.text
        if order != "at once" and path == paths[0]:
            wait_for(client, run, lambda: run.state == "asking" and len(run.watched.questions) == 1)
    wait_for(client, run, lambda: run.state == "done")
    said = {path: text for path, text in texts(run) if path}
    assert said == {"both/ann": "ann heard ann!", "both/bob/ask": "bob heard bob!"}


def test_requests_for_approval_are_answered_by_words(client: PageClient) -> None:
    run = client.start("clerk")
    wait_for(client, run, lambda: run.state == "asking")
    (question,) = run.watched.questions
    wrong = client.act(run, "answer", question=question.id, decisions=["perhaps"])
    assert wrong.status_code == 422 and "is no decision about 'pay'" in wrong.json()["error"]
    assert client.act(run, "answer", question=question.id, decisions=["reject: too much"]).status_code == 200
    wait_for(client, run, lambda: run.state == "done")
    assert texts(run)[-1] == ("act", "decided reject")


def test_live_runs_take_signals_until_their_input_is_closed(client: PageClient) -> None:
    run = client.start("desk", json="{}", live=True)
    wait_for(client, run, lambda: run.is_at_work)
    wrong = client.act(run, "signal", address="video", value="hello")
    assert wrong.status_code == 409 and "no graph declares the signal 'video'" in wrong.json()["error"]
    assert client.act(run, "signal", address="audio", value="hello").status_code == 200
    wait_for(client, run, lambda: ("listen", "heard hello") in texts(run))
    assert client.act(run, "close-input").status_code == 200
    wait_for(client, run, lambda: run.state == "done")
    late = client.act(run, "signal", address="audio", value="hello")
    assert late.status_code == 409 and "not at work" in late.json()["error"]


def test_a_run_is_stopped_and_goes_on(client: PageClient) -> None:
    run = client.start("gate")
    assert GATE.begun.wait(100)  # no message says so
    assert client.act(run, "go-on").status_code == 409
    assert client.act(run, "stop").status_code == 200
    wait_for(client, run, lambda: not run.is_at_work)
    assert run.state == "cut off"
    assert run.watched.nodes["wait"].state == "cut off"
    assert client.act(run, "stop").status_code == 409
    GATE.is_open.set()
    assert client.act(run, "go-on").status_code == 200
    wait_for(client, run, lambda: run.state == "done")
    assert texts(run)[-1] == ("wait", "let go")


@contextmanager
def held(client: PageClient) -> Iterator[None]:
    """What is started does not begin before the end of the block."""
    go_on = threading.Event()
    client.server.driver.loop.call_soon_threadsafe(go_on.wait, 100)
    try:
        yield
    finally:
        go_on.set()


def test_a_run_is_stopped_before_it_has_begun(client: PageClient) -> None:
    with held(client):
        run = client.start("gate")
        assert client.act(run, "stop").status_code == 200
    wait_for(client, run, lambda: not run.is_at_work)
    assert client.act(run, "go-on").status_code == 200


def test_a_signal_comes_before_the_run_has_begun(client: PageClient) -> None:
    with ThreadPoolExecutor(1) as threads, held(client):
        run = client.start("desk", json="{}", live=True)
        sent = threads.submit(client.act, run, "signal", address="audio", value="early")
    assert sent.result().status_code == 200
    assert client.act(run, "close-input").status_code == 200
    wait_for(client, run, lambda: run.state == "done")
    assert ("listen", "heard early") in texts(run)


def test_a_failure_is_told_where_it_was(client: PageClient) -> None:
    run = client.start("fails")
    wait_for(client, run, lambda: run.state == "failed")
    assert any('"error"' in item and "ZeroDivisionError" in item for item in run.items)


def test_a_thread_is_gone_on_with(client: PageClient) -> None:
    run = client.start("plain", text="one")
    wait_for(client, run, lambda: run.state == "done")
    assert client.act(run, "say", text="two").status_code == 200
    wait_for(client, run, lambda: run.state == "done" and len(texts(run)) == 4)
    assert [text for _, text in texts(run)] == ["one", "yes", "two", "yes"]


def test_history_is_the_checkpointers_and_one_goes_on_from_there_with_another_state(client: PageClient) -> None:
    run = client.start("count", json='{"notes": ["begin"]}')
    wait_for(client, run, lambda: run.state == "done")
    history = client.get(f"/api/runs/{run.id}/history").json()["history"]
    assert [entry["next"] for entry in history] == [[], ["two"], ["one"], ["__start__"]]
    assert history[0]["values"] == {"notes": ["begin", "one", "two after one"]}
    before_two = next(entry for entry in history if entry["next"] == ["two"])
    wrong = client.act(run, "fork", checkpoint=before_two["checkpoint"], values=[1])
    assert wrong.status_code == 422
    edited = {"notes": ["edited"]}
    assert client.act(run, "fork", checkpoint=before_two["checkpoint"], values=edited).status_code == 200
    wait_for(client, run, lambda: run.state == "done" and run.watched.nodes["two"].count == 2)
    history = client.get(f"/api/runs/{run.id}/history").json()["history"]
    assert history[0]["values"] == {"notes": ["begin", "one", "edited", "two after edited"]}


def test_messages_of_a_checkpoint_can_be_edited(client: PageClient) -> None:
    run = client.start("plain", text="one")
    wait_for(client, run, lambda: run.state == "done")
    entry = client.get(f"/api/runs/{run.id}/history").json()["history"][0]
    message = entry["values"]["messages"][-1]
    assert message["content"] == "yes" and message["type"] == "ai"
    values = {"messages": [{**message, "content": "no"}]}
    assert client.act(run, "fork", checkpoint=entry["checkpoint"], values=values).status_code == 200
    wait_for(client, run, lambda: not run.is_at_work)
    entry = client.get(f"/api/runs/{run.id}/history").json()["history"][0]
    assert [one["content"] for one in entry["values"]["messages"]] == ["one", "no"]


def test_a_saver_with_sync_methods_only(tmp_path: Path) -> None:
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
    with sqlite.SqliteSaver.from_conn_string(str(tmp_path / "runs.db")) as saver:
        graph = one("ask", ask("ann"), "sync", checkpointer=saver)
        with page(entry("sync", graph)) as client:
            run = client.start("sync")
            wait_for(client, run, lambda: run.state == "asking")
            (question,) = run.watched.questions
            assert client.act(run, "answer", question=question.id, value="you").status_code == 200
            wait_for(client, run, lambda: run.state == "done")
            assert texts(run)[-1] == ("ask", "ann heard you")
            assert len(client.get(f"/api/runs/{run.id}/history").json()["history"]) >= 2


def test_a_message_of_ten_megabytes_is_cut_and_given_when_it_is_asked_for() -> None:
    text = "x" * 10_000_000
    graph = one("say", lambda messages: AIMessage(text), "large")
    with page(entry("large", graph)) as client:
        run = client.start("large")
        wait_for(client, run, lambda: run.state == "done")
        assert sum(map(len, run.items)) < 1_000_000
        index, item = next(
            (index, item) for index, item in enumerate(run.items) if '"cut_at"' in item and '"say"' in item
        )
        assert len(item) < 20_000
        whole = client.get(f"/api/runs/{run.id}/items/{index}").json()
        assert whole["data"]["text"] == text


def test_only_the_last_runs_are_kept_in_memory() -> None:
    with page(entry("plain", one("say", model("yes")))) as client:
        first = client.start("plain")
        wait_for(client, first, lambda: first.state == "done")
        for _ in range(50):
            run = client.start("plain")
            wait_for(client, run, lambda run=run: run.state == "done")
        assert len(list(client.server.runs)) == 50
        assert client.get(f"/api/runs/{first.id}/history").status_code == 404
        assert ("gone", "", {}) in list(_first(client, first.id, 3))


def _first(client: PageClient, run: str, count: int) -> Iterator[Any]:
    for number, message in enumerate(client.messages(run), 1):
        yield message
        if number == count:
            return


def test_a_graph_that_cannot_be_loaded_shows_its_traceback_and_is_loaded_when_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentmatrix.cli.host_options import HostOptions
    from agentmatrix.cli.page_targets import page_graphs

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "mended_desk.py"
    file.write_text("import mended_parts\ngraph = mended_parts.make()\n")
    (tmp_path / "mended_parts.py").write_text("def make():\n    raise ValueError('no members')\n")
    with page(*page_graphs(["mended_desk:graph"], HostOptions())) as client:
        (told,) = (data["graphs"] for event, _, data in _first(client, "", 1) if event == "list")
        assert 'mended_parts.py", line 2, in make' in told[0]["error"]
        assert told[0]["error"].rstrip().endswith("ValueError: no members")
        assert "importlib" not in told[0]["error"]
        refused = client.post("/api/runs", {"graph": "graph", "text": "hi"})
        assert refused.status_code == 409 and "ValueError: no members" in refused.json()["error"]
        good = "from agentmatrix import Dag\ndef make():\n    return Dag(name='desk').add_node('n', lambda m: 'hi')\n"
        (tmp_path / "mended_parts.py").write_text(good)
        for event, _, data in client.messages(""):
            if event == "list" and not data["graphs"][0]["error"]:
                break
        run = client.start("graph")
        wait_for(client, run, lambda: run.state == "done")
        assert texts(run)[-1] == ("n", "hi")


def test_a_target_that_is_not_there_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentmatrix.cli.host_options import HostOptions
    from agentmatrix.cli.page_targets import page_graphs

    monkeypatch.chdir(tmp_path)
    with page(*page_graphs(["graphs.hello:nothing_like_it"], HostOptions())) as client:
        (graph,) = client.server.catalog.describe()
        assert graph["error"].startswith("graphs.hello has no 'nothing_like_it'")


def test_what_is_no_graph_is_an_entry_with_its_error() -> None:
    def load() -> Any:
        raise RuntimeError("it is no graph")

    with page(CatalogGraph("broken", "desk:broken", load)) as client:
        assert client.get("/api/graphs/broken/picture").json()["svg"] == ""
        (graph,) = client.server.catalog.describe()
        assert graph["error"].endswith("RuntimeError: it is no graph\n")
