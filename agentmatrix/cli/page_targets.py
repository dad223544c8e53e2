"""Typed targets as the graphs of the page."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from agentmatrix.cli.error_report import CommandError
from agentmatrix.cli.host_options import HostOptions
from agentmatrix.cli.resolve import resolve
from agentmatrix.cli.targets import is_remote, load_graph, split_name
from agentmatrix.errors import AgentMatrixError
from agentmatrix.ui.graph_catalog import CatalogGraph
from agentmatrix.ui.host_runs import SHARED_RUNS, HostRuns

__all__ = ["page_graphs", "shared_runs"]


def page_graphs(targets: list[str], options: HostOptions) -> list[CatalogGraph]:
    """The graphs of targets, which are loaded later.

    Args:
        targets: `[name=]module:attribute`, `path.py:attribute`, `host:port/agent`, or `host:port` for all agents there.
        options: how to connect to hosts.

    Raises:
        CommandError: two have one name.
    """
    graphs: dict[str, CatalogGraph] = {}
    for target in targets:
        for graph in _graphs(target, options):
            if graph.name in graphs:
                if not graph.is_remote:
                    raise CommandError(f"two graphs are named {graph.name!r}; name one of them: other={graph.target}")
                graph.name = f"{graph.name} at {graph.target.rpartition('/')[0]}"
            graphs[graph.name] = graph
    return list(graphs.values())


def shared_runs(targets: list[str], options: HostOptions) -> list[HostRuns]:
    """Of each target that is a whole host, the runs of its other callers, where it shares them."""
    from agentmatrix.transport import parse_target

    hosts = [target.rstrip("/") for target in targets if is_remote(target) and not parse_target(target).agent]
    return [
        HostRuns(host, partial(resolve, f"{host}/{SHARED_RUNS}", options))
        for host in hosts
        if SHARED_RUNS in options.agents(host)
    ]


def _graphs(target: str, options: HostOptions) -> Iterator[CatalogGraph]:
    from agentmatrix.transport import parse_target

    if not is_remote(target):
        name, place = split_name(target)
        yield CatalogGraph(name, place, partial(load_graph, place))
        return
    agent = parse_target(target).agent
    if agent:
        yield CatalogGraph(agent, target, partial(resolve, target, options), is_remote=True)
        return
    try:
        agents = options.agents(target)
    except AgentMatrixError as error:
        raise CommandError(f"{target} does not tell its agents: {error}") from None
    for name in agents:
        if name == SHARED_RUNS:
            continue
        whole = f"{target.rstrip('/')}/{name}"
        yield CatalogGraph(name, whole, partial(resolve, whole, options), is_remote=True)
