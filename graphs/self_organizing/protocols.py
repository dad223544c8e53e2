"""The four protocols: who is asked when, and what each agent reads before it chooses a role or abstains.

Each is a `Dag` around a chat group in which every agent is asked: in order, or all at once.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from langgraph.graph import START, MessagesState
from langgraph.pregel import Pregel
from langgraph.types import Checkpointer

from agentmatrix import ChatGroup, Dag, as_agent
from agentmatrix.errors import BuildError
from agentmatrix.speakers import broadcast, round_robin

__all__ = ["PROTOCOLS", "Contribution", "build", "contributions", "role_of"]

PROTOCOLS: Final = ("coordinator", "sequential", "broadcast", "shared")
_NAMED_ONLY: Final = ("morphogenetic", "clonal", "stigmergic", "ripple")

_FORM: Final = "Answer in one sentence, in the form ROLE: WORK"
CHOOSE: Final = (
    "You are {name}, one of {n} agents with one task. Choose the role that is still lacking, and do its part. "
    f"{_FORM}. If nothing is lacking that you can do well, answer ABSTAIN."
)
INTEND: Final = "You are {name}, one of {n} agents with one task. Say which role you mean to take, as ROLE: WHY."
WORK: Final = "You are {name}, one of {n} agents with one task. Do the part that you are assigned. " + f"{_FORM}."
ASSIGN: Final = "You coordinate the agents {names}. Assign a role to each of them: one line for each, as NAME: ROLE."

Graph = Pregel[Any, Any, Any, Any]


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


def build(
    protocol: str,
    agents: Mapping[str, BaseChatModel],
    coordinator: BaseChatModel | None = None,
    checkpointer: Checkpointer = None,
) -> Graph:
    """The graph of a protocol. Each run is a task; with a checkpointer the roles are remembered on the thread.

    Args:
        protocol: one of `PROTOCOLS`.
        agents: by name, their chat models.
        coordinator: the model of the coordinator, who is none of the agents; by default that of the first one.
        checkpointer: as in LangGraph.

    Raises:
        BuildError: there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        why = "is only named by the paper, which gives no rules for it" if protocol in _NAMED_ONLY else "is unknown"
        raise BuildError(f"the protocol {protocol!r} {why}: choose one of {', '.join(PROTOCOLS)}")
    names, dag = list(agents), Dag(Tasks, name=protocol)
    if protocol == "coordinator":
        prompt = ASSIGN.format(names=", ".join(names))
        model = coordinator or next(iter(agents.values()))
        dag.add_node("coordinator", as_agent(model, name="coordinator", system_prompt=prompt), input_map=_task)
        dag.add_edge(START, "coordinator")
        _add_work(dag, _group(agents, WORK), lambda state: _assigned(state, names), after="coordinator")
    elif protocol == "broadcast":
        dag.add_node("intend", _group(agents, INTEND, is_work=False), input_map=_task)
        dag.add_edge(START, "intend")
        _add_work(dag, _group(agents, CHOOSE), _task, after="intend")
    elif protocol == "shared":
        _add_work(dag, _group(agents, CHOOSE), _with_memory)
    else:
        _add_work(dag, _group(agents, CHOOSE, in_order=True), _task)
    graph: Graph = dag.compile(checkpointer=checkpointer)
    return graph


def contributions(result: Mapping[str, Any]) -> list[Contribution]:
    """What the agents have done for the last task, in order. Who has abstained is not there."""
    said = [message for message in _task(result)["messages"] if "role" in message.additional_kwargs]
    kept = ((message, message.additional_kwargs) for message in said)
    return [{"agent": m.name, "role": k["role"], "text": m.text, "depth": k["depth"]} for m, k in kept]


def role_of(text: str) -> str:
    """The role that an agent names in front of its work; "unnamed" where it names none."""
    role, colon, _ = text.strip().partition(":")
    words = role.lower().strip(" *#-_\n").split()
    return " ".join(words) if colon and 0 < len(words) <= 6 else "unnamed"


def _group(
    agents: Mapping[str, BaseChatModel], prompt: str, *, in_order: bool = False, is_work: bool = True
) -> ChatGroup:
    """A group in which each agent is asked once."""
    members = {
        name: as_agent(model, name=name, system_prompt=prompt.format(name=name, n=len(agents)))
        for name, model in agents.items()
    }
    speaker, turns = (round_robin(), len(agents)) if in_order else (broadcast(), 1)
    note = _noted if is_work else _noted_intention
    return ChatGroup(members, speaker=speaker, max_turns=turns, reply="transcript", middleware=[note])


def _add_work(dag: Dag, group: ChatGroup, reads: Any, after: str = START) -> None:
    def kept(result: Mapping[str, Any]) -> dict[str, Any]:
        said = [message for message in result["messages"] if "role" in message.additional_kwargs]
        return {"messages": said, "memory": [{m.name: m.additional_kwargs["role"] for m in said}]}

    dag.add_node("work", group, input_map=reads, output_map=kept)
    dag.add_edge(after, "work")


def _noted(message: BaseMessage, sender: str, hearers: Sequence[str], conversation: Any) -> BaseMessage | None:
    """Middleware: who abstains says nothing; what others contribute is kept with its role."""
    if message.text.strip(" *.").upper().startswith("ABSTAIN"):
        return None
    noted = _noted_intention(message, sender, hearers, conversation)
    noted.additional_kwargs["role"] = role_of(message.text)
    return noted


def _noted_intention(message: BaseMessage, sender: str, hearers: Sequence[str], conversation: Any) -> BaseMessage:
    read = (m.additional_kwargs for m in conversation.messages)
    depth = 1 + max((kept.get("depth", 0) for kept in read if sender in kept.get("visible_to", [sender])), default=0)
    return message.model_copy(update={"additional_kwargs": {**message.additional_kwargs, "depth": depth}})


def _task(state: Mapping[str, Any]) -> dict[str, Any]:
    """The last task, and what was said since: nobody reads what others have said to earlier ones."""
    messages: list[AnyMessage] = state["messages"]
    last = max(index for index, message in enumerate(messages) if isinstance(message, HumanMessage))
    return {"messages": messages[last:]}


def _with_memory(state: Mapping[str, Any]) -> dict[str, Any]:
    """The task, and what everybody knows: who had which role in earlier tasks."""
    memory = state.get("memory") or []
    lines = [f"Task {number}: " + ", ".join(map(": ".join, roles.items())) for number, roles in enumerate(memory, 1)]
    note = HumanMessage("Roles in earlier tasks:\n" + ("\n".join(lines) or "none"), name="memory")
    return {"messages": [*_task(state)["messages"], note]}


def _assigned(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The task, and for each agent its own assignment. Whom the coordinator has forgotten has the task alone."""
    task, plan = _task(state)["messages"][0], state["messages"][-1]
    lines = [line.strip(" *-").partition(":") for line in plan.text.splitlines()]
    roles = {name.strip(" *"): role.strip(" *") for name, _, role in lines if role.strip(" *")}
    said = [
        AIMessage(roles[name], name="coordinator", additional_kwargs={"visible_to": [name], "depth": 1})
        for name in names
        if name in roles
    ]
    return {"messages": [task, *said]}
