"""The choice among replicas, without any I/O: fewest runs, turns, ejection and return."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agentmatrix.remote.replicas import FIRST_PAUSE, LONGEST_PAUSE, Replica, Replicas
from agentmatrix.transport.target import Target, parse_target

A, B, C = (parse_target(f"{name}:50051/x") for name in "abc")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def begun(replicas: Replicas, *avoided: Replica) -> Replica:
    replica = replicas.begin(avoided)
    assert replica is not None
    return replica


def test_the_one_with_the_fewest_runs_is_chosen_and_ties_take_turns() -> None:
    replicas = Replicas([A, B, C])
    first = [begun(replicas) for _ in range(3)]
    assert [replica.target for replica in first] == [A, B, C]
    replicas.end(first[1])
    assert begun(replicas).target == B
    for replica in first:
        replicas.end(replica)
    alone = Counter[Target]()
    for _ in range(30):
        replica = begun(replicas)
        alone[replica.target] += 1
        replicas.end(replica)
    assert set(alone.values()) == {10}


def test_a_lost_replica_gets_no_run_before_its_health_is_good() -> None:
    clock = Clock()
    replicas = Replicas([A, B], clock)
    lost = begun(replicas)
    assert replicas.eject(lost, clock.now)
    assert {begun(replicas).target for _ in range(5)} == {B}
    assert replicas.due() == []
    pauses = []
    began = clock.now
    while len(pauses) < 9:
        clock.now += 0.01
        if replicas.due():
            pauses.append(clock.now - began)
            began = clock.now
    expected = [min(FIRST_PAUSE * 2**n, LONGEST_PAUSE) for n in range(9)]
    assert all(abs(found - wanted) < 0.02 for found, wanted in zip(pauses, expected, strict=True))
    assert replicas.restore(lost) and not replicas.restore(lost)
    assert begun(replicas).target == A
    replicas.end(lost)
    clock.now += 1
    assert replicas.eject(lost, clock.now)
    clock.now += FIRST_PAUSE + 0.001
    assert replicas.due() == [lost]  # it has answered a run: the pauses begin anew


def test_news_that_are_older_than_the_return_count_no_more() -> None:
    clock = Clock()
    replicas = Replicas([A, B], clock)
    replica = begun(replicas)
    began, clock.now = clock.now, clock.now + 1
    assert replicas.eject(replica, began)
    assert not replicas.eject(replica, began)  # 64 runs are lost at once: one ejection
    clock.now += 1
    assert replicas.restore(replica)
    assert not replicas.eject(replica, began)
    assert replicas.eject(replica, clock.now)


def test_a_run_that_a_draining_replica_still_ends_does_not_restore_it() -> None:
    clock = Clock()
    replicas = Replicas([A, B], clock)
    draining, began = begun(replicas), clock.now
    clock.now += 1
    replicas.eject(draining, clock.now)
    clock.now += 1
    assert not replicas.restore(draining, began)
    assert replicas.restore(draining, clock.now)


def test_where_all_are_ejected_runs_are_tried_all_the_same() -> None:
    clock = Clock()
    replicas = Replicas([A, B], clock)
    for replica in replicas.all():
        replicas.eject(replica, clock.now)
        clock.now += 0.1
    first = begun(replicas)
    second = begun(replicas, first)
    assert {first.target, second.target} == {A, B}
    assert replicas.begin([first, second]) is None


def test_a_busy_replica_comes_after_the_others_for_a_while() -> None:
    clock = Clock()
    replicas = Replicas([A, B], clock)
    busy = begun(replicas)
    replicas.end(busy, answered=False)
    replicas.note_busy(busy, 2.0)
    assert [begun(replicas).target for _ in range(3)] == [B, B, B]
    clock.now += 2.1
    assert begun(replicas).target == A


def test_what_concerns_a_run_goes_where_it_is() -> None:
    replicas = Replicas([A, B, C])
    _, second = begun(replicas), begun(replicas)
    replicas.enter_thread(second, "7")
    for _ in range(3):
        found = replicas.begin((), "7")
        assert found is second
    replicas.leave_thread(second, "7")
    assert begun(replicas).target == C and not second.threads


def test_new_targets_keep_what_is_known_of_the_old_ones() -> None:
    clock = Clock()
    replicas = Replicas([A, B], clock)
    replica = begun(replicas)
    replicas.eject(replica, clock.now)
    replicas.update([A, C, C])
    assert [(status.target, status.state, status.runs) for status in replicas.status()] == [
        (str(A), "ejected", 1),
        (str(C), "ready", 0),
    ]
    replicas.update([])
    replicas.end(replica)
    assert replicas.begin() is None


@given(st.lists(st.sampled_from(["begin", "end", "eject", "restore", "wait"]), max_size=200), st.randoms())
def test_counts_hold_whatever_happens(steps: list[str], random: object) -> None:
    clock = Clock()
    replicas = Replicas([A, B, C], clock)
    running: list[Replica] = []
    for step in steps:
        known = replicas.all()
        if step == "begin":
            chosen = begun(replicas)
            healthy = [replica for replica in known if not replica.is_ejected]
            if healthy:
                assert not chosen.is_ejected
                assert chosen.runs - 1 == min(replica.runs - (replica is chosen) for replica in healthy)
            running.append(chosen)
        elif step == "end" and running:
            replicas.end(running.pop(random.randrange(len(running))))  # type: ignore[attr-defined]
        elif step == "eject":
            replicas.eject(random.choice(known), clock.now)  # type: ignore[attr-defined]
        elif step == "restore":
            replicas.restore(random.choice(known))  # type: ignore[attr-defined]
        elif step == "wait":
            clock.now += 1
            assert all(replica.is_ejected for replica in replicas.due())
        counts = Counter(replica.target for replica in running)
        assert all(replica.runs == counts[replica.target] for replica in known)
