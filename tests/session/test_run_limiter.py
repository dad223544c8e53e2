"""The places of a host: of all callers, of one, and of trees of runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmatrix.errors import HostBusy
from agentmatrix.session.run_limiter import RunLimiter, RunSlot


def test_more_runs_than_there_are_places_are_refused_until_one_leaves() -> None:
    places = RunLimiter(2)
    first = places.enter("a")
    places.enter("b")
    with pytest.raises(HostBusy, match="runs 2 runs already.*--max-runs"):
        places.enter("c")
    first.leave()
    first.leave()  # twice is once
    places.enter("c")
    with pytest.raises(HostBusy):
        places.enter("d")


def test_one_caller_does_not_take_all() -> None:
    places = RunLimiter(10, 3)
    held = [places.enter("greedy") for _ in range(3)]
    with pytest.raises(HostBusy, match="3 runs of this caller.*--max-caller-runs"):
        places.enter("greedy")
    places.enter("other")
    held[0].leave()
    places.enter("greedy")


def test_a_tree_holds_its_place_at_any_depth() -> None:
    places = RunLimiter(2)
    roots = [places.enter("caller"), places.enter("caller")]
    for root in roots:
        shown = root.tickets(())
        for _ in range(5):  # each run calls the host again
            nested = places.enter("the host itself", shown)
            shown = nested.tickets(shown)
            assert nested.ticket == root.ticket and len(shown) == 1
    with pytest.raises(HostBusy):
        places.enter("caller")


def test_a_ticket_is_of_one_host_and_lasts_as_long_as_its_tree() -> None:
    here, there = RunLimiter(1), RunLimiter(1)
    root = here.enter("caller")
    far = there.enter("here", root.tickets(()))
    back = here.enter("there", far.tickets(root.tickets(())))  # over another host, and back
    assert back.ticket == root.ticket
    with pytest.raises(HostBusy):
        there.enter("stranger", ["guessed"])
    root.leave()
    other = here.enter("caller")
    with pytest.raises(HostBusy):
        here.enter("caller", root.tickets(()))  # its tree has ended
    other.leave()


def test_trees_have_a_bound_too() -> None:
    places = RunLimiter(1)
    shown = places.enter("caller").tickets(())
    for _ in range(8):
        places.enter("caller", shown)
    with pytest.raises(HostBusy, match="8 runs that are nested"):
        places.enter("caller", shown)
    assert places.most_of_all == 9


@given(st.lists(st.tuples(st.sampled_from(["enter", "nest", "leave"]), st.integers(0, 9)), max_size=60))
def test_places_are_neither_lost_nor_made(script: list[tuple[str, int]]) -> None:
    places, held = RunLimiter(3, 2), list[tuple[RunSlot, bool]]()
    for step, number in script:
        try:
            if step == "enter":
                held.append((places.enter(f"caller {number % 2}"), True))
            elif step == "nest" and held:
                place, is_root = held[number % len(held)]
                nested = places.enter("x", place.tickets(()))
                held.append((nested, nested.ticket != place.ticket))
            elif held:
                held.pop(number % len(held))[0].leave()
        except HostBusy:
            pass
        assert sum(is_root for _, is_root in held) <= 3
    for place, _ in held:
        place.leave()
    assert [places.enter("a"), places.enter("a"), places.enter("b")]
