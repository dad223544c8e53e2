"""The connections that all copies of one remote agent share: one to each replica.

Any thread may use them. `_lock` guards the table of transports, which of them is the current one, and the schemas. The
card is set once and then never changes, so reading it needs no lock. The I/O thread keeps the hosts' answers as they
are; the thread that first needs the card decodes them. The codec is replaced by one that lists more classes, under the
lock; a run keeps the one that it began with.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Final

from agentmatrix.card import AgentCard
from agentmatrix.errors import AgentMatrixError, HostBusy, HostLost, HostUnreachable, ReplicaMismatch
from agentmatrix.remote.card_differences import first_difference
from agentmatrix.remote.replica_targets import ReplicaTargets
from agentmatrix.remote.replicas import Replica, Replicas
from agentmatrix.transport import connect
from agentmatrix.transport.base import Transport
from agentmatrix.transport.iothread import io_thread
from agentmatrix.transport.options import ClientOptions
from agentmatrix.transport.target import Target
from agentmatrix.wire.codec import DEFAULT_MAX_BYTES, Codec, Unlisted, types_of
from agentmatrix.wire.v1.service_pb2 import DescribeReply

__all__ = ["AgentConnection"]

_logger = logging.getLogger(__name__)

MOST_SCHEMAS: Final = 256
"""Graphs around the agent that are remembered: a process may build a new one for each of its runs."""
CARD_TIMEOUT_FACTOR: Final = 6
"""Times `connect_timeout`: how long a host may take for a card. LangGraph draws 1,000 nodes in a second."""
_OTHERS_SECONDS: Final = 1.0
"""How long the other replicas' cards are waited for when there is one: later ones are compared at their first run."""
_RESOLVE_SECONDS: Final = 30.0
"""How old an answer of the resolver, or of the DNS, may become while runs begin."""
_RESOLVE_AGAIN_SECONDS: Final = 1.0
"""How soon it is asked again after a replica was lost."""

NO_OPTIONS: Final[Mapping[Target, ClientOptions]] = {}
Answer = tuple[Replica, DescribeReply]


class AgentConnection:
    """The targets, the options, the codec and the transports of a remote agent, and its card once it is fetched."""

    def __init__(
        self,
        targets: ReplicaTargets,
        options: ClientOptions,
        allow: tuple[object, ...],
        unlisted: Unlisted = "dict",
        options_by_target: Mapping[Target, ClientOptions] = NO_OPTIONS,
    ) -> None:
        self.targets, self.allow, self.unlisted = targets, allow, unlisted
        self.given = options
        """The options as the user has given them, without what the environment adds for a target."""
        self._by_target = options_by_target
        self.options = self.options_for(targets.known[0]) if targets.known else options
        # What fails here is nothing for the host: without tracebacks.
        most = max(DEFAULT_MAX_BYTES, options.max_frame)
        self.codec = Codec(allow, max_bytes=most, unlisted=unlisted, tracebacks=False)
        self.replicas = Replicas(targets.known if targets.are_fixed else ())
        self._schemas: set[Hashable] = set()
        self._card: AgentCard | None = None
        self._described_by: Target | None = None
        self._checked: set[Replica] = set()
        self._answers: Sequence[Answer] | None = None
        self.card_refused = False
        self._requested = False
        self._seen_connection: int | None = None
        self._transports: dict[Target, Transport] = {}
        self._lock = threading.Lock()
        self._resolving: Future[None] | None = None
        self._resolved_at = self._resolve_due = -_RESOLVE_SECONDS

    def list_types_of(self, annotations: Sequence[object]) -> None:
        """Lists the classes that a state with these annotations may hold: a graph in which the agent stands has them.

        Args:
            annotations: types. Only the first call with equal ones looks into them.
        """
        known: Hashable = tuple(annotations)
        try:
            if known in self._schemas:
                return
        except TypeError:  # an annotation that has no hash
            known = repr(annotations)
            if known in self._schemas:
                return
        with self._lock:
            if len(self._schemas) >= MOST_SCHEMAS:
                self._schemas.clear()
            self._schemas.add(known)
            if new := [cls for cls in types_of(*annotations) if not self.codec.allows(cls)]:
                self.codec = self.codec.extended(new)

    # Replicas.

    @property
    def has_replicas(self) -> bool:
        """Whether there may be more than one of them."""
        return not self.targets.are_fixed or len(self.targets.known) > 1

    def options_for(self, target: Target) -> ClientOptions:
        """The options for one of the targets."""
        options = self._by_target.get(target) or self.targets.options_for(target, self.given)
        return replace(options, has_replicas=True) if self.has_replicas else options

    def transport_to(self, target: Target) -> Transport:
        """The transport to one of the targets."""
        with self._lock:
            transport = self._transports.get(target)
            if transport is None or transport.state == "closed":
                transport = connect(target, self.options_for(target))
                self._transports[target] = transport
            return transport

    @property
    def transport(self) -> Transport:
        """The transport to one of the replicas, which is not ejected if there is such a one. Waits for the resolver."""
        if (resolving := self.resolved()) is not None:
            resolving.result()
        return self.transport_to(min(self.replicas.all(), key=lambda replica: replica.is_ejected).target)

    @property
    def address(self) -> str:
        """Where the agent is, for a drawing."""
        return self.targets.known[0].address if not self.has_replicas else self.targets.url

    @property
    def state(self) -> str:
        states = [transport.state for transport in list(self._transports.values())]
        return next((state for state in ("connected", "lost", "closed") if state in states), "idle")

    def resolved(self) -> Future[None] | None:
        """What to wait for before there are replicas; None where there are. Has the resolver asked if that is due."""
        if self.targets.are_fixed:
            return None
        if self.replicas.now() >= self._resolve_due:
            self._resolve()
        return self._resolving if not len(self.replicas) else None

    def resolved_again(self) -> Future[None] | None:
        """What to wait for where no replica takes a run: there may be others. None where nobody can say more."""
        if self.targets.are_fixed:
            return None
        if self.replicas.now() - self._resolved_at >= _RESOLVE_AGAIN_SECONDS:
            self._resolve()
        return self._resolving

    def _resolve(self) -> None:
        with self._lock:
            if self._resolving is None or self._resolving.done():
                self._resolving = io_thread().run(self._ask_targets())

    async def _ask_targets(self) -> None:
        try:
            found = await self.targets.resolve()
        except AgentMatrixError as error:
            if not len(self.replicas):
                raise
            _logger.warning("the replicas of %s stay as they were: %s", self.targets, error)
            return
        finally:
            self._resolved_at = self.replicas.now()
            self._resolve_due = self._resolved_at + _RESOLVE_SECONDS
        self.replicas.update(found)
        with self._lock:
            gone = [self._transports.pop(target) for target in self._transports.keys() - set(found)]
        del gone  # their runs under way hold them, and end on them

    def eject(self, replica: Replica, since: float, why: BaseException) -> None:
        """A replica was lost, does not answer, or stops."""
        if self.replicas.eject(replica, since):
            _logger.warning("%s gets no runs for now: %s", replica.target, why)
            self._checked.discard(replica)  # it may come back with another graph
        self._resolve_due = min(self._resolve_due, self._resolved_at + _RESOLVE_AGAIN_SECONDS)

    def restore(self, replica: Replica, since: float | None = None) -> None:
        """A replica serves; see `Replicas.restore`."""
        if self.replicas.restore(replica, since):
            _logger.info("%s gets runs again", replica.target)

    def probe(self) -> None:
        """Asks ejected replicas for their health where that is due. Waits for nothing."""
        for replica in self.replicas.due():
            asked = self.transport_to(replica.target).serves(self.given.connect_timeout)
            asked.add_done_callback(lambda future, replica=replica: self._on_health(future, replica))  # type: ignore[misc]

    def _on_health(self, future: Future[bool], replica: Replica) -> None:
        if not future.cancelled() and future.exception() is None and future.result():
            self.restore(replica)

    # The card.

    @property
    def card(self) -> AgentCard | None:
        """The card; None while it is not known, or where the host's answer cannot be read."""
        answers = self._answers
        if self._card is None and answers is not None:
            self._answers = None
            try:
                self.set_card(answers)
            except AgentMatrixError as error:
                # LangGraph reads the attributes of a graph while it is built, where nothing may raise.
                _logger.warning("the card of %s cannot be read: %s", self.targets, error)
                self.card_refused = not isinstance(error, ReplicaMismatch)
        return self._card

    def describe(self) -> Future[Sequence[Answer]]:
        """Asks all replicas for their cards. Returns those that came soon.

        Raises (through the future):
            HostError: nobody gave one.
        """
        future = io_thread().run(self._describe_all())
        future.add_done_callback(self._on_described)
        return future

    async def _describe_all(self) -> Sequence[Answer]:
        if (resolving := self.resolved()) is not None:
            await asyncio.wrap_future(resolving)
        replicas = self.replicas.all()
        asking = [asyncio.ensure_future(self._ask_card(replica)) for replica in replicas]
        await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        while not any(_is_good(task) for task in asking) and not all(task.done() for task in asking):
            await asyncio.wait([task for task in asking if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        if pending := [task for task in asking if not task.done()]:
            await asyncio.wait(pending, timeout=_OTHERS_SECONDS)
        for task in asking:
            task.cancel()
        good = [task.result() for task in asking if _is_good(task)]
        if not good:
            raise _worst([task.exception() for task in asking if task.done() and not task.cancelled()])
        return good

    async def _ask_card(self, replica: Replica) -> Answer:
        began = self.replicas.now()
        try:
            return replica, await asyncio.wrap_future(self.ask_card(replica))
        except (HostUnreachable, HostLost) as error:
            if self.has_replicas:
                self.eject(replica, began, error)
            raise

    def ask_card(self, replica: Replica) -> Future[DescribeReply]:
        """Asks one replica for its card."""
        transport = self.transport_to(replica.target)
        return transport.describe(replica.target.agent, CARD_TIMEOUT_FACTOR * self.given.connect_timeout)

    def prefetch_card(self) -> None:
        """Fetches the card beside the first run, without waiting for it."""
        if self._card is None and not self._requested and not self.card_refused:
            self._requested = True
            self.describe()

    def _on_described(self, future: Future[Sequence[Answer]]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._requested = False
        else:
            self._answers = future.result()

    def note_card_failed(self, error: AgentMatrixError, seconds: float) -> None:
        """Notes that the host gave no card, which may run the agent all the same; the run says what is wrong, if it is.

        Args:
            error: what the host, or the connection, has answered.
            seconds: how long that took.

        Raises:
            HostUnreachable: nobody answered in time: a run would wait as long again.
            ReplicaMismatch: there are two agents.
        """
        if isinstance(error, ReplicaMismatch):
            raise error
        if isinstance(error, HostUnreachable) and seconds >= self.given.connect_timeout:
            raise error
        self.card_refused = not isinstance(error, (HostBusy, HostUnreachable, HostLost))

    def set_card(self, answers: Sequence[Answer]) -> None:
        """Decodes the cards in the hosts' answers, and compares them.

        Raises:
            DecodeError, ProtocolError: one is none.
            ReplicaMismatch: two differ; none is kept where none was known.
        """
        if self._card is not None and not self.has_replicas:
            return
        cards = [(replica, self._decoded(reply)) for replica, reply in answers]
        first, by = self._card, self._described_by
        for replica, card in cards:
            if first is None or by is None:
                first, by = card, replica.target
            elif (difference := first_difference(first, card)) is not None:
                raise ReplicaMismatch(
                    f"{by} and {replica.target} are to be replicas of one agent, and show different ones: {difference}"
                )
        self._card, self._described_by = first, by
        self._checked.update(replica for replica, _ in cards)

    def is_checked(self, replica: Replica) -> bool:
        """Whether a replica shows the card that is known; or whether there is none to compare with."""
        return replica in self._checked or self._card is None

    def forget_card_behind_a_loss(self) -> None:
        """Forgets the card of a single host whose connection was lost: behind the next one may be another graph."""
        if self._card is None or self.has_replicas:
            return
        transport = self.transport_to(self.targets.known[0])
        before, self._seen_connection = self._seen_connection, transport.connection
        if transport.state == "lost" or (before is not None and before != self._seen_connection):
            self.forget_card()

    def forget_card(self) -> None:
        """The next call asks for the card again: no replica shows the one that is known."""
        self._card = self._described_by = self._answers = None
        self._checked.clear()
        self._requested = False

    def _decoded(self, reply: DescribeReply) -> AgentCard:
        return AgentCard.unpack(self.codec.decode(reply.card.details, "card"))

    def close(self) -> None:
        with self._lock:
            transports, self._transports = list(self._transports.values()), {}
        for transport in transports:
            transport.close()


def _is_good(task: asyncio.Task[Answer]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _worst(errors: Sequence[BaseException | None]) -> BaseException:
    """Of the errors of all replicas, the one that says most."""
    found = [error for error in errors if error is not None]
    said = [error for error in found if not isinstance(error, HostUnreachable | HostLost)]
    return (said or found or [HostUnreachable("no replica answers")])[0]
