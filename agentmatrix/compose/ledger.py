"""The ledger of one run of a `Dag`: what ran, after what, and what follows from it. Pure; knows no engine.

Whoever runs the nodes, in supersteps or without barriers, records here what each activation wrote and where it led,
and asks what is ready and what a node sees. Nothing depends on the order in which unrelated activations are recorded.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from langgraph.channels.base import BaseChannel
from langgraph.errors import InvalidUpdateError
from langgraph.types import Send

from agentmatrix.compose.entries import Entry, Item, Pending, Plan, entry_of, plain_entry
from agentmatrix.compose.folding import Fold, Write, folded, plain_keys
from agentmatrix.scheduling.topology import Topology

__all__ = ["Entry", "Ledger"]


class Ledger:
    """What has run, and what follows from it.

    Attributes:
        repeats: whether a node may follow itself.

    Args:
        topology: the graph, without cycles.
        channels: the keys of the state with their reducers.
        base: the state that the run started from, its input included, as channels keep it in a checkpoint.
        activations: what has run so far. The first one stands for START; without it no run has begun.
        called: nodes that a command from outside has called for.
    """

    repeats = False
    _kept = 1_000
    """How many states are remembered, of those that were asked for last: each may be as long as all that was said."""

    def __init__(
        self,
        topology: Topology,
        channels: Fold,
        base: Fold | None = None,
        activations: Iterable[Entry] = (),
        called: Iterable[str] = (),
    ) -> None:
        self.topology = topology
        self.channels = channels
        self._plain = plain_keys(channels)
        self._load(dict(channels) if base is None else base, activations, called)

    def _load(self, base: Fold, activations: Iterable[Entry], called: Iterable[str] = ()) -> None:
        self.base = base
        self.activations: list[Entry] = []
        self.called = list(called)
        self._by_node: dict[str, list[int]] = {}
        self._triggered: set[str] = set()
        self._outside: list[int] = []
        self._ancestors: list[int] = []
        self._keys: list[tuple[Any, ...]] = []
        self._order: list[int] = []
        self._writers: dict[str, int] = {}
        self._divisions: dict[str, list[int]] = {}
        self._undelivered: dict[tuple[int, int], Pending] = {}
        self._sent: dict[str, int] = {}
        self._names: list[str] = []
        self._folds: OrderedDict[int, Fold] = OrderedDict()
        self._done: set[str] = set()
        self._left: Sequence[str] = ()
        self._plan: Plan | None = None
        self._look_again()
        for activation in activations:
            self._append(activation)

    def copy(self) -> Self:
        """A ledger that goes on by itself from here."""
        other = type(self)(self.topology, self.channels, self.base, self.activations, self.called)
        other._folds = self._folds.copy()
        return other

    def before(self, count: int) -> tuple[Self, list[Entry]]:
        """A ledger of the first `count` activations, and those after them, if all came from outside."""
        later = self.activations[count:]
        if not later or not all(activation.outside for activation in later):
            return self.copy(), []
        calls = sum(not activation.writes and not activation.sends for activation in later)
        called = self.called[: len(self.called) - calls]
        return type(self)(self.topology, self.channels, self.base, self.activations[:count], called), [
            replace(activation, chosen=(node,)) if node else activation
            for activation, node in _with_calls(later, self.called[len(called) :])
        ]

    def replay(self, activation: Entry) -> None:
        """Let an update or a call out of `before` happen now."""
        for node in activation.chosen:
            self.call(node)
        if not activation.chosen:
            self.record(activation)

    # what has happened

    def begin(self, writes: Iterable[Write], chosen: Sequence[str] = (), sends: Sequence[Send] = ()) -> None:
        """A new run: the state so far with the input is what it starts from."""
        start = Entry(self.topology.start, (), tuple(chosen), tuple(sends))
        ways = {*self.topology.followers(start.node)}
        self._load(folded(self.final(), writes), [start], [node for node in chosen if node not in ways])

    def record(self, activation: Entry) -> None:
        """A node has run. Its causes are filled in if it has none.

        Raises:
            InvalidUpdateError: it writes a key without a reducer that an unrelated node has written too.
        """
        activation = self.checked(activation)
        self._append(activation)
        if activation.node in self.called and activation.origin is None:
            self.called.remove(activation.node)
        self._plan = None

    def checked(self, activation: Entry) -> Entry:
        """The activation with its causes, if it may be recorded.

        Raises:
            InvalidUpdateError: as `record` does.
        """
        if not activation.causes and not activation.outside:
            activation = replace(activation, causes=self.causes(activation.node, activation.origin))
        self._check_writers(activation)
        return activation

    def update(self, node: str, writes: Sequence[Write], chosen: Sequence[str], sends: Sequence[Send]) -> None:
        """Somebody outside has updated the state in the name of `node`.

        It stands for the turn of a node that has not run. Of one that has, it is an update that everything to come
        sees, and nothing runs again; only in a run that is over does the graph go on from there once more.
        """
        if node == self.topology.start and not self.unfinished():
            self.begin(writes, chosen, sends)
            return
        if not self.activations:
            self._load(self.final(), [Entry(self.topology.start, follows=False)])
        plan = self.plan()
        if node != self.topology.start and not (node in plan.done and self._of(node)):
            origin = next((p.origin for p in plan.pending if p.send.node == node), None)
            self.record(Entry(node, tuple(writes), tuple(chosen), tuple(sends), origin=origin))
        elif self.unfinished():
            self.intervene(writes, node)
        else:
            self._reopen(Entry(node, (), tuple(chosen), tuple(sends)), writes)

    def intervene(self, writes: Iterable[Write] = (), node: str = "", sends: Sequence[Send] = ()) -> None:
        """An update that is folded after everything so far, and that everything to come sees."""
        activation = Entry(node, tuple(writes), sends=tuple(sends), outside=True)
        if activation.writes or activation.sends:
            self.record(activation)

    def call(self, node: str) -> None:
        """A command from outside calls for `node`, whether or not it has run. If the run is over it goes on there."""
        if not self.activations:
            self._load(self.final(), [Entry(self.topology.start, follows=False)])
        elif not self.unfinished():
            self._load(self.final(), self._others(node))
        self._append(Entry("", outside=True))
        self.called.append(node)
        self._look_again()

    def close(self) -> None:
        """Nothing runs any more; the state stays as it is."""
        self._load(self.final(), [])

    def _reopen(self, activation: Entry, writes: Iterable[Write]) -> None:
        """Go on from a node of a run that is over: what it leads to has not run yet, the rest has."""
        self._load(folded(self.final(), writes), [*self._others(activation.node), replace(activation, causes=(0,))])

    def _others(self, node: str) -> list[Entry]:
        """What ran besides `node` and all that it leads to, for where it led; its writes are in the state."""
        again = {n for n in self.topology.nodes if node in self.topology.ancestors(n)} | {node}
        return [
            Entry(a.node, chosen=a.chosen, follows=a.follows)
            for a in self.activations
            if a.node not in again and a.origin is None and not a.outside
        ]

    # what follows from it

    def plan(self) -> Plan:
        """What may run now."""
        if self._plan is None:
            self._plan = self._planned() if self.activations else Plan()
        return self._plan

    def over(self) -> dict[str, str]:
        """The nodes that will not run any more, by name, and why."""
        plan = self.plan()
        settled = {*plan.done, self.topology.start}
        # A packet starts also a node that has run.
        others = (targets for source, targets in self.topology.choices.items() if source not in settled)
        return {node: self._why_over(node, node in plan.skipped) for node in plan.done.difference(*others)}

    def _why_over(self, node: str, skipped: bool) -> str:
        return f"{node!r} was skipped ({self.blame(node)})" if skipped else f"{node!r} has ended"

    def unfinished(self) -> bool:
        """Whether the run has begun and something is still to run."""
        return bool(self.plan().ready or self.plan().pending)

    def _planned(self) -> Plan:
        topology, done = self.topology, self._done
        pending = self._pending()
        waiting = {p.send.node for p in pending}
        ready: list[str] = []
        left: list[str] = []
        for node in self._left:
            came = done.issuperset(topology.sources[node])
            ran = node in self._triggered
            reached = node in self._reached or (came and bool(self._deliverers(node)))
            if reached:
                self._reached.add(node)
            if (reached and not ran) or node in self.called:
                ready.append(node)
            elif node not in waiting and (ran or (came and not reached)):
                done.add(node)
                continue
            left.append(node)
        self._left = left
        eager = [node for node in ready if node not in topology.deferred]
        ready = eager if eager or pending else ready
        skipped = done - self._by_node.keys()
        return Plan(tuple(ready), tuple(pending), frozenset(skipped), frozenset(done - {topology.start}))

    def _look_again(self) -> None:
        """The next plan looks at every node; others leave out what is done, which stays so unless called for."""
        self._done = {self.topology.start}
        self._reached: set[str] = set()
        self._left = self.topology.order
        self._plan = None

    def _pending(self) -> list[Pending]:
        return sorted(self._undelivered.values(), key=lambda p: (self._keys[p.origin[0]], p.origin))

    def _of(self, node: str) -> list[int]:
        return self._by_node.get(node, [])

    def _deliverers(self, node: str) -> list[int]:
        """The activations that have led to `node` by an edge."""
        return [i for source in self.topology.sources[node] for i in self._of(source) if self._leads(i, node)]

    def _leads(self, index: int, node: str) -> bool:
        activation = self.activations[index]
        always = activation.follows and node in self.topology.edges.get(activation.node, ())
        return always or node in activation.chosen

    def causes(self, node: str, origin: tuple[int, int] | None = None) -> tuple[int, ...]:
        """The activations that lead directly to the next activation of `node`."""
        if node in self.called and origin is None:
            return tuple(range(self._outside[-1] + 1)) if self._outside else (0,)
        direct = self._deliverers(node) if origin is None else [origin[0]]
        return tuple(sorted({*direct, *self._outside})) or (0,)

    def name(self, node: str, origin: tuple[int, int] | None = None) -> str:
        """What tells the next activation of `node` from all others, whatever the order in which they are recorded."""
        name = node if origin is None else f"{node}<{self._names[origin[0]]}.{origin[1]}>"
        before = sum(self.activations[i].origin == origin for i in self._of(node))
        return f"{name}#{before}" if before else name

    # what a node sees

    def final(self) -> Fold:
        """The state: everything that ran, folded in canonical order."""
        return self.fold((1 << len(self.activations)) - 1)

    def view(self, node: str, origin: tuple[int, int] | None = None) -> Fold:
        """What the next activation of `node` sees: the start of the run and its causal ancestors."""
        return self.fold(self._closed(self.causes(node, origin)))

    def seen(self, node: str, number: int | None) -> Fold:
        """What a task of `node` sees, one that the pending packet of this number has started or an edge."""
        return self.view(node, None if number is None else self.plan().pending[number].origin)

    def packet(self, number: int) -> Any:
        """What the pending packet of this number carries."""
        return self.plan().pending[number].send.arg

    def after(self, causes: Iterable[int]) -> Fold:
        """What an activation with these causes sees."""
        return self.fold(self._closed(causes))

    def delivered_to(self, node: str) -> dict[str, Item]:
        """By source, what has led to `node` by an edge or a choice."""
        items: dict[str, Item] = {}
        nodes = (i for i in self._deliverers(node) if self.activations[i].node != self.topology.start)
        for i in sorted(nodes, key=lambda i: self._keys[i]):
            source, several = self.activations[i].node, self.activations[i].origin is not None
            items[source] = Item((*items[source].entries, i) if source in items else (i,), several=several)
        return items

    def blame(self, node: str) -> str:
        """Who decided that a source is not to run."""
        ran = [source for source in self.topology.sources[node] if self._of(source)]
        for source in ran:
            if node in self.topology.choices.get(source, ()):
                return f"the router or command of {source!r} led elsewhere"
        skipped = [source for source in self.topology.sources[node] if source not in ran]
        return f"{skipped[0]!r} is skipped: {self.blame(skipped[0])}" if skipped else "nothing started it"

    def times(self, node: str) -> int:
        """How often the node has run."""
        return len(self._of(node))

    def last(self) -> str | None:
        """The node at the end of the longest chain of a run that has ended; None where there are several."""
        if self.unfinished():
            return None
        depths: list[int] = []
        for index, activation in enumerate(self.activations):
            depths.append(1 + max((depths[cause] for cause in activation.causes if cause < index), default=0))
        deepest = [i for i, depth in enumerate(depths) if depth == max(depths)]
        nodes = {self.activations[i].node for i in deepest} - {self.topology.start}
        return nodes.pop() if len(nodes) == 1 else None

    def fold(self, ancestors: int) -> Fold:
        """The state at the start of the run, folded with a set of activations: bit i stands for activation i.

        The order is canonical: topological, ties by the order of add_node, packets in Send order.
        """
        if not ancestors:
            return self.base
        if ancestors not in self._folds:
            last = next(i for i in reversed(self._order) if ancestors >> i & 1)
            before = self._folds.get(ancestors & ~(1 << last))
            some = before is None or bool(self._divisions)
            order = [i for i in self._order if ancestors >> i & 1] if some else [last]
            fold = self.base if before is None else before
            for i in order if before is None else [last]:
                fold = folded(fold, [write for write in self.activations[i].writes if write[0] not in self._divisions])
            self._folds[ancestors] = {**fold, **{key: self._divided(key, order) for key in self._divisions}}
            if len(self._folds) > self._kept:
                self._folds.popitem(last=False)
        return self._folds[ancestors]

    def _divided(self, key: str, order: Iterable[int]) -> BaseChannel[Any, Any, Any]:
        """A key that updates from outside write. They know what has run before, and what runs after sees them: so all
        before is folded before them and all after it after them, in canonical order on either side. Commands from
        outside start nodes that know all that has run, and divide every key."""
        fold: Fold = {key: self.base[key]}
        for i in sorted(order, key=lambda i: bisect_right(self._divisions[key], i)):
            fold = folded(fold, [write for write in self.activations[i].writes if write[0] == key])
        return fold[key]

    def _append(self, activation: Entry) -> None:
        index = len(self.activations)
        self._keys.append(self._key(activation))
        insort(self._order, index, key=lambda i: self._keys[i])
        self._names.append(self._name(activation))
        self._ancestors.append(self._closed(cause for cause in activation.causes if cause < index))
        self.activations.append(activation)
        self._note_ways(index, activation)
        written = {key for key, _ in activation.writes}
        for key in written:
            self._writers[key] = self._writers.get(key, 0) | 1 << index
        if activation.outside:
            for key in written if written and not activation.sends else self.channels:
                self._divisions.setdefault(key, []).append(index + 1)

    def _numbered(self, node: str) -> int:
        """Which activation of the node the next packet starts."""
        self._sent[node] = self._sent.get(node, 0) + 1
        return self._sent[node] + (node in self._triggered)

    def _key(self, activation: Entry) -> tuple[Any, ...]:
        """Its place in the canonical order."""
        rank = len(self.topology.nodes) + 1 if activation.outside else self.topology.rank[activation.node]
        sender, number = activation.origin or (-1, -1)
        return (rank, self._keys[sender] if sender >= 0 else (), number)

    def _note_ways(self, index: int, activation: Entry) -> None:
        (self._outside if activation.outside else self._by_node.setdefault(activation.node, [])).append(index)
        if activation.origin:
            self._undelivered.pop(activation.origin, None)
        elif not activation.outside:
            self._triggered.add(activation.node)
        for n, send in enumerate(activation.sends):
            self._undelivered[index, n] = Pending((index, n), send, self._numbered(send.node))
        if self._done.intersection((activation.node, *(send.node for send in activation.sends))):
            self._look_again()

    def _name(self, activation: Entry) -> str:
        """What tells it from all others, at the time when it is recorded."""
        return self.name(activation.node, activation.origin)

    def _closed(self, causes: Iterable[int]) -> int:
        ancestors = 0
        for cause in causes:
            ancestors |= 1 << cause | self._ancestors[cause]
        return ancestors

    def _check_writers(self, activation: Entry) -> None:
        if activation.outside:
            return
        keys = {key for key, _ in activation.writes} & self._plain
        ancestors = self._closed(activation.causes) if keys else 0
        for key in keys:
            if unrelated := self._writers.get(key, 0) & ~ancestors:
                other = self.activations[(unrelated & -unrelated).bit_length() - 1]
                raise InvalidUpdateError(_conflict(key, *sorted((activation.node, other.node))))

    # what a checkpoint keeps

    def plain(self) -> dict[str, Any]:
        """The ledger as plain values, without its base."""
        return {"activations": [plain_entry(a) for a in self.activations], "called": list(self.called)}

    @staticmethod
    def activations_of(plain: Mapping[str, Any]) -> list[Entry]:
        """The activations out of plain values."""
        return [entry_of(values) for values in plain["activations"]]


def _with_calls(later: Iterable[Entry], called: Iterable[str]) -> Iterator[tuple[Entry, str]]:
    """Each of the activations from outside, with the node that it calls for or nothing."""
    nodes = iter(called)
    for activation in later:
        yield activation, "" if activation.writes or activation.sends else next(nodes)


def _conflict(key: str, first: str, second: str) -> str:
    who = f"The node {first!r} writes" if first == second else f"The nodes {first!r} and {second!r} both write"
    return (
        f"At key {key!r}: Can receive only one value per step. {who} it more than once, it has no reducer, and none of "
        f"the writers comes after the other: annotate it, Annotated[type, reducer], or put an edge between them."
    )
