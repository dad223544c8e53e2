"""The systems of the AgentMatrix paper: translators nested in themselves, a proofreading chain, a meta-prompting loop.

    python -m graphs.agent_matrix                # the paper's countable claims, as a table
    agentmatrix run graphs.agent_matrix:translators --input "The bridge is closed."
    agentmatrix run graphs.agent_matrix:meta_prompting --input "How many legs have two spiders?"

Qingxu Fu's AgentMatrix (2024) puts an agent into an agent: each has a parent, children and successors, and any of them
may be a matrix of its own. Here that is a Dag in a Dag, and its switch is a router in a `CyclicGraph`. The models are
scripted by default; `python -m graphs.agent_matrix --model local` takes a small real one (extra `local`), `--model
provider:name` any. What is the paper's, and what is our reading of it, is in docs/papers.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage
from langgraph.graph import END, START, MessagesState
from langgraph.pregel import Pregel

from agentmatrix import CyclicGraph, Dag, as_agent
from agentmatrix.errors import BoundError
from agentmatrix.testing import ScriptedChatModel

from ._claims import Claim, parser_with_model, print_claims

__all__ = ["INPUT", "build_meta_prompting", "build_proofreading", "build_translators", "table"]

INPUT = "The bridge is closed."
"""What `agentmatrix example` gives it."""

Graph = Pregel[Any, Any, Any, Any]

TRANSLATE: Final = "You are a translator. Answer with the user's text in {language}, and with nothing else."
PROOFREAD: Final = "You are a proofreader. Answer with one sentence: what is wrong with the translation above, or OK."
REVISE: Final = "You revise a translation after its proofreader. Answer with the text, and with nothing else."
META: Final = (
    "You lead experts who know nothing of this conversation. To ask one, write its whole question between <expert> and "
    "</expert>. When you know the answer, write FINAL ANSWER: and the answer."
)
EXPERT: Final = "You are an expert. Answer the question in one sentence."


def heard(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """What a translator is given: the last text alone, since what was said before is no text of its own."""
    return [HumanMessage(messages[-1].text)]


def speaker(model: BaseChatModel | None, name: str, instruction: str) -> Any:
    """An agent that follows one instruction."""
    return as_agent(model or ScriptedChatModel(scripted, cycle=True), name=name, system_prompt=instruction)


def build_translators(depth: int = 3, model: BaseChatModel | None = None) -> Graph:
    """A chain of translators that has itself for its middle: there, the chain one level further in, and back.

    Args:
        depth: levels.
        model: the chat model of all translators; by default a scripted one.
    """
    dag = Dag(MessagesState, name=f"level_{depth}")
    names = ["there", *(["inside"] if depth > 1 else []), "back"]
    for name, language in (("there", "French"), ("back", "English")):
        agent = speaker(model, name, TRANSLATE.format(language=language))
        dag.add_node(name, agent, input_map=lambda state: {"messages": heard(state["messages"])})
    if depth > 1:
        dag.add_node("inside", build_translators(depth - 1, model))
    dag.add_edge(START, names[0])
    for source, target in zip(names, names[1:], strict=False):
        dag.add_edge(source, target)
    graph: Graph = dag.compile()
    return graph


def build_proofreading(model: BaseChatModel | None = None) -> Graph:
    """A translation, what a proofreader says of it, and the translation again."""
    dag = Dag(MessagesState, name="proofreading")
    dag.add_node("translate", speaker(model, "translate", TRANSLATE.format(language="French")))
    dag.add_node("proofread", speaker(model, "proofread", PROOFREAD))
    dag.add_node("revise", speaker(model, "revise", REVISE))
    dag.add_edge("translate", "proofread")
    dag.add_edge("proofread", "revise")
    graph: Graph = dag.compile()
    return graph


def extract(messages: list[AnyMessage]) -> str:
    """The paper's extractor: what stands first between the two marks."""
    found = re.search("<expert>(.*?)</expert>", messages[-1].text, flags=re.DOTALL)
    return (found[1].strip() if found else "") or "No match found."


def switch(state: MessagesState) -> Literal["extract", "__end__"]:
    """The paper's switch: the answer goes to the parent, a question to an expert."""
    return "__end__" if "FINAL ANSWER" in state["messages"][-1].text else "extract"


def build_meta_prompting(model: BaseChatModel | None = None, max_rounds: int = 8) -> Graph:
    """A model that asks experts until it knows the answer.

    Args:
        model: the chat model of both; by default a scripted one.
        max_rounds: how often it may ask; more is a `BoundError`.
    """
    loop = CyclicGraph(MessagesState, name="meta_prompting", max_rounds=max_rounds)
    loop.add_node("meta", speaker(model, "meta", META))
    loop.add_node("extract", extract)
    expert = speaker(model, "expert", EXPERT)
    loop.add_node("expert", expert, input_map=lambda state: {"messages": heard(state["messages"])})
    loop.add_edge(START, "meta")
    loop.add_conditional_edges("meta", switch, ["extract", END])
    loop.add_edge("extract", "expert")
    loop.add_edge("expert", "meta")
    graph: Graph = loop.compile()
    return graph


def scripted(messages: list[BaseMessage]) -> str:
    """The words of the scripted model, by its instruction."""
    instruction, text = messages[0].text, messages[-1].text
    if instruction == TRANSLATE.format(language="French"):
        return f"fr({text})"
    if instruction == TRANSLATE.format(language="English"):
        return text.removeprefix("fr(").removesuffix(")")
    if instruction == PROOFREAD:
        return "OK."
    if instruction == REVISE:
        return messages[-2].text
    if instruction == EXPERT:
        return "Sixteen, as two times eight is sixteen." if "times" in text else "A spider has eight legs."
    questions = ["How many legs has a spider?", "How much is two times eight?"]
    answered = sum(message.name == "expert" for message in messages)
    return "FINAL ANSWER: 16" if answered == 2 else f"<expert>{questions[answered]}</expert>"


def table(model: BaseChatModel | None = None) -> list[Claim]:
    """The countable claims: the claim, what it says, what was found.

    Args:
        model: a chat model; with a real one its words are not counted, but its calls are.
    """
    rows: list[Claim] = []
    for depth in (1, 2, 3, 8):
        said = _said(build_translators(depth, model), INPUT)
        rows.append(Claim(f"{depth} chains in each other: calls", str(2 * depth), str(len(said))))
        if model is None:
            rows.append(Claim("the text comes back as it went", INPUT, said[-1]))
    proofreading = _said(build_proofreading(model), INPUT)
    rows.append(Claim("translate, proofread, revise: calls", "3", str(len(proofreading))))
    question = "How many legs have two spiders?"
    names: list[str] = []
    last = 1
    try:
        for part in build_meta_prompting(model).stream(_input(question), stream_mode="updates"):
            names += part
    except BoundError:  # a small model may never come to an answer
        rows.append(Claim("meta-prompting: an answer", "one", "none before the bound"))
        last = 0
    asked = names.count("expert")
    claim = f"meta-prompting: calls, for each question two{' and one more' * last}"
    rows.append(Claim(claim, str(2 * asked + last), str(_models(names))))
    if model is None:
        rows.append(Claim("meta-prompting: questions", "2", str(asked)))
    return rows


def _models(names: list[str]) -> int:
    return sum(name in ("meta", "expert") for name in names)


def _input(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def _said(graph: Graph, text: str) -> list[str]:
    """What the agents at the bottom of a graph say, in order."""
    parts: Any = graph.stream(_input(text), stream_mode="updates", subgraphs=True)
    return [update["messages"][-1].text for _, part in parts for name, update in part.items() if name != "inside"]


def main(model: BaseChatModel | None = None) -> None:
    """Prints the table.

    Args:
        model: the chat model of all agents; by default a scripted one.
    """
    print_claims(table(model))


translators = build_translators()
proofreading = build_proofreading()
meta_prompting = build_meta_prompting()
graph = translators

if __name__ == "__main__":
    main(parser_with_model("graphs.agent_matrix", __doc__).parse_args().model)
