"""A large value that crosses is seen while it does."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import pytest
from typing_extensions import TypedDict

from agentmatrix import Dag, watching
from agentmatrix.testing import loopback
from agentmatrix.transport.framing import BulkFields
from agentmatrix.watch.text_view import text_of_run


class Blob(TypedDict, total=False):
    data: Annotated[bytes, lambda old, new: new]


def test_what_arrives_from_a_host_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    add, half, seen = BulkFields.add, threading.Event(), threading.Event()

    def stopping(self: BulkFields, data: bytes) -> bool:
        whole = add(self, data)
        if self.size > 4_000_000 and self.arrived > self.size / 2 and not half.is_set():
            half.set()
            assert seen.wait(100)
        return whole

    monkeypatch.setattr(BulkFields, "add", stopping)
    inner = Dag(Blob, name="inner")
    inner.add_node("make", lambda state: {"data": b"x" * 5_000_000})
    outer = Dag(Blob, name="outer")
    outer.add_node("far", loopback(inner.compile()))
    graph: Any = outer.compile()
    with watching() as run:
        thread = threading.Thread(target=graph.invoke, args=({},))
        thread.start()
        assert half.wait(100)
        transfer, page = run.transfers["far"], run._repr_html_()
        lines = [line.words for line in text_of_run(run)]
        seen.set()
        thread.join(100)
    assert transfer.kind == "received"
    assert transfer.size / 2 < transfer.done < transfer.size
    assert transfer.size > 5_000_000
    assert page is not None and "3 of 5 MB received" in page
    assert any("3 of 5 MB received" in words for words in lines)
    assert run.transfers == {}
    assert run.state == "done"
