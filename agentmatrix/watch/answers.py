"""Answers to the questions that watched runs have paused with."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from langgraph.types import Command

from agentmatrix.errors import AnswerError
from agentmatrix.watch.node_record import OpenQuestion
from agentmatrix.watch.run_event import RunEvent
from agentmatrix.watch.watched_graph import WatchedGraph

__all__ = ["AnswerMixin"]


class AnswerMixin:
    """Adds `answer` and `aanswer` to `WatchedRun`."""

    block: Callable[[], AbstractContextManager[None]]
    """Watches what is run in it, as the block does that this was made by."""
    is_open: bool
    result: Any
    _lock: threading.RLock
    _graphs: dict[str, WatchedGraph]
    _names: dict[str, str]
    # By id of a question, who is answering it now.
    _answering: dict[str, str]

    @property
    @abstractmethod
    def questions(self) -> list[OpenQuestion]: ...

    @abstractmethod
    def take(self, event: RunEvent) -> None: ...

    def answer(self, *answers: Any, by: str = "") -> Any:
        """Answer the open questions, and go on; the run that asked is resumed, and its result returned.

        Args:
            answers: one for each question, in the order of `questions`; or one dict of answers by the questions' ids,
                of some of them or all.
                A request for approval (LangChain's `HumanInTheLoopMiddleware`) takes `"approve"`, `"reject: why"`,
                `'edit {"amount": 5}'`, or a list of these, one for each tool call.
            by: who answers; `answered` tells it.

        Raises:
            AnswerError: no question is open, the number is wrong, an answer does not fit, or somebody is answering the
                question already.
        """
        with self._resuming(answers, by) as (graph, command), nullcontext() if self.is_open else self.block():
            self.result = graph.graph.invoke(command, graph.config)
        return self.result

    async def aanswer(self, *answers: Any, by: str = "") -> Any:
        """The same as `answer`, async."""
        with self._resuming(answers, by) as (graph, command), nullcontext() if self.is_open else self.block():
            self.result = await graph.graph.ainvoke(command, graph.config)
        return self.result

    @contextmanager
    def _resuming(self, answers: tuple[Any, ...], by: str) -> Iterator[tuple[WatchedGraph, Command[Any]]]:
        """The graph that asks, and the command that it goes on with. Nobody else answers meanwhile."""
        with self._lock:
            graph, resume, given = self._resumption(answers)
            for question in given:
                if (other := self._answering.get(question.id)) is not None:
                    raise AnswerError(f"{other or 'somebody'} is answering the question of {question.path} already")
            self._answering |= {question.id: by for question in given}
        first = given[0]
        ids = [question.id for question in given]
        self.take(RunEvent("answer", first.run, "", "", time.time(), {"ids": ids, "by": by}))
        try:
            yield graph, Command(resume=resume)
        finally:
            with self._lock:
                for id in ids:
                    del self._answering[id]

    def _resumption(self, answers: tuple[Any, ...]) -> tuple[WatchedGraph, dict[str, Any], list[OpenQuestion]]:
        questions = self.questions
        if not questions:
            raise AnswerError("no question is open: the graph has not paused, or was answered already")
        ids = {question.id: question for question in questions}
        if len(answers) == 1 and isinstance(answers[0], Mapping) and answers[0] and answers[0].keys() <= ids.keys():
            given = [(ids[id], value) for id, value in answers[0].items()]
        elif len(answers) != len(questions):
            raise AnswerError(f"{len(questions)} questions are open, and {len(answers)} answers were given")
        else:
            given = list(zip(questions, answers, strict=True))
        runs = {self._names.get(question.run, "") for question, _ in given}
        if len(runs) > 1:
            raise AnswerError(f"the questions are of several graphs ({', '.join(sorted(runs))}): answer by their ids")
        graph = self._graphs.get(given[0][0].run)
        if graph is None or graph.graph is None:
            raise AnswerError(
                "the run that asks was not started in this process: answer it there, or give load its graph"
            )
        if not graph.graph.checkpointer or "thread_id" not in (graph.config or {}).get("configurable", {}):
            raise AnswerError("the graph has no checkpointer that keeps the pause: compile it with one, name a thread")
        resume = {question.id: _value_of(question, value) for question, value in given}
        return graph, resume, [question for question, _ in given]


def _value_of(question: OpenQuestion, answer: Any) -> Any:
    request = question.approval
    texts = [answer] if isinstance(answer, str) else answer
    if request is None or not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        return answer
    return request.answer(texts)
