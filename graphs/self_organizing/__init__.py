"""Agents that organize themselves by four protocols: they choose roles, or abstain, by what they have read of others.

    agentmatrix example self_organizing          # the countable claims of the paper, and a small experiment
    python -m graphs.self_organizing --model local
    agentmatrix run graphs.self_organizing:graph --input "Plan the move. It needs law 0.6, budget 0.4"
    agentmatrix serve graphs.self_organizing:graph

The four protocols that Dochkina specifies (arXiv 2603.28990). Each is a `Dag` around a chat group in which every agent
is asked: in order, or all at once. By default the agents are a simulation, `competence.py`; any chat models will do.
The prompts are in prompts.toml. docs/papers.md says what is the paper's, and what is our reading.
"""

from __future__ import annotations

import operator
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.graph import START, MessagesState
from langgraph.pregel import Pregel
from langgraph.types import Checkpointer

from agentmatrix import ChatGroup, Dag, as_agent
from agentmatrix.errors import BuildError
from agentmatrix.speakers import broadcast, round_robin

from .competence import simulated

__all__ = ["PROMPTS", "PROTOCOLS", "Contribution", "build", "contributions", "graph", "main", "role_of"]

PROMPTS: Final = tomllib.loads(Path(__file__).with_name("prompts.toml").read_text(encoding="utf-8"))
PROTOCOLS: Final = ("coordinator", "sequential", "broadcast", "shared")
NAMED_ONLY: Final = ("morphogenetic", "clonal", "stigmergic", "ripple")

State = Mapping[str, Any]
Team = Mapping[str, BaseChatModel]


class Tasks(MessagesState, total=False):
    """The state: `memory` has the roles of each task so far, by agent."""

    memory: Annotated[list[dict[str, str]], operator.add]


class Contribution(TypedDict):
    """What an agent has done for a task: its role, and how many agents stand in the longest chain up to it, each of
    whom has read the one before."""

    agent: str
    role: str
    text: str
    depth: int


def build(protocol: str, team: Team, checkpointer: Checkpointer = None) -> Pregel[Any, Any, Any, Any]:
    """The graph of a protocol. Each run is a task; with a checkpointer the roles are remembered on the thread.

    Args:
        protocol: one of `PROTOCOLS`.
        team: the agents by name, and a `coordinator`, who is none of them; by default the first one's model is asked.
        checkpointer: as in LangGraph.

    Raises:
        BuildError: there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        why = "is only named by the paper, which gives no rules for it" if protocol in NAMED_ONLY else "is unknown"
        raise BuildError(f"the protocol {protocol!r} {why}: choose one of {', '.join(PROTOCOLS)}")

    names = agents_of(team)

    def group(prompt: str) -> ChatGroup:
        members = {
            name: as_agent(team[name], name=name, system_prompt=PROMPTS[prompt].format(name=name, n=len(names)))
            for name in names
        }
        speaker, turns = (round_robin(), len(names)) if protocol == "sequential" else (broadcast(), 1)
        note = noted_intention if prompt == "intend" else noted
        return ChatGroup(members, speaker=speaker, max_turns=turns, reply="transcript", middleware=[note])

    dag, before, prompt = Dag(Tasks, name=protocol), START, "choose"
    reads: Callable[[State], State] = with_memory if protocol == "shared" else last_task
    if protocol == "coordinator":
        model = team.get("coordinator") or team[names[0]]
        assign = PROMPTS["assign"].format(names=", ".join(names))
        dag.add_node("coordinator", as_agent(model, name="coordinator", system_prompt=assign), input_map=last_task)
        dag.add_edge(START, "coordinator")
        before, prompt, reads = "coordinator", "work", partial(assigned, names=names)
    elif protocol == "broadcast":
        dag.add_node("intend", group("intend"), input_map=last_task)
        dag.add_edge(START, "intend")
        before = "intend"
    dag.add_node("work", group(prompt), input_map=reads, output_map=kept)
    dag.add_edge(before, "work")
    return dag.compile(checkpointer=checkpointer)


def agents_of(team: Team) -> list[str]:
    """The names of the agents: the coordinator is none of them."""
    return [name for name in team if name != "coordinator"]


def last_task(state: State) -> dict[str, Any]:
    """The last task, and what was said since: nobody reads what others have said to earlier ones."""
    messages = state["messages"]
    last = max(index for index, message in enumerate(messages) if isinstance(message, HumanMessage))
    return {"messages": messages[last:]}


def with_memory(state: State) -> dict[str, Any]:
    """The task, and what everybody knows: who had which role in earlier tasks."""
    memory = state.get("memory") or []
    lines = [f"Task {number}: " + ", ".join(map(": ".join, roles.items())) for number, roles in enumerate(memory, 1)]
    note = HumanMessage("Roles in earlier tasks:\n" + ("\n".join(lines) or "none"), name="memory")
    return {"messages": [*last_task(state)["messages"], note]}


def assigned(state: State, names: Sequence[str]) -> dict[str, Any]:
    """The task, and for each agent its own assignment. Whom the coordinator has forgotten has the task alone."""
    task, plan = last_task(state)["messages"][0], state["messages"][-1]
    lines = [re.sub(r"^[\s*#-]*(\d+[.)])?[\s*]*", "", line).partition(":") for line in plan.text.splitlines()]
    roles = {name.strip(" *").lower(): role.strip(" *") for name, _, role in lines if role.strip(" *")}
    given = [(name, roles.get(name.lower())) for name in names]
    own = ((role, {"visible_to": [name], "depth": 1}) for name, role in given if role)
    return {"messages": [task, *(AIMessage(role, name="coordinator", additional_kwargs=note) for role, note in own)]}


def noted(message: BaseMessage, sender: str, hearers: Sequence[str], conversation: Any) -> BaseMessage | None:
    """Middleware: an abstention, or an answer without words, is not kept; any other is, with its role and depth."""
    said = message.text.strip(" *.\"'\n")
    if not said or said.upper().startswith("ABSTAIN"):
        return None
    message = noted_intention(message, sender, hearers, conversation)
    message.additional_kwargs["role"] = role_of(message.text)
    return message


def noted_intention(message: BaseMessage, sender: str, hearers: Sequence[str], conversation: Any) -> BaseMessage:
    """Middleware: what is said is kept with its depth."""
    read = (m.additional_kwargs for m in conversation.messages)
    depth = 1 + max((note.get("depth", 0) for note in read if sender in note.get("visible_to", [sender])), default=0)
    return message.model_copy(update={"additional_kwargs": {**message.additional_kwargs, "depth": depth}})


def role_of(text: str) -> str:
    """The role that an agent names in front of its work; "unnamed" where it names none."""
    role, colon, _ = text.strip().partition(":")
    words = role.lower().strip(" *#-_\n").split()
    return " ".join(words) if colon and 0 < len(words) <= 6 else "unnamed"


def kept(result: State) -> dict[str, Any]:
    """What the state keeps of a task: the contributions, and the roles for the memory."""
    said = [message for message in result["messages"] if "role" in message.additional_kwargs]
    return {"messages": said, "memory": [{m.name: m.additional_kwargs["role"] for m in said}]}


def contributions(result: State) -> list[Contribution]:
    """What the agents have done for the last task, in order. Who has abstained is not there."""
    said = ((message, message.additional_kwargs) for message in last_task(result)["messages"])
    return [{"agent": m.name, "role": k["role"], "text": m.text, "depth": k["depth"]} for m, k in said if "role" in k]


def main() -> int:
    """Prints the table; returns the exit code."""
    from .__main__ import main

    return main()


graph = build("sequential", simulated(8, seed=0))
