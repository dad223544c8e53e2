"""`kill -9` of the calling process: the host has to stop its runs, and to keep nothing of them."""

from __future__ import annotations

import asyncio
import random
import signal
import time

from agentmatrix import RemoteAgent
from tests.attacks.kit import Attacks, Figures, eventually, read_log, workplace
from tests.attacks.processes import HostProcess
from tests.forked import Forked

attacks = Attacks(__doc__)
AT_ONCE = 5


def call(address: str, agent: str, log: str, naps: float) -> None:
    """The process that is killed: one run on the host."""
    remote = RemoteAgent(f"{address}/{agent}")
    given = {"log": log, "naps": naps, "done": []}
    if agent == "achain":
        asyncio.run(remote.ainvoke(given))
    else:
        remote.invoke(given)


@attacks.add("kill -9 of the parent, async graph", limit=1800, short={"kills": 2})
def async_graph(kills: int = 50) -> Figures:
    return _killed("achain", kills)


@attacks.add("kill -9 of the parent, sync graph", limit=1800, short={"kills": 2})
def sync_graph(kills: int = 50) -> Figures:
    return _killed("chain", kills)


@attacks.add("kill -9 of the parent, who might come back for a while", limit=1800, short={"kills": 1})
def lingering(kills: int = 10) -> Figures:
    return _killed("achain", kills, naps=1.0, linger=1.0)


def _killed(agent: str, kills: int, naps: float = 0.5, linger: float = 0.0) -> Figures:
    rng, late = random.Random(3), list[float]()
    runs_ended = True
    with HostProcess(linger=linger) as host:
        before = host.stats()
        for first in range(0, kills, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, kills))
            logs = [str(workplace() / f"parent-{agent}-{time.monotonic_ns()}-{number}.log") for number in numbers]
            runs_ended = _kill_callers(host, agent, logs, naps, rng, late) and runs_ended
        after = host.stats()
    # An async node is cancelled at once; a sync one ends first. The whole run would have taken longer.
    return {
        "holds": runs_ended and max(late) < 4 * naps,
        "kills": kills,
        "last_sign_after_kill_s": sorted(round(seconds, 3) for seconds in late)[-5:],
        "before": before,
        "after": after,
    }


def _kill_callers(
    host: HostProcess, agent: str, logs: list[str], naps: float, rng: random.Random, late: list[float]
) -> bool:
    """Kill one caller for each log. Returns whether their runs ended on the host."""
    callers = [Forked(call, host.address, agent, log, naps) for log in logs]
    try:
        started = all(eventually(lambda log=log: bool(read_log(log))) for log in logs)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.3))
    finally:
        killed_at = time.time()
        for caller in callers:
            with caller:
                caller.send_signal(signal.SIGKILL)
    ended = eventually(lambda: host.stats()["runs"] == 1)
    late.extend(max(at - killed_at for at, _, _ in read_log(log)) for log in logs if read_log(log))
    return started and ended


if __name__ == "__main__":
    attacks.main()
