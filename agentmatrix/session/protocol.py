"""The protocol of one run, free of I/O: frames in, frames and effects out.

Both halves are small state machines in the manner of h11 and hyper-h2. A driver (see `caller`, `host_run`) moves the
frames and carries out the effects; the machine says which frames may come when, and ends the run when a peer breaks the
rules. A machine has no lock: its driver holds its own around each call, and sends the frame that it got before it gives
the lock back, so that frames go out in the order in which the machine made them.

::

    caller                                  host
    Start ------------------------------->  runs the verb
    (idle -> started)      <-------------  Accepted
    Credit, Cancel, Notice, Signal ------>
                           <-------------  Part, Event, Request, Taken ...
    Reply -------------------------------->
    (ended)                <-------------  End, always the last

A method that makes a frame returns None where the run has ended meanwhile: what crosses with the end is no error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from agentmatrix.errors import ProtocolError
from agentmatrix.wire.v1 import run_pb2 as pb

__all__ = ["CallerProtocol", "HostProtocol", "Phase"]


class Phase(Enum):
    """How far a run has come."""

    IDLE = "idle"
    STARTED = "started"
    ACCEPTED = "accepted"
    ENDED = "ended"


@dataclass
class CallerProtocol:
    """The caller's half: starts the run, answers the host's requests, learns how it ends."""

    phase: Phase = Phase.IDLE
    cancelled: bool = False

    def __post_init__(self) -> None:
        self._requests: set[int] = set()
        self._unacked: set[int] = set()
        self._next_signal = 1
        self._owes_credit = False

    def start(self, start: pb.Start) -> pb.Frame:
        """The first frame of the run."""
        if self.phase is not Phase.IDLE:
            raise ProtocolError("a run starts once")
        self.phase = Phase.STARTED
        return pb.Frame(start=start)

    def receive(self, frame: pb.Frame) -> str:
        """Takes a frame of the host.

        Returns:
            What it is, the name of its body: "accepted", "part", "event", "request", "taken", "end"; or "ignored" for
            a frame that came after the end.

        Raises:
            ProtocolError: the host may not send this frame now.
        """
        kind = frame.WhichOneof("body")
        if self.phase is Phase.ENDED:
            return "ignored"
        if self.phase is Phase.IDLE or kind not in ("accepted", "part", "event", "request", "taken", "end"):
            raise self._broken(f"the host sent {kind or 'an empty frame'} to a run that is {self.phase.value}")
        if kind == "accepted":
            if self.phase is Phase.ACCEPTED:
                raise self._broken("the host accepted the run twice")
            self.phase = Phase.ACCEPTED
        elif kind == "end":
            self.phase = Phase.ENDED
        elif self.phase is Phase.STARTED:
            raise self._broken(f"the host sent {kind} before it accepted the run")
        elif kind == "request":
            if frame.request.id in self._requests:
                raise self._broken(f"the host used request id {frame.request.id} twice")
            if not frame.request.pipelined:
                self._requests.add(frame.request.id)
        elif kind == "taken":
            if frame.taken.number not in self._unacked:
                raise self._broken(f"the host answered signal {frame.taken.number}, which is not open")
            self._unacked.discard(frame.taken.number)
        elif kind == "part":
            self._owes_credit = self._owes_credit or not frame.part.more
        return str(kind)

    def reply(self, reply: pb.Reply) -> pb.Frame | None:
        """The frame that answers a request."""
        if self.phase is Phase.ENDED:
            return None
        if reply.id not in self._requests:
            raise ProtocolError(f"nobody asked request {reply.id}")
        self._requests.discard(reply.id)
        return pb.Frame(reply=reply)

    def credit(self) -> pb.Frame | None:
        """The frame that lets the host go on after a part; None when it does not wait."""
        if self.phase is Phase.ENDED or not self._owes_credit:
            return None
        self._owes_credit = False
        return pb.Frame(credit=pb.Credit(parts=1))

    def cancel(self, reason: str) -> pb.Frame | None:
        """The frame that stops the run; None also when it is being cancelled already."""
        if self.phase in (Phase.IDLE, Phase.ENDED) or self.cancelled:
            return None
        self.cancelled = True
        return pb.Frame(cancel=pb.Cancel(reason=reason))

    def signal(self, id: str, address: str, value: bytes) -> pb.Frame | None:
        """The frame that carries a signal; its number is in the frame. None also when the run is being cancelled."""
        if self.phase in (Phase.IDLE, Phase.ENDED) or self.cancelled:
            return None
        number, self._next_signal = self._next_signal, self._next_signal + 1
        self._unacked.add(number)
        return pb.Frame(signal={"id": id, "address": address, "value": value, "number": number})

    def control(self, kind: str, arguments: bytes) -> pb.Frame | None:
        """The control frame that drains the run ("drain"), or closes its input for signals ("close")."""
        if self.phase in (Phase.IDLE, Phase.ENDED):
            return None
        return pb.Frame(notice=pb.Notice(kind=kind, arguments=arguments))

    def lost(self) -> bool:
        """Ends the run since the connection is gone. Returns whether it was still open."""
        was_open = self.phase is not Phase.ENDED
        self.phase = Phase.ENDED
        return was_open

    def _broken(self, what: str) -> ProtocolError:
        self.phase = Phase.ENDED
        return ProtocolError(f"{what}; the run is ended. Do both sides run the same version of agentmatrix?")


@dataclass
class HostProtocol:
    """The host's half: accepts the run, sends requests to the caller's objects, ends the run."""

    phase: Phase = Phase.IDLE

    def __post_init__(self) -> None:
        self._requests: set[int] = set()
        self._unacked: set[int] = set()
        self._input_closed = False
        self._next_id = 1

    def receive(self, frame: pb.Frame) -> str:
        """Takes a frame of the caller.

        Returns:
            What it is: "start", "reply", "credit", "cancel", "notice", "signal"; or "ignored" for a frame that came
            after the end.

        Raises:
            ProtocolError: the caller may not send this frame now.
        """
        kind = frame.WhichOneof("body")
        if self.phase is Phase.ENDED:
            return "ignored"
        if self.phase is Phase.IDLE:
            self.phase = Phase.STARTED
            if kind != "start":
                raise ProtocolError(f"a run begins with start, not with {kind or 'an empty frame'}")
        elif kind not in ("reply", "credit", "cancel", "notice", "signal"):
            raise ProtocolError(f"the caller sent {kind or 'an empty frame'} in the middle of a run")
        elif kind == "reply":
            if frame.reply.id not in self._requests:
                raise ProtocolError(f"the caller answered request {frame.reply.id}, which is not open")
            self._requests.discard(frame.reply.id)
        elif kind == "credit" and frame.credit.parts == 0:
            raise ProtocolError("the caller gave a credit of no parts")
        elif kind == "notice":
            self._input_closed = self._input_closed or frame.notice.kind == "close"
        elif kind == "signal":
            if self._input_closed or frame.signal.number in self._unacked:
                how = "after it had closed the input" if self._input_closed else "with a number that is open"
                raise ProtocolError(f"the caller sent a signal {how}")
            self._unacked.add(frame.signal.number)
        return str(kind)

    def accept(self) -> pb.Frame | None:
        """The frame that says that the host has taken the run."""
        if self.phase is not Phase.STARTED:
            return None
        self.phase = Phase.ACCEPTED
        return pb.Frame(accepted=pb.Accepted())

    def part(self, value: bytes, *, more: bool) -> pb.Frame | None:
        """A part of the run's stream; `more` when the host goes on without a credit."""
        return pb.Frame(part={"value": value, "more": more}) if self.phase is Phase.ACCEPTED else None

    def event(self, kind: str, arguments: bytes) -> pb.Frame | None:
        """A notification for an object of the caller, which is not answered."""
        return pb.Frame(event={"kind": kind, "arguments": arguments}) if self.phase is Phase.ACCEPTED else None

    def request(self, target: str, method: str, arguments: bytes, *, pipelined: bool = False) -> pb.Frame | None:
        """A call of a method of an object of the caller; its id is in the frame. `pipelined` ones are not answered."""
        if self.phase is not Phase.ACCEPTED:
            return None
        number, self._next_id = self._next_id, self._next_id + 1
        if not pipelined:
            self._requests.add(number)
        call = {"id": number, "target": target, "method": method, "arguments": arguments, "pipelined": pipelined}
        return pb.Frame(request=call)

    def ack_signal(self, number: int, refused: str = "") -> pb.Frame | None:
        """The acknowledgement of a signal, or why it was refused."""
        if self.phase is not Phase.ACCEPTED:
            return None
        if number not in self._unacked:
            raise ProtocolError(f"nobody sent signal {number}")
        self._unacked.discard(number)
        return pb.Frame(taken={"number": number, "refused": refused})

    def end(
        self,
        *,
        result: bytes | None = None,
        failure: bytes | None = None,
        written: Iterable[str] | None = None,
        ended_by: str = "",
        keeps_messages: bool = False,
    ) -> pb.Frame | None:
        """The last frame, with the keys that the run has written, what has ended it, and whether the
        messages that came are kept; None when there was one."""
        if self.phase is Phase.ENDED:
            return None
        self.phase = Phase.ENDED
        frame = pb.Frame(end={"failure": failure} if failure is not None else {"result": result or b""})
        frame.end.ended_by, frame.end.keeps_messages = ended_by, keeps_messages
        if written is not None:
            frame.end.written.keys.extend(sorted(written))
            frame.end.written.SetInParent()
        return frame

    def lost(self) -> bool:
        """Ends the run since the connection is gone. Returns whether it was still open."""
        was_open = self.phase is not Phase.ENDED
        self.phase = Phase.ENDED
        return was_open
