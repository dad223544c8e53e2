"""A live run whose listener is on another host; parent or host is killed. Each acknowledged signal counts once."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

from langgraph.graph import START, StateGraph

from agentmatrix import RemoteAgent
from tests.attacks.hosted import State
from tests.attacks.kit import Attacks, Figures, eventually, read_log, workplace
from tests.attacks.live_processes import Life, is_finished, listener, run_live, saver_at, signals_kept, wait_for
from tests.attacks.processes import HostProcess

attacks = Attacks(__doc__)
WRONG = ("hung", "unfinished", "lost", "twice", "out of order")


def listeners() -> dict[str, Any]:
    """The graphs of the host."""
    return {"listener": listener()}


def run_parent(address: str, base: str, durability: str, first: int, last: int) -> None:
    """One life of the parent."""
    builder = StateGraph(State).add_node("panel", RemoteAgent(f"{address}/listener", connect_timeout=20))
    graph = builder.add_edge(START, "panel").compile(checkpointer=saver_at(f"{base}.db"))
    run_live(graph, "panel/audio", base, durability, range(first, last))


@attacks.add("parent or host of a live run killed, durability sync", limit=1800, short={"kills": 2})
def sync_live(kills: int = 50) -> Figures:
    return _killed("sync", kills)


@attacks.add("parent or host of a live run killed, durability async", limit=1800, short={"kills": 2})
def async_live(kills: int = 50) -> Figures:
    return _killed("async", kills)


def _killed(durability: str, kills: int) -> Figures:
    rng, counts = random.Random(4), Counter[str]()
    host = HostProcess(listeners)
    try:
        while counts["kills"] < kills:
            base = str(workplace() / f"live-remote-{time.monotonic_ns()}")
            for number in range(min(rng.randrange(1, 4), kills - counts["kills"])):
                host = _one_life(host, base, durability, 1000 * number, rng, counts)
                if is_finished(base):
                    break
            if not is_finished(base):
                with Life(run_parent, host.address, base, durability, 0, 0) as life:
                    counts["hung"] += not wait_for(life)
            counts["unfinished"] += not is_finished(base)
            counts.update(signals_kept(base) if is_finished(base) else {})
    finally:
        host.kill()
    return {"holds": not any(counts[what] for what in WRONG), "counts": counts}


def _one_life(
    host: HostProcess, base: str, durability: str, first: int, rng: random.Random, counts: Counter[str]
) -> HostProcess:
    """A life of the parent in which it, or its host, is killed. Returns the host that goes on."""
    counts["kills"] += 1
    with Life(run_parent, host.address, base, durability, first, first + 300) as life:
        heard = len(read_log(f"{base}.ack"))
        eventually(lambda: len(read_log(f"{base}.ack")) > heard)
        time.sleep(rng.uniform(0.0, 0.5))
        if counts["kills"] % 2:
            counts["parents killed"] += 1
            life.kill()
            return host
        counts["hosts killed"] += 1
        host.kill()
        counts["hung"] += not wait_for(life)
        return HostProcess(listeners, port=host.port)


if __name__ == "__main__":
    attacks.main()
