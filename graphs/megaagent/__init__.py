"""MegaAgent: a boss recruits admins, they recruit workers, and all of them write to each other and into one workspace.

    python -m graphs.megaagent                   # the paper's countable claims, as a table
    python -m graphs.megaagent --model local     # a small real model in the scripted one's place (extra `local`)
    agentmatrix run graphs.megaagent:graph --input '{"task": "Write a program that plays Gobang."}'

The system of arXiv 2408.09955 on actors: each employee is one, and its key is the way to it, `"boss.engine.board"`.
What is the paper's, and what is our reading of it, is in docs/papers.md. An employee and its turn are in employee.py,
the prompts in prompts.toml.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.errors import GraphBubbleUp
from langgraph.graph import START
from langgraph.pregel import Pregel
from langgraph.types import Checkpointer, Command, Send

from agentmatrix import CyclicGraph, get_activation, idle

from .employee import FUNCTIONS, PROMPTS, RECENT, Employee, Turn, later
from .workspace import Workspace

__all__ = ["PROMPTS", "RECENT", "Workspace", "build", "graph", "main"]


class Firm(TypedDict, total=False):
    """What the office knows: `waiting` has the checklists of all who have ended their turn with something left to do,
    `clock` is the makespan, and `result` what the boss has noted as done."""

    task: str
    waiting: Annotated[dict[str, str], lambda old, new: {key: text for key, text in (old | new).items() if text}]
    counts: Annotated[dict[str, int], lambda old, new: dict(Counter(old) + Counter(new))]
    clock: Annotated[int, later]
    reminders: int
    is_reviewed: bool
    result: str


def recruit(key: str, message: Any) -> dict[str, Any] | None:
    """Nobody comes into being by being talked to."""
    if not isinstance(message, Mapping) or "role" not in message:
        raise LookupError("nobody of that name is your superior, your subordinate or your peer")
    return {}


def build(
    model: BaseChatModel,
    workspace: Workspace,
    *,
    checkpointer: Checkpointer = None,
    max_agents: int = 1_000,
    max_calls: int = 20,
    max_reminders: int = 10,
) -> Pregel[Any, Any, Any, Any]:
    """The firm as a graph over `Firm`.

    Args:
        model: the chat model of all employees; it has to call tools.
        workspace: the files.
        checkpointer: as in LangGraph.
        max_agents: how many may be recruited, the boss included.
        max_calls: calls of the model in a turn, after which it ends.
        max_reminders: how often the office speaks up, in a run.
    """
    bound = model.bind_tools([*FUNCTIONS.values()])

    def begin(state: Firm) -> Command[Any]:
        message = {"messages": [HumanMessage(state["task"])], "role": PROMPTS["boss"], "todo": "the task"}
        return Command(update={"reminders": 0, "is_reviewed": False}, goto=Send("staff/boss", message))

    def employee(state: Employee) -> Any:
        turn = Turn(state, workspace)
        before, said = turn.done, list[AnyMessage]()
        try:
            said = turn.work(state["messages"], bound, max_calls)
        except Exception as error:
            if isinstance(error, GraphBubbleUp) or not turn.superior:
                raise
            turn.todo, turn.done = "", before
            turn.report(f"{turn.name} is gone: {type(error).__name__}: {error}. Recruit another, or do without.")
            turn.me.dismiss(turn.me.node)
        firm: Firm = {"clock": turn.clock, "waiting": {turn.key: turn.todo}}
        if not turn.superior:
            firm["result"] = turn.done
            if turn.counts["sent"]:
                firm["is_reviewed"] = False
        elif not turn.todo and turn.done != before:
            turn.report(f"{turn.name} has finished: {turn.done}. Review it.")
        firm["counts"] = dict(turn.counts)
        own = {"todo": turn.todo, "done": turn.done, "subordinates": turn.subordinates, "clock": turn.clock}
        return [Command(update=own | {"messages": said}), Command(graph=Command.PARENT, update=firm)]

    def office(state: Firm) -> Firm:
        """Nobody is at work: who has something left to do is reminded; else the boss reviews, until it lets it be."""
        reminders, waiting = state["reminders"], state["waiting"]
        if reminders == max_reminders or (not waiting and state["is_reviewed"]):
            return {}
        for key, todo in waiting.items() or [("boss", "")]:
            text = HumanMessage(PROMPTS["remind"] + todo if todo else PROMPTS["review"], name="office")
            get_activation().send(f"staff/{key}", {"messages": [text], "clock": state["clock"]})
        return {"reminders": reminders + 1, "is_reviewed": not waiting}

    graph = CyclicGraph(Firm, name="megaagent", max_rounds=10_000)
    graph.add_actors("staff", employee, make=recruit, state=Employee, max_actors=max_agents)
    graph.add_node("office", office)
    graph.add_node("begin", begin)
    graph.add_edge(START, "begin")
    graph.add_trigger("office", idle())
    return graph.compile(checkpointer=checkpointer)


def __getattr__(name: str) -> Any:
    from .__main__ import main
    from .staff import gobang_staff

    if name == "graph":
        return build(gobang_staff(), Workspace(execute=True))
    if name == "main":
        return main
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
