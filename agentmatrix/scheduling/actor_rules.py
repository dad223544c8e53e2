"""The rules of a graph with actors: each message starts its actor, one at a time and in order of arrival."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from langgraph.types import Send

from agentmatrix.scheduling.actors import Actor, Staff, address_of, split_path
from agentmatrix.scheduling.group_rules import ReplayPhase
from agentmatrix.scheduling.log import ActivationLog, Rebase
from agentmatrix.scheduling.loop_rules import LoopRules
from agentmatrix.scheduling.loop_state import LastActivation
from agentmatrix.scheduling.mailboxes import ActorMessage, Mailboxes
from agentmatrix.scheduling.rules import Delivered, NodeResult, Opening
from agentmatrix.scheduling.scheduled_activation import ScheduledActivation
from agentmatrix.scheduling.source_queues import Delivery, Numbers
from agentmatrix.scheduling.topology import Topology

__all__ = ["ActorRules"]


class ActorRules(LoopRules):
    """`LoopRules`, and actors.

    The activation of an actor is called `staff/ann#n`, where n is the number of its message. Its choice, recorded with
    the sender that has ended, is the order of the messages, and who was hired.
    """

    staff: Staff
    mailboxes: Mailboxes

    def __init__(self, topology: Topology, log: ActivationLog) -> None:
        super().__init__(topology, log)
        self.staff = Staff(topology.actors)
        self.mailboxes = Mailboxes()
        # By address, what each comes after.
        self._actor_pasts: dict[str, LastActivation] = {}
        self._called: dict[str, None] = {}
        # While choices are repeated: by sender, what it has sent; and whose messages have been told.
        self._recorded_messages: dict[str, Mapping[str, Any]] = {}
        self._told: set[str] = set()

    # opening

    def open(self, opening: Opening) -> None:
        if opening.saved is not None:
            self.mailboxes.restore(opening.saved["mailboxes"])
            self._called.update(dict.fromkeys(self.mailboxes.addresses()))
        for activation in opening.sends:
            if activation.send is not None and self._is_actor(activation.send.node):
                self.check(activation, NodeResult(sends=[activation.send]))
                self._post(activation, [activation.send], activation.ancestors, sender="")
                self.staff.release(activation.key)
        said = self.choices
        opening.sends = [a for a in opening.sends if a.send is not None and not self._is_actor(a.send.node)]
        self.choices = []
        super().open(opening)
        # Who was hired is kept, though it follows from the opening.
        self.choices = [*said, *self.choices] if self.decides else self.choices

    def remember(self, choices: Iterable[Any]) -> None:
        choices = list(choices)
        self._recorded_messages = {choice["messages"]: choice for choice in choices if "messages" in choice}
        super().remember(choice for choice in choices if "messages" not in choice)

    def _decide_all(self, looks: Iterable[str]) -> None:
        self._recorded_messages = {}
        self._told.clear()
        self._called.update(dict.fromkeys(self.mailboxes.addresses()))
        super()._decide_all(looks)

    def _is_actor(self, path: str) -> bool:
        return split_path(path)[0] in self.topology.actors

    # what has run

    def check(self, activation: ScheduledActivation, result: NodeResult) -> None:
        super().check(activation, result)
        for send in result.sends:
            if self._is_actor(send.node):
                self.staff.check(activation.key, activation.path, send.node, send.arg)

    def finish(self, activation: ScheduledActivation, bit: int, result: NodeResult) -> None:
        if activation.message is None:
            super().finish(activation, bit, result)
            return
        self._remove_at_work(activation)
        address, name = activation.node, split_path(activation.message.path)[0]
        del self.mailboxes.reading[address]
        self._times[name] = self._times.get(name, 0) + 1
        delivery = Delivery(
            activation.key,
            name,
            activation.ancestors | bit,
            activation.depth + 1,
            dict(result.writes),
            order=activation.order,
            rounds=activation.rounds,
            is_ticked=activation.is_ticked,
        )
        self._actor_pasts[address] = LastActivation(activation.key, delivery.ancestors, delivery.depth)
        if result.ends or (result.delivers and name in self.topology.ends):
            self.inputs.end()
            self.queues.drop(self.inputs.labels())
        self._send(activation, result.sends, delivery.ancestors)
        for path in result.dismisses:
            self._dismiss(path)
        self._lead([(delivery, result)])
        self._called[address] = None
        self._wave()

    def _done(self, activation: ScheduledActivation, bit: int, result: NodeResult) -> None:
        super()._done(activation, bit, result)
        for path in result.dismisses:
            self._dismiss(path)

    def _dismiss(self, path: str) -> None:
        if self.staff.dismiss(path) is not None:
            self.mailboxes.drop(address_of(path))

    def _send(self, sender: ScheduledActivation, sends: Sequence[Send], ancestors: int) -> None:
        # Sends to nodes may have to wait, while choices are repeated, and are told again.
        messages = [send for send in sends if self._is_actor(send.node)]
        if messages and sender.key not in self._told:
            self._post(sender, messages, ancestors, sender=sender.path)
        super()._send(sender, sends, ancestors)
        self.staff.release(sender.key)

    def _post(self, activation: ScheduledActivation, sends: Sequence[Send], ancestors: int, *, sender: str) -> None:
        recorded = self._recorded_messages.get(activation.key)
        if recorded is not None:
            for plain in recorded["hired"]:
                self.staff.put(Actor(*plain))
        if not self.decides:
            self._told.add(activation.key)
        numbers: list[list[int]] = []
        hired: list[list[Any]] = []
        for place, send in enumerate(sends):
            message = ActorMessage(
                send.node,
                send.arg,
                sender,
                ancestors=ancestors,
                depth=activation.depth + 1,
                rounds=activation.rounds,
                is_ticked=activation.is_ticked,
            )
            is_new = self.phase is ReplayPhase.DECIDING
            if (new := self.staff.hire(send.node, sender, is_new=is_new)) is not None:
                hired.append(new.plain())
            numbers.append(self.mailboxes.put(message, recorded["to"][place] if recorded is not None else None))
            self._called[message.address] = None
        self.choices.append({"messages": activation.key, "to": numbers, "hired": hired})

    # what starts

    def _wave(self) -> None:
        while True:
            called, self._called = self._called, {}
            for address in called:
                self._start_reading(address)
            super()._wave()
            if not self._called:
                return

    def _start_reading(self, address: str) -> None:
        if address in self.mailboxes.reading or self.inputs.ended:
            return
        message = self.mailboxes.take(address, gaps=self.decides)
        if message is None:
            return
        if (past := self._actor_pasts.get(address)) is not None:
            message.ancestors |= past.ancestors
            message.depth = max(message.depth, past.depth)
        if (actor := self.staff.get(address)) is not None:
            message.hired_by = actor.hired_by
        activation = message.activation(address)
        activation.error = self._bound_error(split_path(message.path)[0], message.rounds)
        self.mailboxes.reading[address] = activation
        self._begin(activation)

    def is_idle_due(self) -> bool:
        return not self.mailboxes and super().is_idle_due()

    # the log

    def pinned(self) -> Iterator[Delivered]:
        yield from super().pinned()
        for message in self.mailboxes:
            yield message.ancestors, message.depth

    def rebase(self, rebase: Rebase) -> None:
        super().rebase(rebase)
        self.mailboxes.rebase(rebase)
        for activation in self.mailboxes.reading.values():
            activation.message.rebase(rebase)
        for past in self._actor_pasts.values():
            past.ancestors, past.depth = rebase.bits(past.ancestors), rebase.depth(past.depth)

    def pause(self, numbers: Numbers, untracked: frozenset[str]) -> Any:
        at_work = [activation.message for activation in self.mailboxes.reading.values()]
        said = {**super().pause(numbers, untracked), "mailboxes": self.mailboxes.plain(at_work, numbers)}
        self.mailboxes.forget()
        return said

    def closed_targets(self) -> Mapping[str, str]:
        # Whoever is at work may send to any node.
        return {} if self.at_work or self.mailboxes else super().closed_targets()
