"""A host that is restarted under its callers, and one that is told to end in the middle of a run."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import grpc

from tests.attacks.hosted import released
from tests.attacks.internals import HEALTH_CHECK
from tests.attacks.kit import Attacks, Figures, Outcome, brief, eventually, read_log, within, workplace
from tests.attacks.peers import channel
from tests.attacks.processes import HostProcess

attacks = Attacks(__doc__)
NOT_SERVING = 2


@attacks.add("restart on the same port under a held RemoteAgent", limit=600, short={"restarts": 2})
def restarts(restarts: int = 8) -> Figures:
    host = HostProcess()
    down: list[str] = []
    up: list[str] = []
    try:
        remote = host.remote("quick")
        remote.invoke({})
        for _ in range(restarts):
            host.kill()
            down.append(_name(within(60, lambda: remote.invoke({}))))
            host = HostProcess(port=host.port)
            up.append(_name(within(60, lambda: remote.invoke({}))))
    finally:
        host.kill()
    holds = set(down) <= {"HostUnreachable", "HostLost"} and set(up) == {"ok"}
    return {"holds": holds, "while_down": down, "first_call_after": up}


@attacks.add("restart between two calls", short={})
def restart_between_calls() -> Figures:
    host = HostProcess()
    try:
        remote = host.remote("quick")
        remote.invoke({})
        host.kill()
        host = HostProcess(port=host.port)
        calls = [_name(within(60, lambda: remote.invoke({}))) for _ in range(2)]
    finally:
        host.kill()
    return {"holds": set(calls) == {"ok"}, "calls": calls}


@attacks.add("SIGTERM in the middle of a run", short={})
def drain() -> Figures:
    figures = _drained()
    run_ended = figures["run"] == "ok" and figures["exit"] == 0
    return {"holds": run_ended and figures["new_call"] == "HostBusy", **figures}


@attacks.add("health while a host drains", short={})
def health_while_draining() -> Figures:
    figures = _drained()
    return {"holds": figures["health"] in (NOT_SERVING, "UNAVAILABLE"), **figures}


def _drained() -> Figures:
    """A run whose host gets SIGTERM, and which ends after that."""
    log, outcomes = str(workplace() / f"drain-{time.monotonic_ns()}.log"), list[Outcome]()
    with HostProcess() as host:
        remote, other = host.remote("held"), host.remote("quick")
        run = threading.Thread(target=lambda: outcomes.append(within(90, lambda: remote.invoke({"log": log}))))
        run.start()
        eventually(lambda: bool(read_log(log)))
        host.terminate()
        drains = eventually(lambda: not within(20, lambda: other.invoke({})).is_value)
        health, new_call = _health(host.address), within(20, lambda: other.invoke({}))
        Path(released(log)).touch()
        run.join()
        code = host.wait(60)
    told = {"new_call": _name(new_call), "health": health}
    return {"run": _name(outcomes[0]), "drains": drains, **told, "exit": code}


def _health(address: str) -> int | str:
    """What the standard health service says, or the code with which it refuses."""
    with channel(address) as connection:
        try:
            reply = connection.unary_unary(HEALTH_CHECK)(b"", timeout=20)
        except grpc.RpcError as error:
            return str(error.code().name)
        return int(reply[1]) if len(reply) > 1 else 0


def _name(outcome: Outcome) -> str:
    if outcome.is_value:
        return "ok"
    return type(outcome.value).__name__ if outcome.kind == "error" else brief(outcome.kind)


if __name__ == "__main__":
    attacks.main()
