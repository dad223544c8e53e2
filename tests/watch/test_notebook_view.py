"""The live picture in a real kernel: shown at once, repainted, and in the saved file as it was last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]

SETUP = """
import threading
from agentmatrix import ChatGroup, Dag, watching
from agentmatrix.chat.human import human
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback
from langgraph.checkpoint.memory import InMemorySaver

seen, gates = [], {name: threading.Event() for name in ("plan", "look")}

def gated(name):
    def work(messages):
        # Until the picture has shown that this node runs.
        assert gates[name].wait(60)
        return name
    return work

# What the front end is sent: the kernel's own publisher, with a copy of each picture.
shell = get_ipython()
publish = shell.display_pub.publish
def copied(data, metadata=None, **options):
    text = str(data.get("text/html", ""))
    seen.append((bool(options.get("update")), text))
    for name, gate in gates.items():
        if f'data-node="{name}" data-state="running"' in text or f'|{name}" data-state="running"' in text:
            gate.set()
    return publish(data, metadata, **options)
shell.display_pub.publish = copied

expert = Dag(name="expert")
expert.add_sequence([("look", gated("look")), ("write", ScriptedChatModel("<script>facts</script>", cycle=True))])
panel = ChatGroup({"expert": loopback(expert.compile()), "person": human("person")}, stop=max_turns(2))
report = Dag(name="report")
report.add_sequence([("plan", gated("plan")), ("panel", panel)])
graph = report.compile(checkpointer=InMemorySaver())
thread = {"configurable": {"thread_id": "1"}}
"""


@pytest.fixture(scope="module")
def cells() -> list[Any]:
    sources = [
        SETUP,
        'run = graph.watch({"messages": "Shall we?"}, thread)\nrun',
        'run.answer("Yes.")["messages"][-1].text',
        "print(len([1 for update, _ in seen if update]), seen[0][0])",
        "report",
        "panel",
        'Dag(name="empty")',
        'with watching(show=False):\n    graph.invoke({"messages": "again"}, thread)',
        'again = {"configurable": {"thread_id": "2"}}\n'
        'with watching() as other:\n    await graph.ainvoke({"messages": "again"}, again)',
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(ROOT)}}).execute()
    # What a colleague opens is the file.
    return list(nbformat.reads(nbformat.writes(notebook), as_version=4).cells)


def html(cell: Any) -> list[str]:
    return [output.data["text/html"] for output in cell.outputs if "text/html" in output.get("data", {})]


def test_the_file_has_one_picture_a_cell_with_the_last_state(cells: list[Any]) -> None:
    (asking,) = html(cells[1])
    assert 'data-state="asking"' in asking
    assert 'data-node="panel|expert|look" data-state="done"' in asking
    assert 'data-node="panel|person" data-state="asking"' in asking
    assert "panel/person asks" in asking and "run.answer(...)" in asking
    assert "127.0.0.1" in asking, "the host is marked"
    (done,) = html(cells[2])
    assert done.startswith('<div class="agentmatrix-run" data-state="done">')
    assert 'data-state="asking"' not in done


def test_nodes_were_seen_while_they_ran(cells: list[Any]) -> None:
    # Each gate is opened by a picture that shows its node at work: the cell ends because they were painted.
    updates, first_is_update = cells[3].outputs[0].text.split()
    assert int(updates) >= 3 and first_is_update == "False"


def test_pictures_need_nothing_from_elsewhere_and_what_is_said_is_text(cells: list[Any]) -> None:
    for cell in cells:
        for page in html(cell):
            assert "<script" not in page and "&lt;script&gt;facts" in page
            assert not [word for word in ("href=", "src=", "url(", "@import") if word in page]


def test_builders_show_what_they_compile_to(cells: list[Any]) -> None:
    for cell in cells[4:6]:
        (output,) = cell.outputs
        assert output.data["image/svg+xml"].startswith("<svg")
        assert "text/vnd.mermaid" not in output.data
    (empty,) = cells[6].outputs
    assert "has no nodes" in empty.data["text/plain"]


def test_a_block_is_shown_unless_it_says_no(cells: list[Any]) -> None:
    assert html(cells[7]) == []
    (picture,) = html(cells[8])
    assert 'data-state="asking"' in picture
