"""Translation with a proofreader: a text goes through three agents, and the row keeps both languages.

A row fails for which an agent answers nothing.

Build it with `address="gpu-box:50051/proofreader"`, and the proofreader is a graph on another machine.
"""

from __future__ import annotations

from typing import Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langgraph.graph import START
from langgraph.pregel import Pregel

from agentmatrix import Dag, RemoteAgent
from agentmatrix.testing import ScriptedChatModel, local_model

__all__ = ["build", "build_proofreader", "graph", "result"]

TRANSLATE = "Translate the user's text into French. Answer with the translation, and with nothing else."
PROOFREAD = "Answer with one sentence: what is wrong with the translation below, or OK."
REVISE = "Answer with the translation, corrected as the proofreader says, and with nothing else."


class State(TypedDict, total=False):
    """A text, its translation, and what the proofreader says of it."""

    question: str
    translation: str
    remark: str


def _node(model: BaseChatModel | None, instruction: str, key: str, script: Any) -> Any:
    """An agent that reads the state under its instruction, and writes one key."""
    speaks = model or ScriptedChatModel(script, cycle=True, usage=True)

    async def run(state: State) -> dict[str, Any]:
        # The text alone, which small models would answer unless what they are asked stands behind it; or all keys.
        lines = [f"{name}: {value}" for name, value in state.items()]
        text = "\n".join(lines) if len(lines) > 1 else f"Text: {state['question']}\n\nFrench:"
        said = await speaks.ainvoke([SystemMessage(instruction), HumanMessage(text)])
        if not said.text.strip():
            raise ValueError(f"the model has answered nothing: there is no {key}")
        return {key: said.text.strip()}

    return run


def build(model: BaseChatModel | None = None, address: str | None = None) -> Pregel[Any, Any, Any, Any]:
    """The graph.

    Args:
        model: the chat model of all agents here; by default scripted ones.
        address: where the proofreader is served; by default it is here.
    """
    dag = Dag(State, name="translation")
    dag.add_node("translate", _node(model, TRANSLATE, "translation", _translate))
    dag.add_node("proofread", RemoteAgent(address) if address else _node(model, PROOFREAD, "remark", _proofread))
    dag.add_node("revise", _node(model, REVISE, "translation", _revise))
    dag.add_edge(START, "translate")
    dag.add_edge("translate", "proofread")
    dag.add_edge("proofread", "revise")
    made: Pregel[Any, Any, Any, Any] = dag.compile()
    return made


def build_proofreader(model: BaseChatModel | None = None) -> Pregel[Any, Any, Any, Any]:
    """The proofreader alone, to be served: `agentmatrix serve proofreader=graphs.refine.translation:build_proofreader`.

    Args:
        model: its chat model; by default a scripted one.
    """
    dag = Dag(State, name="proofreader").add_node("proofread", _node(model, PROOFREAD, "remark", _proofread))
    made: Pregel[Any, Any, Any, Any] = dag.compile()
    return made


def result(row: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """The row with its question in French."""
    return {**row, "french": state["translation"]}


def _translate(messages: list[BaseMessage]) -> str:
    text = messages[-1].text.removeprefix("Text: ").removesuffix("\n\nFrench:")
    return f"(fr) {text}"


def _proofread(messages: list[BaseMessage]) -> str:
    return "It should end with a full stop." if messages[-1].text.endswith("asdf") else "OK"


def _revise(messages: list[BaseMessage]) -> str:
    translation = messages[-1].text.partition("translation: ")[2].partition("\n")[0]
    return translation if "remark: OK" in messages[-1].text else f"{translation}."


def __getattr__(name: str) -> Any:
    if name == "real":
        return build(local_model())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


graph = build()
