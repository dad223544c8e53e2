"""Signals reach who declares them: none is lost, none is answered twice, and those of one address keep their order."""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import CancelledError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from agentmatrix.errors import SignalError
from agentmatrix.live.signal_router import ClosedTargets, PendingSignal, SignalRouter, node_path


class Taker:
    """Keeps what it is given, and answers when the test says so."""

    def __init__(self, *path: str, names: tuple[str, ...] | None = ("audio",)) -> None:
        self.path = path
        self.names = None if names is None else frozenset(names)
        self.given: list[PendingSignal] = []
        self.closed = 0

    def receive(self, sent: PendingSignal) -> None:
        self.given.append(sent)

    def close(self) -> None:
        self.closed += 1

    def values(self) -> list[object]:
        return [sent.value for sent in self.given]


class Eager(Taker):
    """Takes at once, on whatever thread, until it leaves."""

    def __init__(self, *path: str, names: tuple[str, ...] | None = ("audio",)) -> None:
        super().__init__(*path, names=names)
        self._here = threading.Lock()
        self._gone = False

    def receive(self, sent: PendingSignal) -> None:
        with self._here:
            if not self._gone:
                super().receive(sent)
                sent.acknowledge()

    def leave(self, router: SignalRouter) -> None:
        with self._here:
            self._gone = True
        router.detach(self)


def test_a_signal_waits_for_who_declares_it_and_is_taken_when_that_says_so() -> None:
    router, taker = SignalRouter(), Taker()
    sent = [router.send("audio", number) for number in range(3)]
    router.attach(taker)
    assert taker.values() == [0, 1, 2] and not sent[0].done()
    taker.given[1].acknowledge()
    taker.given[1].refuse(ValueError("too late"))
    assert [future.done() for future in sent] == [False, True, False] and sent[1].result() is None


def test_the_answer_is_told_before_the_receiver_goes_on() -> None:
    router, told = SignalRouter(), list[str]()

    class Busy(Taker):
        def receive(self, sent: PendingSignal) -> None:
            sent.acknowledge()
            told.append("goes on")

    router.attach(Busy())
    router.send("audio", 1, on_answer=lambda future: told.append("taken"))
    assert told == ["taken", "goes on"]


def test_addresses() -> None:
    router = SignalRouter()
    root, panel, text, remote = Taker(), Taker("panel"), Taker("panel", names=("text",)), Taker("box", names=None)
    for taker in (root, panel, text, remote):
        router.attach(taker)
    for address in ("audio", "panel/audio", "panel/text", "box/audio", "box/deep/audio", "panel/deep/audio", "text"):
        router.send(address, address)
    assert root.values() == ["audio"] and panel.values() == ["panel/audio"] and text.values() == ["panel/text"]
    assert remote.values() == ["box/audio", "box/deep/audio"]


def test_who_names_a_signal_goes_before_who_takes_all_and_the_first_before_the_second() -> None:
    router = SignalRouter()
    takers = [Taker("x", names=None), Taker("x"), Taker("x")]
    for taker in takers:
        router.attach(taker)
    router.send("x/audio", 1)
    assert [taker.values() for taker in takers] == [[], [1], []]
    router.detach(takers[1])
    assert [taker.values() for taker in takers] == [[], [1], [1]]


def test_what_an_ended_receiver_never_answered_waits_for_the_next() -> None:
    router, first, second = SignalRouter(), Taker(), Taker()
    router.attach(first)
    futures = [router.send("audio", number) for number in range(4)]
    first.given[1].acknowledge()
    router.detach(first)
    futures.append(router.send("audio", 4))
    router.attach(second)
    assert second.values() == [0, 2, 3, 4]
    for sent in second.given:
        sent.acknowledge()
    assert all(future.result(0) is None for future in futures)


def test_after_the_input_was_closed() -> None:
    router, early, late = SignalRouter(), Taker(), Taker("panel")
    router.attach(early)
    waiting = router.send("panel/audio", 1)
    router.close()
    router.close()
    with pytest.raises(SignalError, match="closed"):
        router.send("audio", 2).result(0)
    router.attach(late)
    assert (early.closed, early.values(), late.closed, late.values()) == (1, [], 1, [1])
    late.given[0].acknowledge()
    assert waiting.done() and router.closed


def test_after_the_run_has_ended() -> None:
    router, failure = SignalRouter(), ValueError("broken")
    router.attach(Taker())
    futures = [router.send("audio", 1), router.send("panel/audio", 2)]
    router.end(failure)
    router.end(SignalError("again"))
    for future in (*futures, router.send("audio", 3)):
        with pytest.raises(SignalError, match="was not taken: the run has failed with ValueError") as caught:
            future.result(0)
        assert caught.value.__cause__ is failure


def test_a_signal_that_waits_can_be_withdrawn() -> None:
    router, taker = SignalRouter(), Taker()
    future = router.send("audio", 1)
    assert future.cancel()
    router.attach(taker)
    assert taker.values() == []
    with pytest.raises(CancelledError):
        future.result(0)


def test_a_run_inside_of_another_has_addresses_of_its_own() -> None:
    router, taker = SignalRouter(root=("outer",)), Taker("outer", "panel")
    router.attach(taker)
    router.send("panel/audio", 1, id="mine")
    assert taker.given[0].id == "mine" and taker.given[0].address == "outer/panel/audio"


@pytest.mark.parametrize(
    ("namespace", "path"),
    [("", ()), ("panel:1ab", ("panel",)), ("panel:1ab|2|x:9cd", ("panel", "x")), ("panel|x:9cd", ("panel", "x"))],
)
def test_the_path_of_a_namespace(namespace: str, path: tuple[str, ...]) -> None:
    assert node_path(namespace) == path


ADDRESSES = ["audio", "text", "panel/audio", "panel/text", "panel/deep/audio"]
PLACES: list[tuple[tuple[str, ...], tuple[str, ...] | None]] = [
    ((), ("audio",)),
    ((), ("text", "audio")),
    (("panel",), ("audio", "text")),
    (("panel",), None),
    (("panel", "deep"), ("audio",)),
]


class Traffic(RuleBasedStateMachine):
    """Signals, receivers and answers in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.router = SignalRouter()
        self.futures: list[tuple[str, object]] = []
        self.takers: list[Taker] = []
        self.taken: list[PendingSignal] = []
        self.said: dict[ClosedTargets, set[str]] = {}
        self.vain: set[str] = set()

    attached = Bundle("attached")
    working = Bundle("working")

    @rule(address=st.sampled_from(ADDRESSES))
    def send(self, address: str) -> None:
        self.futures.append((address, self.router.send(address, len(self.futures))))

    @rule(target=attached, place=st.sampled_from(PLACES))
    def attach(self, place: tuple[tuple[str, ...], tuple[str, ...] | None]) -> Taker:
        taker = Taker(*place[0], names=place[1])
        self.takers.append(taker)
        self.router.attach(taker)
        return taker

    @rule(taker=attached, number=st.integers(0, 5))
    def answer(self, taker: Taker, number: int) -> None:
        open_ones = [sent for sent in taker.given if not sent.future.done()]
        if number < len(open_ones):
            open_ones[number].acknowledge()
            self.taken.append(open_ones[number])

    @rule(taker=consumes(attached))
    def detach(self, taker: Taker) -> None:
        self.router.detach(taker)
        self.takers.remove(taker)

    @rule(target=working, path=st.sampled_from([(), ("panel",), ("panel", "deep")]))
    def works(self, path: tuple[str, ...]) -> ClosedTargets:
        settled = self.router.track(path)
        self.said[settled] = set()
        return settled

    @rule(settled=working, names=st.sets(st.sampled_from(["panel", "deep", "audio"]), max_size=2))
    def tells(self, settled: ClosedTargets, names: set[str]) -> None:
        self.said[settled] = names
        self.vain.update(address for address in ADDRESSES if self.is_vain(address))
        settled.update(dict.fromkeys(names, "it has ended"))

    @rule(settled=consumes(working))
    def works_no_more(self, settled: ClosedTargets) -> None:
        self.forget(settled)

    def forget(self, settled: ClosedTargets) -> None:
        """What a graph has said holds no more; now the others at its path may agree that a signal waits in vain."""
        del self.said[settled]
        self.vain.update(address for address in ADDRESSES if self.is_vain(address))
        settled.remove()

    def is_vain(self, address: str) -> bool:
        """Whether all graphs at work somewhere on the way say that nobody takes it any more."""
        names = address.split("/")
        ways = {depth: [said for s, said in self.said.items() if s.path == (*names[:depth],)] for depth in (0, 1, 2)}
        return any(ways[d] and all(name in said for said in ways[d]) for d, name in enumerate(names))

    @rule()
    def close(self) -> None:
        self.router.close()

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        held = {sent.value for taker in self.takers for sent in taker.given}
        waiting = [a for n, (a, future) in enumerate(self.futures) if n not in held and not future.done()]  # type: ignore[attr-defined]
        assert not any(self.is_vain(address) for address in waiting)

    @invariant()
    def each_is_with_one_receiver_in_order(self) -> None:
        held: dict[int, int] = defaultdict(int)
        for taker in self.takers:
            by_address: dict[str, list[int]] = defaultdict(list)
            for sent in taker.given:
                by_address[sent.address].append(sent.value)
                held[sent.value] += not sent.future.done()
            assert all(values == sorted(values) or taker.closed == 0 for values in by_address.values())
        assert all(times <= 1 for times in held.values())
        assert len({sent.value for sent in self.taken}) == len(self.taken)

    def teardown(self) -> None:
        for settled in list(self.said):
            self.forget(settled)
        for taker in list(self.takers):
            self.router.detach(taker)
        for place in PLACES:
            self.router.attach(Eager(*place[0], names=place[1]))
        for address, future in self.futures:
            refused = isinstance(future.exception(0), SignalError)  # type: ignore[attr-defined]
            assert not refused or self.router.closed or address in self.vain, address


# It waits for nothing, so it cannot hang; how long its examples take depends on what else the machine does.
TestTraffic = pytest.mark.timeout(0)(Traffic.TestCase)


@settings(max_examples=30)
@given(st.integers(2, 4), st.integers(1, 40))
def test_threads_that_send_while_receivers_come_and_go(threads: int, each: int) -> None:
    router = SignalRouter()
    futures: list[list[object]] = [[] for _ in range(threads)]

    def sends(number: int) -> None:
        futures[number] = [router.send("audio", (number, value)) for value in range(each)]

    workers = [threading.Thread(target=sends, args=(number,)) for number in range(threads)]
    takers = [Eager() for _ in range(4)]
    for worker in workers:
        worker.start()
    for taker in takers[:-1]:
        router.attach(taker)
        taker.leave(router)
    router.attach(takers[-1])
    for worker in workers:
        worker.join()
    assert all(future.result(100) is None for sent in futures for future in sent)  # type: ignore[attr-defined]
    seen = [sent.value for taker in takers for sent in taker.given]
    for number in range(threads):
        assert [value for sender, value in seen if sender == number] == list(range(each))


def test_who_waits_in_vain_is_told_so() -> None:
    router, taker = SignalRouter(), Taker("team", "q")
    root, team = router.track(()), router.track(("team",))
    early, other = router.send("team/q/audio", 1), router.send("team/r/audio", 2)
    team.update({"q": "'q' has ended"})
    with pytest.raises(SignalError, match="'team/q/audio' was not taken: 'q' has ended"):
        early.result(0)
    assert isinstance(router.send("team/q/audio", 3).exception(0), SignalError)
    router.attach(taker)
    held = router.send("team/q/audio", 4)
    assert taker.values() == [4] and not held.done() and not other.done()
    router.detach(taker)
    assert isinstance(held.exception(0), SignalError)
    team.remove()
    waits = router.send("team/q/audio", 5)
    team.update({"q": "'q' has ended"})
    assert not waits.done()
    root.update({"team": "'team' was skipped"})
    assert "'team' was skipped" in str(waits.exception(0)) and "'team' was skipped" in str(other.exception(0))


def test_nobody_waits_in_vain_as_long_as_one_of_several_graphs_may_take_it() -> None:
    router = SignalRouter()
    first, second = router.track(()), router.track(())
    waits = router.send("q/audio", 1)
    first.update({"q": "'q' has ended"})
    assert not waits.done()
    second.remove()
    assert isinstance(waits.exception(0), SignalError)
