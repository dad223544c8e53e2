"""A nested desk: a report, its panel with an expert on a host, and a person."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from agentmatrix import ChatGroup, Dag, Host, RemoteAgent
from agentmatrix.chat.human import human
from agentmatrix.stops import max_turns
from tests.watch.watched_graphs import model

__all__ = ["desk", "expert", "serve"]


def expert(folder: str) -> Any:
    """Looks, and estimates when a file is there."""
    dag = Dag(name="expert")
    dag.add_node("look", lambda messages: "The bridge is 40 years old.")

    def estimate(messages: Any) -> str:
        while not Path(folder, "go").exists():
            threading.Event().wait(0.01)
        return "300 euros."

    dag.add_node("estimate", estimate)
    dag.add_edge("look", "estimate")
    return dag.compile()


def serve(folder: str, address: str = "127.0.0.1:0") -> None:
    with Host({"expert": expert(folder)}, address=address) as host:
        print(host.address, flush=True)
        host.wait()


def desk(address: str) -> Any:
    members = {
        "optimist": model("It will be quick."),
        "expert": RemoteAgent(f"{address}/expert"),
        "person": human("person"),
    }
    report = Dag(name="report")
    report.add_node("plan", lambda messages: "First the facts, then a verdict.")
    report.add_node("panel", ChatGroup(members, stop=max_turns(3)))
    report.add_edge("plan", "panel")
    return report.compile(checkpointer=InMemorySaver())
