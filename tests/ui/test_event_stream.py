"""A browser that slept, or lost its connection, goes on where it was."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmatrix.ui.event_stream import _batch
from tests.ui.page_client import PageClient, entry, page, wait_for
from tests.watch.watched_graphs import model, one


@pytest.fixture(scope="module")
def client() -> Iterator[PageClient]:
    with page(entry("plain", one("say", model("yes")))) as client:
        yield client


def items(client: PageClient, run: str, last_id: str | None = None) -> tuple[list[Any], str]:
    """The items that are sent until the browser has caught up, and the last id."""
    found, last = [], last_id or ""
    for event, id, data in client.messages(run, last_id):
        if event == "items":
            found += data
            last = id
        elif event == "caught-up":
            return found, last
    raise AssertionError("the stream has ended")


def test_a_reload_gets_all_and_a_browser_that_slept_gets_the_rest(client: PageClient) -> None:
    run = client.start("plain", text="one")
    wait_for(client, run, lambda: run.state == "done")
    before, last = items(client, run.id)
    assert [item["kind"] for item in before][:2] == ["input", "work"]
    assert before[-1]["kind"] == "rest" and int(last) == len(before) - 1
    assert client.act(run, "say", text="two").status_code == 200
    wait_for(client, run, lambda: run.state == "done" and len(run.watched.transcript) == 4)
    after, _ = items(client, run.id, last)
    assert before + after == items(client, run.id)[0]
    assert after[0]["kind"] == "input"
    assert items(client, run.id, str(len(before) + len(after) - 1))[0] == []


@pytest.mark.parametrize("last_id", ["100000", "-1", "x", ""])
def test_an_id_that_the_run_does_not_have_gives_all_of_it(client: PageClient, last_id: str) -> None:
    run = client.start("plain", text="one")
    wait_for(client, run, lambda: run.state == "done")
    assert items(client, run.id, last_id)[0] == items(client, run.id)[0]


def test_the_list_comes_at_once_and_when_it_changes(client: PageClient) -> None:
    messages = client.messages("")
    event, _, told = next(messages)
    assert event == "list"
    assert [graph["title"] for graph in told["graphs"]] == ["say"]
    run = client.start("plain", text="for the list")
    lists = (data["runs"] for event, _, data in messages if event == "list")
    assert any(one["id"] == run.id and one["state"] == "done" for one in itertools.chain.from_iterable(lists))


@given(st.lists(st.text(alphabet="x", max_size=5)), st.integers(0, 5))
@settings(deadline=None)
def test_batches_lose_nothing(texts: list[str], first: int) -> None:
    found, cursor = [], first
    while cursor < len(texts):
        batch = _batch(texts, cursor)
        assert batch
        found += batch
        cursor += len(batch)
    assert found == texts[first:]
