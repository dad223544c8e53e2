"""A compiled `Dag`: its nodes read their view of the ledger and report to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import InvalidUpdateError
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send

from agentmatrix.compose.folding import Write, folded, identified, plain_keys, unchanged, values_of
from agentmatrix.compose.ledger import Ledger
from agentmatrix.compose.views import LEDGER, Report
from agentmatrix.pregel.compiled_graph import Mapper
from agentmatrix.pregel.runnables import register_writer, runnable
from agentmatrix.pregel.task_config import failed_node, is_update, read_channel, send_index, send_writes
from agentmatrix.scheduling.topology import Topology

__all__ = ["LEDGER", "Recorded", "Reporter", "reader"]

COMMAND = "a Command"


class Recorded:
    """Writes of a task that has finished, to be applied as they are."""

    def __init__(self, writes: Sequence[Write]) -> None:
        self.writes = writes


def reader(node: str, keys: Sequence[str], coerce: Callable[[Any], Any] | None) -> Callable[[dict[str, Any]], Any]:
    """What makes the input of `node` of the ledger and the managed values that LangGraph hands over."""
    kept = list(keys)

    def view(read: dict[str, Any]) -> Any:
        ledger: Ledger = read.pop(LEDGER)
        return shaped({**values_of(ledger.seen(node, None), kept), **read}, kept, coerce)

    return view


def shaped(values: dict[str, Any], keys: Sequence[str], coerce: Callable[[Any], Any] | None) -> Any:
    """The values as a node or a router is called with them."""
    if keys == ["__root__"]:
        return values.get("__root__")
    return coerce(values) if coerce else values


class Reporter:
    """The writer of one node: writes its update as LangGraph would, follows its routers, and reports to the ledger."""

    def __init__(
        self,
        node: str,
        builder: StateGraph[Any, Any, Any, Any],
        topology: Topology,
        mappers: tuple[Mapper, Mapper],
        coerce: Mapping[type[Any], Callable[[Any], Any] | None],
    ) -> None:
        self.node = node
        self._builder = builder
        self._topology = topology
        self._update, self._control = mappers
        self._coerce = coerce
        self._plain = plain_keys(builder.channels)
        self._branches = builder.branches.get(node, {})

    def runnable(self) -> Runnable[Any, Any]:
        """What stands among the writers of the node."""
        return register_writer(runnable(self._write, self._awrite, name=f"report<{self.node}>"))

    def _write(self, answer: Any, config: RunnableConfig) -> Any:
        if isinstance(answer, Recorded):
            send_writes(config, answer.writes)
            return answer
        report, writes = self._begin(answer, config)
        for name, branch in self._branches.items():
            state = self._routed(branch, answer, report, config)
            self._choose(name, branch, branch.path.invoke(state, config), report)
        self._end(report, writes, config)
        return answer

    async def _awrite(self, answer: Any, config: RunnableConfig) -> Any:
        if isinstance(answer, Recorded):
            return self._write(answer, config)
        report, writes = self._begin(answer, config)
        for name, branch in self._branches.items():
            state = self._routed(branch, answer, report, config)
            self._choose(name, branch, await branch.path.ainvoke(state, config), report)
        self._end(report, writes, config)
        return answer

    def _begin(self, answer: Any, config: RunnableConfig) -> tuple[Report, list[Write]]:
        channels = self._builder.channels
        writes = [(key, value) for key, value in self._update(answer) or () if key in channels]
        report = Report(
            node=failed_node(config) or self.node,
            packet=send_index(config),
            update=is_update(config),
            writes=[],
            keys=[key for key, _ in writes],
            chosen=[],
            sends=[],
            follows=failed_node(config) is None,
        )
        # Updates from outside and the input mean what they say, also where they say the same again.
        given = {} if report["update"] or self.node == START else self._given(report, config)
        report["writes"] = [
            (key, identified(channels[key], value))
            for key, value in writes
            if not (key in self._plain and key in given and unchanged(value, given[key]))
        ]
        for target in _targets(self._control(answer) or ()):
            self._lead(target, COMMAND, report)
        if _goes_to_end(answer):
            self._lead(END, COMMAND, report)
        return report, writes

    def _given(self, report: Report, config: RunnableConfig) -> Mapping[str, Any]:
        """What the agent was given, key by key."""
        ledger: Ledger = read_channel(config, LEDGER)
        if report["packet"] is None:
            return values_of(ledger.seen(report["node"], None), self._plain)
        packet = ledger.packet(report["packet"])
        return packet if isinstance(packet, Mapping) else getattr(packet, "__dict__", {})

    def _routed(self, branch: Any, answer: Any, report: Report, config: RunnableConfig) -> Any:
        """What a router sees: what its node saw, and the node's own update."""
        ledger: Ledger = read_channel(config, LEDGER)
        spec = self._builder.nodes.get(self.node)
        schema = branch.input_schema or (spec.input_schema if spec else self._builder.state_schema)
        keys = list(self._builder.schemas[schema])
        fold = folded(self._before(ledger, report), report["writes"])
        managed = [key for key in keys if key in self._builder.managed]
        values = values_of(fold, [key for key in keys if key not in managed])
        if managed:
            values |= read_channel(config, managed)
        state = shaped(values, keys, self._coerce.get(schema))
        if isinstance(state, dict) and isinstance(answer, dict) and branch.input_schema is None:
            state = {**answer, **state}
        return state

    def _before(self, ledger: Ledger, report: Report) -> Any:
        if self.node == START or report["update"]:
            return ledger.final()
        return ledger.seen(report["node"], report["packet"])

    def _choose(self, name: str, branch: Any, result: Any, report: Report) -> None:
        for choice in result if isinstance(result, list | tuple) else [result]:
            target = choice if isinstance(choice, Send) or not branch.ends else branch.ends.get(choice, choice)
            self._lead(target, f"the router {name!r}", report)

    def _lead(self, target: Any, by: str, report: Report) -> None:
        if target == END:
            if self._topology.max_rounds and END not in report["chosen"] and report["node"] != START:
                report["chosen"].append(END)
            return
        goal = target.node if isinstance(target, Send) else target
        declared = self._topology.choices.get(report["node"], ())
        # The command that a run begins with comes from outside, and may call for any node. Loops may lead anywhere.
        anywhere = self._topology.max_rounds or (self.node == START and by == COMMAND)
        if goal not in (self._topology.nodes if anywhere else declared):
            raise InvalidUpdateError(
                f"{by} of the node {report['node']!r} leads to {goal!r}, which is not among the targets that it "
                "declares: name them in path_map= (or Literal[...]) of a router, in destinations= (or "
                "Command[Literal[...]]) of a node"
            )
        if isinstance(target, Send):
            report["sends"].append(target)
        elif goal not in report["chosen"]:
            report["chosen"].append(goal)

    def _end(self, report: Report, writes: Sequence[Write], config: RunnableConfig) -> None:
        send_writes(config, [(LEDGER, report), *writes])


def _goes_to_end(answer: Any) -> bool:
    """Whether a command leads to END: LangGraph, to whom that means nothing, leaves it out of the targets."""
    for part in answer if isinstance(answer, list | tuple) else (answer,):
        if isinstance(part, Command) and part.graph != Command.PARENT:
            if END in (part.goto if isinstance(part.goto, list | tuple) else (part.goto,)):
                return True
    return False


def _targets(writes: Sequence[Write]) -> list[Any]:
    return [value if isinstance(value, Send) else channel.split(":", 2)[-1] for channel, value in writes]
