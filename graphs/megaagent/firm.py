"""The firm: a boss who recruits, whoever is recruited and may recruit, and an office that looks after them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.errors import GraphBubbleUp
from langgraph.graph import START
from langgraph.pregel import Pregel
from langgraph.types import Checkpointer, Command, Send

from agentmatrix import CyclicGraph, get_activation, idle
from agentmatrix.errors import SendError

from .employee import Employee, later, take_turn
from .functions import FUNCTIONS, Turn
from .workspace import Workspace

BOSS = "You lead a firm. Recruit admins with add_agent, give each a part of the task, and wait for what they report."
REMIND = "Others have forgotten you. Remind them, or go on. Your checklist still says: "
REVIEW = "Nobody has anything left to do. Review the files: talk to whoever has to mend something, or terminate."


def merged(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """The reducer of checklists: an empty one is forgotten."""
    return {key: text for key, text in (old | new).items() if text}


def summed(old: dict[str, int], new: dict[str, int]) -> dict[str, int]:
    """The reducer of counts."""
    return old | {key: old.get(key, 0) + count for key, count in new.items()}


class Firm(TypedDict, total=False):
    """What the office knows.

    Attributes:
        task: for the boss.
        waiting: by key, the checklists of those who have ended their turn with something left to do.
        counts: of calls of the model, of each function, of conflicts, refusals and format errors.
        clock: the calls of models on the longest chain of messages: the makespan.
        reminders: how often the office has spoken up.
        is_reviewed: whether the boss has nothing to say against the files as they are.
        result: what the boss has noted as done.
    """

    task: str
    waiting: Annotated[dict[str, str], merged]
    counts: Annotated[dict[str, int], summed]
    clock: Annotated[int, later]
    reminders: int
    is_reviewed: bool
    result: str


def recruit(key: str, message: Any) -> dict[str, Any]:
    """Nobody comes into being by being talked to."""
    if not isinstance(message, Mapping) or "role" not in message:
        raise LookupError("nobody of that name is your superior, your subordinate or your peer")
    return {}


def begin(state: Firm) -> Command[Any]:
    """The boss is given the task."""
    message = {"messages": [HumanMessage(state["task"])], "role": BOSS, "todo": "the task"}
    return Command(update={"reminders": 0, "is_reviewed": False}, goto=Send("staff/boss", message))


def build(
    model: BaseChatModel,
    workspace: Workspace,
    *,
    checkpointer: Checkpointer = None,
    max_agents: int = 1_000,
    max_calls: int = 20,
    max_retries: int = 30,
    max_reminders: int = 10,
) -> Pregel[Any, Any, Any, Any]:
    """The firm as a graph over `Firm`.

    Args:
        model: the chat model of all employees; it has to call tools.
        workspace: the files.
        checkpointer: as in LangGraph.
        max_agents: how many may be recruited, the boss included.
        max_calls: calls of the model in a turn.
        max_retries: answers without a function call in a turn, after which it ends.
        max_reminders: how often the office speaks up, in a run.
    """
    bound = model.bind_tools([*FUNCTIONS.values()])

    def employee(state: Employee) -> Any:
        me = get_activation()
        done = state.get("done", "")
        turn = Turn(me, workspace, state["todo"], done, state.get("clock", 0), state.get("subordinates", []))
        key, superior, name = turn.near
        said: list[AnyMessage] = []
        try:
            said = take_turn(state, turn, bound, max_calls, max_retries)
        except GraphBubbleUp:
            raise
        except Exception as error:
            if not superior:
                raise
            turn.todo, turn.done = "", done
            turn.report(f"{name} is gone: {type(error).__name__}: {error}. Recruit another, or do without.")
            me.dismiss(me.node)
        firm: Firm = {"clock": turn.clock, "waiting": {key: turn.todo}}
        if turn.counts["sent"] and not superior:
            firm["is_reviewed"] = False
        if not turn.todo and turn.done != done and superior:
            turn.report(f"{name} has finished: {turn.done}. Review it.")
        elif not superior:
            firm["result"] = turn.done
        firm["counts"] = dict(turn.counts)
        own = {"messages": said, "todo": turn.todo, "done": turn.done, "clock": turn.clock}
        return [Command(update=own | {"subordinates": turn.recruited}), Command(graph=Command.PARENT, update=firm)]

    def office(state: Firm) -> Firm:
        """Nobody is at work: who has something left to do is reminded; else the boss reviews, until it lets it be."""
        reminders, waiting = state.get("reminders", 0), state.get("waiting", {})
        if reminders == max_reminders or (not waiting and state.get("is_reviewed")):
            return {}
        gone: dict[str, str] = {}
        for key, text in ({key: REMIND + todo for key, todo in waiting.items()} or {"boss": REVIEW}).items():
            try:
                message = {"messages": [HumanMessage(text, name="office")], "clock": state.get("clock", 0)}
                get_activation().send(f"staff/{key}", message)
            except SendError:
                gone[key] = ""
        return {"reminders": reminders + 1, "waiting": gone, "is_reviewed": not waiting}

    graph = CyclicGraph(Firm, name="megaagent", max_rounds=10_000)
    graph.add_actors("staff", employee, make=recruit, state=Employee, max_actors=max_agents)
    graph.add_node("office", office)
    graph.add_node("begin", begin)
    graph.add_edge(START, "begin")
    graph.add_trigger("office", idle())
    return graph.compile(checkpointer=checkpointer)
