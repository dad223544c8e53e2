"""The queue of a host: bounded, fair, and without a wait in a circle."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmatrix.errors import HostBusy
from agentmatrix.session.run_limiter import RunLimiter
from agentmatrix.session.run_queue import AgentSlot, QueuedRun, RunQueue


@dataclass
class Run:
    """A run that notes what it is told."""

    name: str
    places: list[int] = field(default_factory=list)
    slot: AgentSlot | None = None
    error: HostBusy | None = None
    queued: QueuedRun | None = None

    def on_place(self, place: int) -> None:
        self.places.append(place)

    def on_turn(self, slot: AgentSlot) -> None:
        self.slot = slot

    def on_refused(self, error: HostBusy) -> None:
        self.error = error


@dataclass
class Desk:
    """A queue, with a clock of its own."""

    queue: RunQueue
    now: float = 0.0

    def enter(self, agent: str, caller: str, tickets: tuple[str, ...] = (), name: str = "") -> Run:
        run = Run(name or caller)
        entered = self.queue.enter(agent, caller, tickets, run)
        if isinstance(entered, AgentSlot):
            run.slot = entered
        else:
            run.queued = entered
        return run


def desk(most_runs: int = 100, caller: int | None = None, most: int = 100, **concurrency: int) -> Desk:
    new = Desk(None)  # type: ignore[arg-type]
    new.queue = RunQueue(RunLimiter(most_runs, caller), concurrency, most, clock=lambda: new.now)
    return new


def leave(run: Run) -> None:
    assert run.slot is not None
    run.slot.leave()
    run.slot = None


def test_one_at_a_time_and_the_others_wait_in_order() -> None:
    card = desk(expert=1)
    runs = [card.enter("expert", "a", name=str(number)) for number in range(3)]
    assert [run.slot is not None for run in runs] == [True, False, False]
    assert [run.places for run in runs] == [[], [1], [2]]
    assert card.enter("hello", "a").slot is not None  # another agent waits for nobody
    leave(runs[0])
    assert runs[1].slot is not None and runs[2].places == [2, 1]
    leave(runs[1])
    assert runs[2].slot is not None and len(card.queue) == 0


def test_each_caller_in_turn_has_a_run_taken() -> None:
    card = desk(expert=1)
    active = card.enter("expert", "greedy")
    waiting = [card.enter("expert", "greedy", name=f"greedy {number}") for number in range(3)]
    waiting += [card.enter("expert", "late", name=f"late {number}") for number in range(2)]
    order = []
    while len(card.queue):
        leave(active)
        (active,) = [run for run in waiting if run.slot is not None]
        order.append(active.name)
    assert order == ["greedy 0", "late 0", "greedy 1", "late 1", "greedy 2"]
    assert waiting[3].places == [2, 1]  # behind one of the greedy caller's, not behind three


def test_the_limits_of_host_and_caller_queue_too() -> None:
    busy = desk(most_runs=2, caller=1)
    first, second = busy.enter("x", "a"), busy.enter("x", "b")
    again, third = busy.enter("x", "a"), busy.enter("x", "c")
    assert again.slot is None and third.slot is None
    leave(second)
    assert third.slot is not None and again.slot is None  # a has one still
    leave(first)
    assert again.slot is not None


def test_a_full_queue_says_when_to_come_again_and_the_greediest_makes_room() -> None:
    card = desk(most=3, expert=1)
    active = card.enter("expert", "greedy")
    card.now = 4.0
    leave(active)  # so a run takes 4 seconds
    card.enter("expert", "greedy")
    mine = [card.enter("expert", "greedy") for _ in range(3)]
    with pytest.raises(HostBusy, match="'expert' has 1 runs.*3 wait.*--max-queue.*16 s") as refused:
        card.enter("expert", "greedy")
    assert refused.value.retry_after == 16.0
    other = card.enter("expert", "other")
    assert other.slot is None and other.places == [2]
    assert [run.error is None for run in mine] == [True, True, False]
    assert mine[2].error is not None and "another caller" in str(mine[2].error)
    assert card.enter("expert", "third").slot is None
    with pytest.raises(HostBusy):  # nobody has more than one now
        card.enter("expert", "fourth")


def test_without_a_queue_a_run_is_refused_at_once() -> None:
    busy = desk(most_runs=1, most=0)
    busy.enter("x", "a")
    with pytest.raises(HostBusy, match="--max-runs; try again in about"):
        busy.enter("x", "b")


def test_who_leaves_the_queue_makes_the_others_move_up() -> None:
    card = desk(expert=1)
    active = card.enter("expert", "a")
    first, second = card.enter("expert", "b"), card.enter("expert", "c")
    assert first.queued is not None and first.queued.leave() and not first.queued.leave()
    assert second.places == [2, 1]
    leave(active)
    assert first.slot is None and second.slot is not None
    assert second.queued is not None and not second.queued.leave()


def test_a_closed_queue_refuses_all_that_wait() -> None:
    card = desk(expert=1)
    card.enter("expert", "a")
    waiting = [card.enter("expert", "b") for _ in range(3)]
    card.queue.close(lambda: HostBusy("stopping"))
    assert [str(run.error) for run in waiting] == ["stopping"] * 3 and len(card.queue) == 0


def tickets_of(run: Run, shown: tuple[str, ...] = ()) -> tuple[str, ...]:
    assert run.slot is not None
    return run.slot.tickets(shown)


def test_a_run_that_calls_its_own_agent_does_not_wait_for_itself() -> None:
    card = desk(expert=1)
    outer = card.enter("expert", "a")
    inner = card.enter("expert", "host", tickets_of(outer))
    assert inner.slot is not None
    deeper = card.enter("expert", "host", tickets_of(inner, tickets_of(outer)))
    assert deeper.slot is not None
    assert card.enter("expert", "b").slot is None
    for run in (deeper, inner, outer):
        leave(run)


def test_runs_inside_of_a_run_keep_to_the_limit_of_another_agent() -> None:
    card = desk(expert=1)
    planner = card.enter("planner", "a")
    inner = [card.enter("expert", "host", tickets_of(planner)) for _ in range(3)]
    assert [run.slot is not None for run in inner] == [True, False, False]
    leave(inner[0])
    assert inner[1].slot is not None and inner[2].slot is None


def test_a_run_that_waits_for_the_host_keeps_none_waiting_that_is_inside_of_another() -> None:
    card = desk(most_runs=2, expert=1)
    planner = card.enter("planner", "a")
    first = card.enter("expert", "a", tickets_of(planner))
    other = card.enter("planner", "a")
    waits = card.enter("planner", "a")  # for the host, of the same caller, before the next
    inner = card.enter("expert", "a", tickets_of(planner))
    assert waits.slot is None and inner.slot is None
    leave(first)
    assert inner.slot is not None and waits.slot is None
    leave(other)
    assert waits.slot is not None


def test_a_wait_in_a_circle_is_let_in() -> None:
    card = desk(planner=1, expert=1)
    planner, expert = card.enter("planner", "a"), card.enter("expert", "b")
    waits = card.enter("expert", "host", tickets_of(planner))
    assert waits.slot is None  # the expert may end
    circle = card.enter("planner", "host", tickets_of(expert))
    assert circle.slot is not None  # else each would wait for the other
    for run in (circle, expert):
        leave(run)
    assert waits.slot is not None


@given(st.data())
def test_in_any_order_no_limit_is_exceeded_and_nobody_is_forgotten(data: st.DataObject) -> None:
    limits = {"x": 1, "y": 2}
    card = desk(most_runs=4, caller=3, most=5, **limits)
    active: list[tuple[str, Run]] = []
    waiting: list[tuple[str, Run]] = []
    for _ in range(data.draw(st.integers(1, 40))):
        kind = data.draw(st.sampled_from(["enter", "enter", "leave", "quit"]))
        if kind == "enter":
            agent = data.draw(st.sampled_from(["x", "y", "z"]))
            try:
                run = card.enter(agent, data.draw(st.sampled_from("abc")))
            except HostBusy as busy:
                assert busy.retry_after is not None and busy.retry_after > 0
            else:
                (active if run.slot is not None else waiting).append((agent, run))
        elif kind == "leave" and active:
            leave(active.pop(data.draw(st.integers(0, len(active) - 1)))[1])
        elif kind == "quit" and waiting:
            _, run = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
            assert run.queued is not None and run.queued.leave()
        active += [entry for entry in waiting if entry[1].slot is not None]
        waiting = [entry for entry in waiting if entry[1].slot is None and entry[1].error is None]
        counts = {name: sum(agent == name for agent, _ in active) for name in "xyz"}
        assert all(counts[name] <= limit for name, limit in limits.items()) and len(active) <= 4
        assert len(waiting) == len(card.queue) <= 5
    while active:
        leave(active.pop()[1])
        active += [entry for entry in waiting if entry[1].slot is not None]
        waiting = [entry for entry in waiting if entry[1].slot is None]
    assert not waiting and len(card.queue) == 0
