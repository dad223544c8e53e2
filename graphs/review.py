"""A text is reviewed before it goes out: two reviewers it must have, checks that may be late, and a person's word.

    agentmatrix example review
    agentmatrix run graphs.review:graph --input "We move on Friday."
    agentmatrix serve graphs.review:legal

`edit` waits for both reviewers and for the checks (a gate), and takes a remark on style along if there is one by then.
The checks are done when the linter is, or when its time is up: then it is called off. Figures are looked up only where
the text has some; `approve` waits for them too, unless the router has skipped that branch. With `person=True` somebody
is asked. `build(address="gpu-box:50051/legal")` has the lawyer read on another machine. Its models are scripted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, BaseMessage
from langgraph.graph import END, MessagesState
from langgraph.pregel import Pregel
from langgraph.types import Checkpointer, interrupt

from agentmatrix import Dag, RemoteAgent, after, all_of, any_of, as_agent, get_activation
from agentmatrix.testing import ScriptedChatModel

__all__ = ["INPUT", "build", "graph", "legal"]

INPUT = "We move on 12 May."
"""What `agentmatrix example` gives it."""

Check = Callable[[list[AnyMessage]], str] | Callable[[list[AnyMessage]], Awaitable[str]]


def lint(messages: list[AnyMessage]) -> str:
    """Finds what a machine can find."""
    return "No double words."


def checked(messages: list[AnyMessage]) -> str:
    """Says how the checks ended."""
    return "The linter was done." if "lint" in get_activation().items else "The linter was too slow."


def edit(messages: list[AnyMessage]) -> str:
    """Writes the reviews up."""
    items = get_activation().items
    return "; ".join(f"{name}: {said(items[name])}" for name in ("facts", "legal", "checked", "style") if name in items)


def said(item: dict[str, Any]) -> str:
    """The last words of an update."""
    return str(item["messages"][-1].text)


def has_figures(state: MessagesState) -> Literal["figures", "__end__"]:
    """Whether there is anything to look up."""
    return "figures" if any(letter.isdigit() for letter in state["messages"][-1].text) else "__end__"


def build(
    address: str | None = None,
    model: BaseChatModel | None = None,
    *,
    lint: Check = lint,
    style: Check | None = None,
    patience: float = 2,
    person: bool = False,
    checkpointer: Checkpointer = None,
) -> Pregel[Any, Any, Any, Any]:
    """The graph.

    Args:
        address: where the lawyer is served, `"gpu-box:50051/legal"`; by default it is here.
        model: the chat model of those who write and review here; by default scripted ones.
        lint: what checks the text.
        style: what remarks on style; by default a model.
        patience: seconds that the linter has.
        person: whether a person approves; else nobody is asked.
        checkpointer: as in LangGraph; a person needs one.
    """

    def approve(messages: list[AnyMessage]) -> str:
        items = get_activation().items
        looked_up = f" Figures: {said(items['figures'])}" if "figures" in items else ""
        question = f"{said(items['edit'])}{looked_up} Shall it go out?"
        return f"Approved: {interrupt(question) if person else 'nobody was asked'}."

    dag = Dag(MessagesState, name="review")
    dag.add_node("draft", model or ScriptedChatModel(_draft, cycle=True))
    dag.add_node("facts", model or ScriptedChatModel("So it is.", cycle=True))
    dag.add_node("legal", RemoteAgent(address) if address else as_agent(legal, name="legal"))
    dag.add_node("style", style or model or ScriptedChatModel("Short and good.", cycle=True))
    dag.add_node("lint", lint)
    dag.add_node("checked", checked)
    dag.add_node("figures", ScriptedChatModel("They add up.", cycle=True))
    dag.add_node("edit", edit)
    dag.add_node("approve", approve)
    for reader in ("facts", "legal", "style", "lint"):
        dag.add_edge("draft", reader)
    dag.add_conditional_edges("draft", has_figures, ["figures", END])
    dag.add_trigger("checked", any_of("lint", after(patience, name="deadline"), cancel_rest=True))
    dag.add_trigger("edit", all_of("facts", "legal", gate="checked", optional="style"))
    dag.add_trigger("approve", all_of("edit", "figures", skipped="ok"))
    graph: Pregel[Any, Any, Any, Any] = dag.compile(checkpointer=checkpointer)
    return graph


def _draft(messages: list[BaseMessage]) -> str:
    return f"To all: {messages[-1].text}"


legal = ScriptedChatModel("Nobody can object.", cycle=True)
graph = build()
