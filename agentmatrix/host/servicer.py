"""A host as a server of the transport calls it: runs, cards and the list of agents."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from agentmatrix.card import describe, description_of
from agentmatrix.errors import HostBusy
from agentmatrix.session.checkpointer import describe_saver
from agentmatrix.session.host_run import HostRun
from agentmatrix.session.host_state import ExportedGraph, HostState
from agentmatrix.session.schema_types import describe_types
from agentmatrix.transport.admission import caller_of
from agentmatrix.transport.base import FrameReceiver, FrameStream, Peer
from agentmatrix.transport.identity import Identity
from agentmatrix.wire.v1.service_pb2 import AgentName, Card, DescribeReply, ListAgentsReply

__all__ = ["HostServicer"]

_CARD_THREADS: Final = 64
"""A card may need those of agents inside, which this host may have too; one agent has one at a time."""


class HostServicer:
    """The host, as a server of the transport calls it: on the I/O thread."""

    def __init__(self, state: HostState, descriptions: Mapping[str, str]) -> None:
        self._state, self._descriptions = state, descriptions
        self._cards = ThreadPoolExecutor(_CARD_THREADS, thread_name_prefix="agentmatrix-card")
        self._making: dict[str, Future[DescribeReply]] = {}

    def stop(self) -> None:
        """Ends the threads."""
        self._cards.shutdown(wait=False, cancel_futures=True)

    def accept(self, frames: FrameStream, peer: Peer) -> FrameReceiver:
        return HostRun(frames, self._state, caller_of(peer), peer.user)

    def describe(self, agent: str, peer: Peer) -> Future[DescribeReply]:
        # On threads of their own: a function that authorizes may block, and drawing a large graph takes seconds.
        answer: Future[DescribeReply] = Future()
        if self._state.authorization.blocks:
            asked = self._state.services.submit(self._give_card, agent, peer.user, answer)
            asked.add_done_callback(lambda done: done.cancelled() and answer.cancel())
        else:
            self._give_card(agent, peer.user, answer)
        return answer

    def _give_card(self, agent: str, user: Identity | None, answer: Future[DescribeReply]) -> None:
        """Gives the card to who may have it. Who asks while it is made gets the same: it is the same for all callers.

        Two threads may come here at once; then the card is made twice.
        """
        try:
            self._state.authorization.check(user, agent, "describe")
            exported = self._state.graph(agent, user)
            making = self._making.get(agent)
            if making is None or making.done():
                making = self._making[agent] = self._cards.submit(self._describe, agent, exported)
        except Exception as error:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
            return
        making.add_done_callback(lambda made: _pass_on(made, answer))

    def _describe(self, agent: str, exported: ExportedGraph) -> DescribeReply:
        card = {**describe(exported.graph, describe_saver, describe_types), "langgraph": self._state.version.langgraph}
        card["description"] = self._descriptions.get(agent) or card["description"]
        details = exported.codec.encode(card, "card")
        named = Card(name=card["name"], description=card["description"], details=details)
        return DescribeReply(version=self._state.version, card=named)

    def list_agents(self, peer: Peer) -> Future[ListAgentsReply]:
        if self._state.authorization.blocks:
            return self._state.services.submit(self._list, peer.user)
        future: Future[ListAgentsReply] = Future()
        try:
            future.set_result(self._list(peer.user))
        except HostBusy as error:
            future.set_exception(error)
        return future

    def _list(self, user: Identity | None) -> ListAgentsReply:
        if self._state.starting:
            raise HostBusy("the host is starting and has no agents yet; try again later")
        names = [AgentName(name=name, description=self._description(name)) for name in self._state.names_for(user)]
        return ListAgentsReply(version=self._state.version, agents=names)

    def _description(self, name: str) -> str:
        return self._descriptions.get(name) or description_of(self._state.exported[name].graph)


def _pass_on(made: Future[DescribeReply], answer: Future[DescribeReply]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    if made.cancelled():
        answer.set_exception(HostBusy("the host is stopping"))
    elif (error := made.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(made.result())
