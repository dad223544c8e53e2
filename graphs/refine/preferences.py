"""Preference pairs: four answers to a question, marked by a judge; the best and the worst are chosen and rejected.

The answers are written at the same time, each in a style of its own. An answer that the judge did not mark is in no
pair, and a question whose answers are all of one mark, or all the same, leaves none.
"""

from __future__ import annotations

import operator
import re
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langgraph.graph import START
from langgraph.pregel import Pregel
from langgraph.types import Send

from agentmatrix import Dag
from agentmatrix.testing import ScriptedChatModel, local_model

__all__ = ["build", "graph", "result"]

ANSWER = "Answer the question in one sentence."
JUDGE = "Mark the answer from 1 (wrong or unclear) to 9 (right and clear). Say the number first."
STYLES = ("Be exact.", "Be brief.", "Be friendly.", "Guess.")


class State(TypedDict, total=False):
    """A question, and the answers to it with their marks."""

    question: str
    marked: Annotated[list[dict[str, Any]], operator.add]


class Draft(TypedDict):
    """One answer to be written."""

    question: str
    seed: int


def build(model: BaseChatModel | None = None, answers: int = 4) -> Pregel[Any, Any, Any, Any]:
    """The graph.

    Args:
        model: the chat model of the writer and the judge; by default scripted ones.
        answers: how many answers are compared.
    """
    writer = model or ScriptedChatModel(_write, cycle=True, usage=True)
    judge = model or ScriptedChatModel(_mark, cycle=True, usage=True)

    async def begin(state: State) -> State:
        return {}

    async def each(state: State) -> list[Send]:
        return [Send("answer", Draft(question=state["question"], seed=seed)) for seed in range(answers)]

    async def answer(draft: Draft) -> State:
        style = STYLES[draft["seed"] % len(STYLES)]
        said = await writer.ainvoke([SystemMessage(f"{ANSWER} {style}"), HumanMessage(draft["question"])])
        text = f"Question: {draft['question']}\nAnswer: {said.text}"
        mark = await judge.ainvoke([SystemMessage(JUDGE), HumanMessage(text)])
        return {"marked": [{"seed": draft["seed"], "text": said.text.strip(), "mark": _mark_of(mark.text)}]}

    dag = Dag(State, name="preferences")
    dag.add_node("begin", begin)
    dag.add_node("answer", answer)
    dag.add_edge(START, "begin")
    dag.add_conditional_edges("begin", each, ["answer"])
    made: Pregel[Any, Any, Any, Any] = dag.compile()
    return made


def result(row: dict[str, Any], state: dict[str, Any]) -> dict[str, Any] | None:
    """The pair, as trainers of reward models read it: prompt, chosen, rejected."""
    marked = [answer for answer in state["marked"] if answer["mark"] is not None and answer["text"]]
    ranked = sorted(marked, key=lambda answer: (-answer["mark"], answer["seed"]))
    if not ranked:
        return None
    best, worst = ranked[0], ranked[-1]
    if best["mark"] == worst["mark"] or best["text"] == worst["text"]:
        return None
    return {
        "id": row["id"],
        "prompt": [{"role": "user", "content": row["question"]}],
        "chosen": [{"role": "assistant", "content": best["text"]}],
        "rejected": [{"role": "assistant", "content": worst["text"]}],
        "margin": best["mark"] - worst["mark"],
    }


def _mark_of(text: str) -> int | None:
    """The first number from 1 to 9 in what the judge said; None where it has none."""
    found = re.search(r"(?<![\d.])[1-9](?![\d]|\.\d)", text)
    return int(found[0]) if found else None


def _write(messages: list[BaseMessage]) -> str:
    style = messages[0].text.removeprefix(ANSWER).strip()
    return f"{style.rstrip('.')}: {messages[-1].text}"


def _mark(messages: list[BaseMessage]) -> str:
    if not messages[-1].text.partition("\n")[0].endswith("?"):
        return "1"
    styles = [style.rstrip(".") for style in STYLES]
    return str(9 - 2 * next(i for i, style in enumerate(styles) if f"Answer: {style}" in messages[-1].text))


def __getattr__(name: str) -> Any:
    if name == "real":
        return build(local_model())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


graph = build()
