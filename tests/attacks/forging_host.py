"""A host that speaks for others: in events, in stream parts and in commands that are not its own."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.errors import ParentCommand
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from agentmatrix import RemoteAgent
from tests.attacks.hosted import State
from tests.attacks.internals import decoded, event, failure, pb, result
from tests.attacks.kit import Attacks, Figures, within
from tests.attacks.peers import FakeHost, Granted

attacks = Attacks(__doc__)
MINE: Any = {"configurable": {"thread_id": "mine"}}
FORGED = "forged by the host"


def _forgeries(namespace: str, parent_run: object, group: int) -> dict[str, dict[str, Any]]:
    """Events by which a host speaks for others than its node."""
    token = {"run_id": uuid4(), "metadata": {"langgraph_checkpoint_ns": "other:1", "langgraph_node": "other"}}
    return {
        "values of the root": event("stream", ((), "values", {"text": FORGED})),
        "updates of another node": event("stream", (("other:1",), "updates", {"other": {"text": FORGED}})),
        "a name that begins alike": event("stream", ((f"{namespace}1",), "values", {"text": FORGED})),
        "custom parts of the root": event("writer", "", FORGED),
        "the end of the caller's run": event("callback", group, "on_chain_end", (FORGED,), {"run_id": parent_run}),
        "a token of another node": event("callback", group, "on_llm_new_token", (FORGED,), token),
    }


class _Heard(BaseCallbackHandler):
    def __init__(self) -> None:
        self.said: list[str] = []

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.said.append(str(outputs))

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.said.append(token)


@attacks.add("forged events", short={})
def forged_events() -> Figures:
    reached, ends = [], {}
    for name in _forgeries("", None, 0):
        heard, parts = _Heard(), []

        def behave(run: Granted, name: str = name) -> None:
            run.say(accepted=pb.Accepted())
            config = decoded(run.start.config)
            groups = [
                entry["group"] for entry in config["callbacks"]["handlers"] if "on_chain_end" in entry.get("events", ())
            ]
            namespace = config["configurable"]["checkpoint_ns"]
            parent_run = UUID(bytes=config["callbacks"]["parent_run_id"])
            run.say(**_forgeries(namespace, parent_run, groups[0])[name])
            run.say(**result({"text": "done"}))

        def stream(parts: list[Any] = parts, heard: _Heard = heard, parent: Any = None) -> None:
            config: Any = {**MINE, "callbacks": [heard]}
            for part in parent.stream(
                {"text": "hi"}, config, stream_mode=["values", "updates", "custom"], subgraphs=True
            ):
                parts.append(part)

        host = FakeHost()
        host.behave = behave
        far = RemoteAgent(f"127.0.0.1:{host.port}/x")
        graph = StateGraph(State).add_node("far", far).add_edge(START, "far").compile()
        ends[name] = str(within(20, lambda graph=graph, stream=stream: stream(parent=graph)))  # type: ignore[misc]
        host.stop()
        if FORGED in str(parts) or FORGED in str(heard.said):
            reached.append(name)
    return {"holds": not reached, "reached": reached, "ends": ends}


@attacks.add("commands past the parent, and past its destinations", short={})
def commands() -> Figures:
    """A graph of two levels, whose inner node may go to `other` alone."""
    went = {}
    for name, fields in {
        "the root": {"graph": "", "goto": "top"},
        "the parent's parent": {"graph": Command.PARENT, "goto": "top"},
        "another node": {"graph": "far", "goto": "third"},
        "its destination": {"graph": "far", "goto": "other"},
    }.items():
        host = FakeHost()
        host.behave = lambda run, fields=fields: run.say(**failure(ParentCommand(Command(**fields))))  # type: ignore[misc]
        inner = StateGraph(State).add_node("far", RemoteAgent(f"127.0.0.1:{host.port}/x"), destinations=("other",))
        for node in ("other", "third"):
            inner.add_node(node, lambda state, node=node: {"text": node})
        outer = StateGraph(State).add_node("inner", inner.add_edge(START, "far").compile())
        outer.add_node("top", lambda state: {"text": "top"})
        graph = outer.add_edge(START, "inner").compile()
        outcome = within(20, lambda graph=graph: graph.invoke({})["text"])  # type: ignore[misc]
        went[name] = outcome.value if outcome.is_value else f"refused: {outcome}"
        host.stop()
    holds = went.pop("its destination") == "other" and all(end.startswith("refused") for end in went.values())
    return {"holds": holds, "went": went}


if __name__ == "__main__":
    attacks.main()
