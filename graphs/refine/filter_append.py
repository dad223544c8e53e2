"""Filter and append: one agent throws poor rows out, another adds a column to the good ones.

These are the two ways in which the AgentMatrix paper refines a dataset. A row that is thrown out is done, and leaves no
record. A row of which the judge says neither has failed, as one that gets no explanation: it can be tried again.
"""

from __future__ import annotations

import re
from typing import Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langgraph.graph import END, START
from langgraph.pregel import Pregel

from agentmatrix import Dag
from agentmatrix.testing import ScriptedChatModel, local_model

__all__ = ["build", "graph", "result"]

JUDGE = "You clean a dataset. Answer KEEP if the user's text is a question that one can answer, else DROP."
EXPLAIN = "Explain in one sentence how one comes from the question to the answer."


class State(TypedDict, total=False):
    """A row, what the judge said of it, and what was added."""

    question: str
    answer: str
    verdict: str
    explanation: str


def build(model: BaseChatModel | None = None) -> Pregel[Any, Any, Any, Any]:
    """The graph.

    Args:
        model: the chat model of both agents; by default scripted ones.
    """
    judge = model or ScriptedChatModel(_judge, cycle=True, usage=True)
    explainer = model or ScriptedChatModel(_explain, cycle=True, usage=True)

    async def judged(state: State) -> State:
        # Small models answer the text unless what they are asked stands behind it.
        said = await judge.ainvoke([SystemMessage(JUDGE), HumanMessage(f"Text: {state['question']}\n\nKEEP or DROP?")])
        return {"verdict": _verdict(said.text)}

    async def explained(state: State) -> State:
        text = f"Question: {state['question']}\nAnswer: {state.get('answer', '')}"
        said = await explainer.ainvoke([SystemMessage(EXPLAIN), HumanMessage(text)])
        if not said.text.strip():
            raise ValueError("the model has answered nothing: there is no explanation")
        return {"explanation": said.text.strip()}

    async def is_kept(state: State) -> str:
        return "append" if state["verdict"] == "keep" else END

    dag = Dag(State, name="filter_append")
    dag.add_node("filter", judged)
    dag.add_node("append", explained)
    dag.add_edge(START, "filter")
    dag.add_conditional_edges("filter", is_kept, ["append", END])
    made: Pregel[Any, Any, Any, Any] = dag.compile()
    return made


def result(row: dict[str, Any], state: dict[str, Any]) -> dict[str, Any] | None:
    """The row with its explanation; nothing for one that was thrown out."""
    return {**row, "explanation": state["explanation"]} if state["verdict"] == "keep" else None


def _verdict(text: str) -> str:
    """The word that stands alone, or first: models explain themselves."""
    words = re.findall(r"\b(KEEP|DROP)\b", text.upper())
    if not words:
        raise ValueError(f"the judge said neither KEEP nor DROP: {text[:80]!r}")
    return str(words[0]).lower()


def _judge(messages: list[BaseMessage]) -> str:
    return "KEEP" if messages[-1].text.removesuffix("\n\nKEEP or DROP?").endswith("?") else "DROP"


def _explain(messages: list[BaseMessage]) -> str:
    question, _, answer = messages[-1].text.removeprefix("Question: ").partition("\nAnswer: ")
    return f"One works out {question.rstrip('?')!r} and gets {answer!r}."


def __getattr__(name: str) -> Any:
    if name == "real":
        return build(local_model())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


graph = build()
