"""A run as HTML for a notebook: no script, no request, and text is text, whoever has said it.

Styles sit in attributes: a front end that does not trust the file drops style sheets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Final

from agentmatrix.approvals import approval_request
from agentmatrix.display.drawing import NAMELESS
from agentmatrix.watch.node_record import GraphRecord, NodeRecord, OpenQuestion
from agentmatrix.watch.picture import GraphPicture

if TYPE_CHECKING:
    from agentmatrix.watch.watched_run import WatchedRun

__all__ = ["HtmlView", "html_of"]

_LAST_LINES: Final = 12
_MOST_ROWS: Final = 60
_LONGEST: Final = 400
_BOX: Final = "border-left:4px solid {};padding:4px 10px;margin:6px 0"
_SMALL: Final = "font-size:12px"


def html_of(run: WatchedRun) -> str:
    """The run as it is now."""
    return HtmlView(run).paint()


class HtmlView:
    """Paints a run. Layouts are kept between two pictures.

    Args:
        run: what is seen.
    """

    def __init__(self, run: WatchedRun) -> None:
        self._run = run
        self._pictures: dict[str, GraphPicture] = {}

    @property
    def is_ticking(self) -> bool:
        """Whether the picture tells a time that passes."""
        return any(record.is_open and record.nodes[""].count for record in self._run.records)

    def paint(self) -> str:
        """The run as it is now, as one element."""
        records = self._run.records
        parts = [part for record in records for part in self._graph(record)]
        if not parts:
            parts = [*self._expected()] or ["<em>nothing has run yet</em>"]
        return f'<div class="agentmatrix-run" data-state="{escape(self._run.state)}">{"".join(parts)}</div>'

    def _expected(self) -> Iterator[str]:
        if (picture := self._picture("")) is not None:
            yield _title(picture.drawing.label, "waiting")
            yield picture.svg(self._run.nodes_of(""))

    def _graph(self, record: GraphRecord) -> Iterator[str]:
        nodes = {**self._run.nodes_of(record.name), "": record.nodes[""]}
        yield _title(_shown_name(record), _facts(record))
        if (picture := self._picture(record.name)) is not None:
            yield picture.svg(nodes, self._run.transfers)
        for question in record.questions.values():
            yield from _question(question)
        yield from _errors(record.nodes)
        yield from _table(nodes)
        yield from _transcript(record)

    def _picture(self, name: str) -> GraphPicture | None:
        drawing = self._run.drawing(name)
        if drawing is None:
            return None
        kept = self._pictures.get(name)
        if kept is None or kept.drawing is not drawing:
            kept = self._pictures[name] = GraphPicture(drawing)
        return kept


def _shown_name(record: GraphRecord) -> str:
    own = record.name or "calls outside of a graph"
    return f"{own} compile(name=...) gives it one" if own.startswith(NAMELESS) else own


def _facts(record: GraphRecord) -> str:
    root = record.nodes[""]
    nodes = record.nodes.values()
    facts: list[str] = [record.state, f"{root.count} runs" if root.count > 1 else ""]
    facts.append(f"{root.seconds:.1f} s" if root.seconds else "")
    if calls := sum(node.calls for node in nodes):
        facts.append(f"{calls} {'call' if calls == 1 else 'calls'} of models")
    if tokens := sum(node.tokens for node in nodes):
        facts.append(f"{tokens} tokens")
    return ", ".join(filter(None, facts))


def _title(name: str, facts: str) -> str:
    return f"<div><b>{escape(name)}</b> {escape(facts)}</div>"


def _question(question: OpenQuestion) -> Iterator[str]:
    style = _BOX.format("#ca8a04")
    yield f'<div data-question="{escape(question.id)}" style="{style}"><b>{escape(question.path)} asks</b>'
    request = approval_request(question.value, question.schema)
    if request is None:
        text = question.value if isinstance(question.value, str) else _json(question.value)
        yield f"<pre>{escape(text)}</pre>answer it: <code>run.answer(...)</code></div>"
        return
    for action in request.actions:
        if action.description:
            yield f"<pre>{escape(action.description)}</pre>"
        yield f"<pre>{escape(action.name)} {escape(_json(action.args))}</pre>"
        yield f'<div style="{_SMALL}">takes {escape(action.how_to_answer)}</div>'
    several = ", ".join(["..."] * len(request.actions))
    how = f"run.answer([{several}])" if len(request.actions) > 1 else "run.answer(...)"
    yield f"answer it: <code>{how}</code></div>"


def _errors(nodes: dict[str, NodeRecord]) -> Iterator[str]:
    for path, node in nodes.items():
        if (
            node.state == "failed"
            and node.errors
            and not any(other.errors for inner, other in nodes.items() if _is_below(inner, path))
        ):
            where = escape(path or "the run")
            times = f" ({len(node.errors)} times)" if len(node.errors) > 1 else ""
            words = escape(_shortened(node.errors[-1]))
            yield f'<div style="{_BOX.format("#dc2626")}"><b>{where} failed{times}</b> {words}</div>'


def _is_below(path: str, above: str) -> bool:
    return path.startswith(f"{above}/") if above else bool(path)


def _table(nodes: dict[str, NodeRecord]) -> Iterator[str]:
    rows = [(path, node) for path, node in nodes.items() if path and node.count]
    if not rows:
        return
    yield f'<details style="{_SMALL}"><summary>{len(rows)} nodes</summary><table><tr>'
    yield "".join(f"<th>{head}</th>" for head in ("node", "state", "times", "seconds", "calls", "tokens", "errors"))
    yield "</tr>"
    for path, node in rows[:_MOST_ROWS]:
        cells = (path, node.state, node.count, f"{node.seconds:.2f}", node.calls, node.tokens, len(node.errors))
        yield "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
    more = f"<div>... {len(rows) - _MOST_ROWS} more</div>" if len(rows) > _MOST_ROWS else ""
    yield f"</table>{more}</details>"


def _transcript(record: GraphRecord) -> Iterator[str]:
    lines = record.transcript
    if not lines:
        return
    yield f'<details open style="{_SMALL}"><summary>{len(lines)} messages</summary>'
    if len(lines) > _LAST_LINES:
        yield f"<div>... {len(lines) - _LAST_LINES} before</div>"
    for line in lines[-_LAST_LINES:]:
        calls = "".join(f" calls {call['name']}({_json(call['args'])})" for call in line.calls)
        where = f' title="{escape(line.path)}"' if line.path else ""
        yield f"<div><b{where}>{escape(line.speaker)}</b> {escape(_shortened(line.text + calls))}</div>"
    yield "</details>"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
