"""What a person does on the page: run, answer, signal, stop, go back and go on from there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from langgraph.types import Command

from agentmatrix.approvals import approval_request
from agentmatrix.errors import AgentMatrixError, AnswerError, SignalError
from agentmatrix.ui.checked_input import checked_input
from agentmatrix.ui.graph_catalog import CatalogGraph, GraphCatalog
from agentmatrix.ui.page_run import PageRun
from agentmatrix.ui.run_driver import RunDriver
from agentmatrix.ui.run_history import history_entry
from agentmatrix.ui.runs import RunStore
from agentmatrix.watch.node_record import OpenQuestion

__all__ = ["ActionError", "RunActions"]

_SIGNAL_SECONDS: Final = 30.0


class ActionError(AgentMatrixError):
    """What was asked for cannot be done.

    Args:
        message: why, and what to do.
        status: of the response.
    """

    def __init__(self, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.status = status


class RunActions:
    """Does what the page asks for. Its methods block, and may be called on any thread.

    Args:
        runs: the runs.
        catalog: the graphs.
        driver: runs them.
    """

    def __init__(self, runs: RunStore, catalog: GraphCatalog, driver: RunDriver) -> None:
        self._runs, self._catalog, self._driver = runs, catalog, driver

    def start(self, given: Mapping[str, Any]) -> PageRun:
        """Start a run: `{"graph": ..., "text": ... | "json": ..., "thread": ..., "live": whether it takes signals}`."""
        entry = self._graph(str(given.get("graph", "")))
        value = checked_input(entry, given)
        thread = str(given.get("thread") or f"ui-{uuid.uuid4().hex[:8]}")
        run = PageRun(uuid.uuid4().hex[:12], entry.name, thread, on_change=self._runs.changed, compiled=entry.graph)
        run.input, run.is_live = _shown(given), bool(given.get("live")) and bool(entry.signals)
        self._runs.add(run)
        run.tell("input", text=run.input, graph=entry.name, thread=thread)
        self._drive(run, value)
        return run

    def say(self, run: PageRun, given: Mapping[str, Any]) -> None:
        """Give the thread of a run that has ended another input."""
        entry = self._graph_of(run)
        self._check_rest(run)
        value = checked_input(entry, given)
        run.is_live = bool(given.get("live")) and bool(entry.signals)
        run.tell("input", text=_shown(given), graph=entry.name, thread=run.thread)
        self._drive(run, value)

    def go_on(self, run: PageRun) -> None:
        """Go on with a run that has failed or was stopped, from its last checkpoint."""
        self._check_rest(run)
        run.tell("go on")
        self._drive(run, None)

    def answer(self, run: PageRun, given: Mapping[str, Any]) -> None:
        """Answer a question: `{"question": id, "value": ...}`, or `"decisions"` for a request for approval."""
        question = self._question(run, str(given.get("question", "")))
        if run.is_loaded:
            self._check_thread(run, question)
        if not run.hold_answer(question.id, _value_of(question, given)):
            raise ActionError("somebody else has answered this question already")
        run.tell("answered", question=question.id, path=question.path, text=_shown(given))
        self._resume(run)

    def _resume(self, run: PageRun) -> None:
        """Go on with the answers that have come, unless the run is at work: then when it pauses."""
        if not run.is_at_work and (answers := run.take_answers()):
            self._drive(run, Command(resume=answers))

    def signal(self, run: PageRun, given: Mapping[str, Any]) -> None:
        """Send a signal: `{"address": ..., "value": ...}`."""
        address = str(given.get("address", ""))
        try:
            is_sent = self._driver.signal(run, address, given.get("value"), timeout=_SIGNAL_SECONDS)
        except (SignalError, TimeoutError) as error:
            raise ActionError(str(error)) from None
        if not is_sent:
            raise ActionError("the run is not at work, so that it takes no signal")
        run.tell("signal", address=address, text=json.dumps(given.get("value"), ensure_ascii=False))

    def close_input(self, run: PageRun) -> None:
        """No more signals come: the run ends once nothing in it can start."""
        if not self._driver.close_input(run):
            raise ActionError("the run is not at work")
        run.tell("input closed")

    def stop(self, run: PageRun) -> None:
        """Cut the run off."""
        if not self._driver.stop(run):
            raise ActionError("the run is not at work")

    def fork(self, run: PageRun, given: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, with edited values where there are any: `{"checkpoint": id, "values": {...}}`."""
        entry = self._graph_of(run)
        self._check_rest(run)
        config = self._config(run, str(given.get("checkpoint", "")))
        values = given.get("values")
        if values is not None:
            if not isinstance(values, Mapping):
                raise ActionError("the edited state is a JSON object of the keys that change", 422)
            try:
                config = self._driver.update_state(entry.graph, config, dict(values))
            except Exception as error:
                raise ActionError(f"the edited state does not fit: {error}", 422) from None
        run.tell("fork", checkpoint=str(given.get("checkpoint", "")), edited=sorted(values or ()))
        self._drive(run, None, config)

    def history(self, run: PageRun) -> list[dict[str, Any]]:
        """The checkpoints of the run's thread, newest first."""
        snapshots = self._driver.history(self._graph_of(run).graph, self._config(run))
        return [history_entry(snapshot) for snapshot in snapshots]

    # What they share.

    def run(self, id: str) -> PageRun:
        """The run of an id."""
        run = self._runs.get(id)
        if run is None:
            raise ActionError("this run is kept no more", 404)
        return run

    def _drive(self, run: PageRun, value: Any, config: dict[str, Any] | None = None) -> None:
        entry = self._graph_of(run)
        started = self._driver.start(
            run,
            entry.graph,
            value,
            config or self._config(run),
            takes_signals=run.is_live,
            then=self._resume,
        )
        if not started:
            raise ActionError("the run is at work already")

    def _config(self, run: PageRun, checkpoint: str = "") -> dict[str, Any]:
        named = {"checkpoint_ns": "", "checkpoint_id": checkpoint} if checkpoint else {}
        return {"configurable": {"thread_id": run.thread, **named}}

    def _graph_of(self, run: PageRun) -> CatalogGraph:
        if run.source:
            raise ActionError(f"this run is of another process ({run.source}): it is read only here")
        return self._graph(run.graph)

    def _graph(self, name: str) -> CatalogGraph:
        entry = self._catalog.get(name)
        if entry is None:
            raise ActionError(f"the page has no graph {name!r}", 404)
        if entry.graph is None:
            raise ActionError(f"{name} could not be loaded: {entry.error.strip().splitlines()[-1]}")
        return entry

    def _check_rest(self, run: PageRun) -> None:
        if run.is_at_work:
            raise ActionError("the run is at work already")

    def _check_thread(self, run: PageRun, question: OpenQuestion) -> None:
        """A run that was found again goes on where its checkpointer has kept the thread."""
        newest = next(iter(self._driver.history(self._graph_of(run).graph, self._config(run), limit=1)), None)
        if newest is None or question.id not in {interrupt.id for interrupt in newest.interrupts}:
            raise ActionError("the graph's checkpointer does not keep this question: it was in memory, or has gone on")

    def _question(self, run: PageRun, id: str) -> OpenQuestion:
        question = next((question for question in run.watched.questions if question.id == id), None)
        if question is None:
            raise ActionError("this question is open no more: it was answered, or the run has gone on")
        self._graph_of(run)
        return question


def _value_of(question: OpenQuestion, given: Mapping[str, Any]) -> Any:
    request = approval_request(question.value, question.schema)
    if "decisions" not in given:
        return given.get("value")
    decisions = given["decisions"]
    if request is None or not isinstance(decisions, list) or not all(isinstance(one, str) for one in decisions):
        raise ActionError("the decisions are a list of words, one for each tool call", 422)
    try:
        return request.answer(decisions)
    except AnswerError as error:
        raise ActionError(str(error), 422) from None


def _shown(given: Mapping[str, Any]) -> str:
    for key in ("text", "value", "decisions", "json"):
        if key in given:
            value = given[key]
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return ""
