"""Dialogues between two reasoners who must agree: in small, the collaborative reasoner of "Matrix" (arXiv 2511.21686).

Each question is talked through by a student and a teacher until both say the same. The record is the dialogue, with the
answer that they agreed on, and whether it is the one of the dataset: data to train on, good and bad.
"""

from __future__ import annotations

import re
from typing import Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage
from langgraph.graph import START, MessagesState
from langgraph.pregel import Pregel

from agentmatrix import ChatGroup, Dag, as_agent
from agentmatrix.speakers import round_robin
from agentmatrix.stops import agreed, max_turns
from agentmatrix.testing import ScriptedChatModel, local_model

__all__ = ["build", "graph", "result"]

STUDENT = (
    "You try to answer. Say what you think in one sentence; when you agree with the teacher, say AGREED and the answer."
)
TEACHER = "You check the student, step by step. When you agree, say AGREED and the answer, and nothing else."


class State(MessagesState):
    """A question, and the dialogue about it."""

    question: str


class Asked(TypedDict):
    """What a row gives."""

    question: str


def build(model: BaseChatModel | None = None, turns: int = 8) -> Pregel[Any, Any, Any, Any]:
    """The graph.

    Args:
        model: the chat model of both; by default scripted ones.
        turns: how many turns they have.
    """
    members = {
        name: as_agent(model or ScriptedChatModel(script, cycle=True, usage=True), name=name, system_prompt=instruction)
        for name, instruction, script in (("student", STUDENT, _student), ("teacher", TEACHER, _teacher))
    }
    talk = ChatGroup(members, speaker=round_robin(), stop=agreed("AGREED") | max_turns(turns), reply="transcript")

    async def ask(state: State) -> dict[str, Any]:
        return {"messages": [HumanMessage(state["question"])]}

    dag = Dag(State, input_schema=Asked, name="dialogue")
    dag.add_node("ask", ask)
    dag.add_node("talk", talk)
    dag.add_edge(START, "ask")
    dag.add_edge("ask", "talk")
    made: Pregel[Any, Any, Any, Any] = dag.compile()
    return made


def result(row: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The dialogue, the answer that was agreed on (None where there is none), and whether it has the dataset's."""
    said: list[AnyMessage] = state["messages"][1:]
    last = {message.name: message.text for message in said}
    agreed = len(last) == 2 and all("AGREED" in text for text in last.values())
    answer = said[-1].text.partition("AGREED")[2].strip(" :.\n") if agreed else None
    return {
        "id": row["id"],
        "question": row["question"],
        "dialogue": [{"role": message.name, "content": message.text} for message in said],
        "agreed": answer,
        "is_right": answer is not None and _has(answer, row["answer"].strip(" .")),
    }


def _has(answer: str, right: str) -> bool:
    """Whether the right one stands in an answer: models say it in a sentence."""
    return bool(right) and re.search(rf"(?<!\w){re.escape(right)}(?!\w)", answer, re.IGNORECASE) is not None


_KNOWN = {
    "What is 17 and 25?": "42",
    "What is half of 90?": "45",
    "Why is the sky blue?": "Air scatters blue light most",
}


def _asked(messages: list[BaseMessage]) -> str:
    return next((message.text for message in messages if message.text in _KNOWN), "")


def _student(messages: list[BaseMessage]) -> str:
    known = _KNOWN.get(_asked(messages))
    if known is None:
        return "I do not understand the question."
    corrected = any("Look again" in message.text for message in messages)
    return f"AGREED: {known}" if corrected else "I would say 40."


def _teacher(messages: list[BaseMessage]) -> str:
    known = _KNOWN.get(_asked(messages))
    if known is None:
        return "Nor do I. Try again."
    return (
        f"AGREED: {known}" if any("AGREED" in message.text for message in messages[1:]) else "Look again, step by step."
    )


def __getattr__(name: str) -> Any:
    if name == "real":
        return build(local_model())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


graph = build()
