"""Where a call of a remote agent is tried, and what follows from its failure: free of I/O but for futures to wait for.

A call that no host has begun goes to another replica at once, and again to all of them by the user's policy. One that a
host has begun and lost is never begun again from here: it goes on elsewhere from the last checkpoint that it has put
into its caller's checkpointer, or into that of all its hosts, and else fails with `HostLost`. What only reads is asked
elsewhere. Where no replica is there for what was lost, since one goes while another comes back, it waits for one.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Literal

from langgraph.errors import GraphDrained
from langgraph.types import RetryPolicy, StateSnapshot

from agentmatrix.errors import HostBusy, HostError, HostLost, HostUnreachable, ReplicaMismatch
from agentmatrix.remote.connection import AgentConnection
from agentmatrix.remote.replicas import Replica
from agentmatrix.session.caller import CallerRun
from agentmatrix.transport.resumption import ReconnectBackoff

__all__ = ["CALL_ID", "AgentCall", "CallAttempts", "CheckpointOwner", "Waiting"]

_logger = logging.getLogger(__name__)

CALL_ID: Final = "agentmatrix_call"
"""The key in the metadata of checkpoints that says of which call they are."""

_MOST_LOSSES: Final = 3
"""Replicas that a run may lose without a new checkpoint: one that kills its host must not go round among all."""
_RETURN_SECONDS: Final = 60.0
"""How long what was lost waits for a replica where `reconnect_timeout` does not say: a host may be starting again."""
_READS: Final = frozenset({"get_state", "get_state_history", "explain", "actors"})

CheckpointOwner = Literal["", "caller", "host"]
"""Whose checkpointer has what the next attempt goes on from; empty where it begins as it was called."""
Waiting = Generator["Future[Any]", Any, Any]
"""Yields what to wait for, and is sent the results."""


def _no_owner() -> CheckpointOwner:
    return ""


@dataclass(frozen=True)
class AgentCall:
    """What is called.

    Attributes:
        verb: the sync name of the verb.
        is_run: whether it runs nodes.
        thread: the thread that it is about; None without one.
        keeps: whose checkpointer keeps the agent's checkpoints, as far as that is known by now: `"caller"`, `"host"`,
            or nobody's.
        timeout: seconds for all attempts together; None is no limit.
        id: marks the checkpoints of the call in a checkpointer of the hosts; empty where they are not marked.
    """

    verb: str
    is_run: bool = False
    thread: str | None = None
    keeps: Callable[[], CheckpointOwner] = _no_owner
    timeout: float | None = None
    id: str = ""


class CallAttempts:
    """The attempts of one call.

    Args:
        connection: to the replicas.
        call: what is called.
        policy: LangGraph's, for what no host has begun; None for no second attempt at the same host.

    Attributes:
        goes_on: how the next attempt begins.
        replica: where the present one is.
    """

    def __init__(self, connection: AgentConnection, call: AgentCall, policy: RetryPolicy | None) -> None:
        self._connection, self._call, self._policy = connection, call, policy
        self._until = None if call.timeout is None else time.monotonic() + call.timeout
        self._made = self._losses = 0
        self._tried: set[Replica] = set()
        self._errors: list[HostError] = []
        self._lost: HostError | GraphDrained | None = None
        """Why the run goes on elsewhere, raised where it cannot."""
        self._return: ReconnectBackoff | None = None
        """When to try all replicas again for what was lost."""
        self._waits = False
        self._checkpoint: str | None = None
        """The last one of the call in a checkpointer of the hosts, as the last replica has said."""
        self._began = 0.0
        self.goes_on: CheckpointOwner = ""
        self.replica: Replica | None = None

    def left(self) -> float | None:
        """Seconds that the next attempt may take."""
        return None if self._until is None else max(0.001, self._until - time.monotonic())

    def choose(self) -> Waiting:
        """Chooses the replica of the next attempt, which counts as a run there until `end`.

        Raises:
            HostError: there is none, or it gives no card; goes to `after`.
        """
        connection, call = self._connection, self._call
        if (resolving := connection.resolved()) is not None:
            yield resolving
        if connection.has_replicas:
            connection.probe()
        self._began = connection.replicas.now()
        thread = None if call.is_run else call.thread
        self.replica = replica = connection.replicas.begin(self._tried, thread)
        if replica is None and (resolving := connection.resolved_again()) is not None:
            yield resolving
            self.replica = replica = connection.replicas.begin(self._tried, thread)
        if replica is None:
            raise self._of_all()
        if call.is_run and call.thread is not None:
            connection.replicas.enter_thread(replica, call.thread)
        if connection.has_replicas and not connection.is_checked(replica):
            try:
                reply = yield connection.ask_card(replica)
            except HostLost as error:  # of that call; the run was not sent
                raise HostUnreachable(str(error)) from None
            connection.set_card([(replica, reply)])

    def end(self, run: CallerRun | None) -> None:
        """The attempt has ended, with this run, if it came to one."""
        replica, self.replica = self.replica, None
        if replica is not None:
            answered = run is not None and run.ended_by not in ("refused", "lost")
            self._connection.replicas.end(replica, answered=answered)
            if answered and run is not None and not run.ended_by:
                self._connection.restore(replica, self._began)
            if self._call.is_run and self._call.thread is not None:
                self._connection.replicas.leave_thread(replica, self._call.thread)

    def after(
        self, error: HostError | GraphDrained, run: CallerRun | None, advanced: bool | None, *, has_parts: bool
    ) -> float:
        """Seconds until the next attempt.

        Args:
            error: what the attempt has ended with. Called before `end`.
            run: the run; None where it did not come to one.
            advanced: where it was lost, whether it has left a later checkpoint in its caller's checkpointer; None where
                nobody can tell.
            has_parts: whether its reader has had parts of its stream.

        Raises:
            HostError, GraphDrained: there is no further attempt.
        """
        if error is self._lost:
            raise error
        by = "refused" if run is None else run.ended_by
        if by == "refused" and isinstance(error, HostError) and not has_parts:
            return self._after_refusal(error)
        if not by or self.replica is None or not self._connection.has_replicas:
            raise error
        self._connection.eject(self.replica, self._began, error)
        if self._call.verb in _READS and not has_parts and isinstance(error, HostError):
            return self._elsewhere(error)
        if not self._call.is_run:
            raise error
        keeps = self._call.keeps()
        if keeps == "caller" and advanced is not None:
            if advanced:
                self.goes_on = "caller"
        elif keeps == "host" and self._call.id:
            self.goes_on = "host"  # if the next replica has its checkpoints
        else:
            raise error
        if by != "drained":
            self._losses = 1 if advanced else self._losses + 1
        if self._losses >= _MOST_LOSSES:
            error.add_note(f"It was lost at {self._losses} replicas, one after the other, and saved nothing new there.")
            raise error
        return self._elsewhere(error)

    def goes_elsewhere(self, run: CallerRun) -> bool:
        """Whether a run would go on at another replica if it were lost where it is."""
        if not self._call.is_run:
            return self._call.verb in _READS
        keeps = self._call.keeps()
        return run.began_from is not None if keeps == "caller" else keeps == "host" and bool(self._call.id)

    def is_lost(self, run: CallerRun | None) -> bool:
        """Whether `advanced` of `after` is asked for."""
        return run is not None and run.ended_by in ("lost", "stopped", "drained") and self._call.keeps() == "caller"

    def check_goes_on(self, state: StateSnapshot) -> None:
        """Raises what has ended the run, where the next replica has no checkpoint of it."""
        lost, replica = self._lost, self.replica
        if lost is None or replica is None:
            return
        if (state.metadata or {}).get(CALL_ID) == self._call.id:
            checkpoint = state.config.get("configurable", {}).get("checkpoint_id")
            if checkpoint != self._checkpoint:
                self._losses, self._checkpoint = min(self._losses, 1), checkpoint
            return
        why = (
            f"{replica.target} has no checkpoint of it: either the run had saved none, or the replicas do not have one "
            "database as their checkpointer"
        )
        if isinstance(lost, HostLost):
            self._lost = lost = HostLost(f"{lost}. {why}", delivered=lost.delivered)
        else:
            lost.add_note(f"It was not taken up elsewhere: {why}.")
        raise lost

    def _after_refusal(self, error: HostError) -> float:
        connection, replica = self._connection, self.replica
        if replica is not None and connection.has_replicas:
            self._tried.add(replica)
            self._errors.append(error)
            if isinstance(error, HostBusy) and error.serving:
                connection.replicas.note_busy(replica, error.retry_after)
            else:
                connection.eject(replica, self._began, error)
            if any(other not in self._tried for other in connection.replicas.all()):
                return 0.0
            if not connection.targets.are_fixed:
                return 0.0  # the resolver is asked before it is given up
            errors, error = list(self._errors), self._of_all()
            if self._lost is not None and not self._may_return(errors):
                raise self._lost
        if self._lost is not None:
            return self._until_return(self._lost, error)
        pause = self._pause_after(error)
        self._tried.clear()
        self._errors.clear()
        return pause

    def _elsewhere(self, error: HostError | GraphDrained) -> float:
        assert self.replica is not None
        seconds = self._connection.given.reconnect_timeout
        self._lost = error
        self._return = ReconnectBackoff(str(error), _RETURN_SECONDS if seconds is None else seconds, is_patient=True)
        self._waits = False
        self._errors.clear()
        self._tried = {self.replica}
        if all(other in self._tried for other in self._connection.replicas.all()):
            return self._until_return(error, error)
        return 0.0

    def _may_return(self, errors: Sequence[HostError]) -> bool:
        """Whether one of the replicas, which have all refused what was lost, may take it later."""
        were_all_asked = len(errors) == len(self._connection.replicas)
        return not were_all_asked or any(isinstance(error, HostBusy | HostUnreachable) for error in errors)

    def _until_return(self, lost: HostError | GraphDrained, error: HostError | GraphDrained) -> float:
        """Seconds until all replicas are tried again for what was lost; raises that when it has waited long enough.

        Args:
            lost: what has ended the run.
            error: why no replica has taken it now.
        """
        assert self._return is not None
        if not self._waits:
            self._waits = True
            _logger.warning("%s: a lost call waits for a replica to come back: %s", self._connection.targets, error)
        pause = self._return.next_pause()
        if pause is None or (self._until is not None and time.monotonic() + pause >= self._until):
            if error is not lost:
                lost.add_note(f"No replica has taken it since: {error}")
            raise lost
        self._tried.clear()
        self._errors.clear()
        return max(pause, getattr(error, "retry_after", None) or 0.0)

    def _of_all(self) -> HostError:
        """The error to raise where no replica takes the call: the one that says most."""
        errors = self._errors
        if not errors:
            return HostUnreachable(f"{self._connection.targets} has no replica")
        if any(isinstance(error, ReplicaMismatch) for error in errors):
            self._connection.forget_card()
        if len({str(error) for error in errors}) == 1:
            return errors[0]
        busy = [error for error in errors if isinstance(error, HostBusy)]
        said = [error for error in errors if not isinstance(error, HostBusy | HostUnreachable)]
        chosen = said[0] if said else min(busy, key=_retry_after) if busy else errors[-1]
        others = [error for error in errors if error is not chosen]
        if isinstance(chosen, HostUnreachable):
            return HostUnreachable(f"none of {len(errors)} replicas answers: {'; '.join(map(str, errors))}")
        for other in others:
            chosen.add_note(f"Another replica: {other}")
        return chosen

    def _pause_after(self, error: HostError) -> float:
        policy, self._made = self._policy, self._made + 1
        if policy is None or not isinstance(error, HostBusy | HostUnreachable):
            raise error
        if self._made >= policy.max_attempts or not _is_for(policy, error):
            raise error
        interval = min(policy.max_interval, policy.initial_interval * policy.backoff_factor ** (self._made - 1))
        pause = max(interval, getattr(error, "retry_after", None) or 0.0)
        if policy.jitter:
            pause += random.uniform(0, policy.initial_interval)
        if self._until is not None and time.monotonic() + pause >= self._until:
            raise error
        return pause


def _retry_after(busy: HostBusy) -> float:
    return busy.retry_after or 0.0


def _is_for(policy: RetryPolicy, error: HostError) -> bool:
    on = policy.retry_on
    if isinstance(on, type) or not callable(on):
        return isinstance(error, on if isinstance(on, type) else tuple(on))
    return on(error)
