"""The exceptions of AgentMatrix.

::

    AgentMatrixError
    ├── BuildError (ValueError)         a graph that cannot be compiled: names the node and the fix
    │   ├── CycleError                  a Dag with a cycle, drawn
    │   └── NotAnAgentError (TypeError) something that cannot be made an agent
    ├── BoundError (RecursionError)     a loop or a chat group exceeded its bound
    ├── BudgetError (RuntimeError)      a budget of seconds, tokens or calls is used up
    ├── TriggerError (RuntimeError)     a trigger group waits for a source that can no longer deliver
    ├── SpeakerError (ValueError)       the next speaker is not a member of the chat group
    ├── SignalError                     a signal that was not accepted: no node declares it, or the run is over
    ├── SendError (RuntimeError)        a message that nobody takes: unknown, refused or dismissed, or no message
    │   └── HiringError (BoundError)    it would hire one actor too many
    ├── AnswerError (ValueError)        an answer that does not fit the question, or where none is open
    ├── ScriptExhausted                 a scripted chat model has no answers left
    ├── CodecError
    │   ├── EncodeError (TypeError)     a value that cannot be encoded: names path, type and option
    │   └── DecodeError (ValueError)    bytes that are not a value of the allowed types
    │       └── TypeNotAllowed          a type that is not allowed: names the option that allows it
    ├── RemoteError                     an exception on a host whose type is not known here
    ├── HostError                       a call to a host failed
    │   ├── HostUnreachable (ConnectionError)   no host answers; nothing has been started there
    │   ├── HostLost (ConnectionError)          the connection broke during a run: says what is unknown
    │   ├── HostBusy                            it has as many runs as it takes
    │   ├── AgentNotFound (LookupError)         it has no agent of that name
    │   ├── Unauthenticated (PermissionError)   wrong or missing token or certificate
    │   ├── PermissionDenied (PermissionError)  this caller may not call this agent
    │   ├── VersionMismatch                     it has another version of the wire or of langgraph
    │   ├── ReplicaMismatch                     two replicas of an agent show different agents
    │   └── DeadlineExceeded (TimeoutError)     the run took longer than its timeout
    ├── ProtocolError                   a peer violated the protocol
    ├── DatasetError (ValueError)       rows, columns or settings of a dataset that cannot be used: names the line
    ├── TooManyFailures (RuntimeError)  so many rows of a dataset have failed that it was ended
    ├── AddressError (ValueError)       an address or URL that cannot be parsed or bound
    └── MissingExtra (ImportError)      an optional dependency that is not installed

Control flow (interrupts, commands to a parent, drains) is LangGraph's own and not in this tree.
"""

from __future__ import annotations


class AgentMatrixError(Exception):
    """Base of every exception of this package."""


class BuildError(AgentMatrixError, ValueError):
    """A graph that cannot be compiled. The message names the node and the fix."""


class CycleError(BuildError):
    """A cycle in a `Dag`. The message draws it."""


class NotAnAgentError(BuildError, TypeError):
    """An object that `as_agent` cannot convert."""


class BoundError(AgentMatrixError, RecursionError):
    """A loop or a chat group exceeded its bound. The message names the loop and the option that raises the bound."""


class BudgetError(AgentMatrixError, RuntimeError):
    """A `Budget` is used up: no more chat models are called in it. The message says which of its limits it was."""


class TriggerError(AgentMatrixError, RuntimeError):
    """A trigger group waits for a source that can no longer deliver. The message names what skipped it, and the fix.

    Attributes:
        node: the node that has the group among its triggers.
        group: the name of the group.
        skipped: the labels of the sources that are missing.
    """

    def __init__(self, message: str, node: str = "", group: str = "", skipped: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.node, self.group, self.skipped = node, group, skipped


class SpeakerError(AgentMatrixError, ValueError):
    """A speaker function or a handoff chose a name that is not in the chat group. The message names the members."""


class SignalError(AgentMatrixError):
    """A signal was not accepted: no node declares it, no node will read it any more, its input is closed, or the run is
    over. The message says which."""


class SendError(AgentMatrixError, RuntimeError):
    """A message from inside a graph that nobody takes. The message says why.

    Attributes:
        kind: the same in a word: `unknown` (there is no such node or actor), `refused` (by `make`), `dismissed`,
            `full` (it would hire one too many; that is a `BoundError` too), `unfit` (no message for this actor), `kept`
            (the checkpointer cannot keep it, or it is too large), or `ended` (the sender has ended).
    """

    def __init__(self, message: str, kind: str = "unknown") -> None:
        super().__init__(message)
        self.kind = kind


class HiringError(SendError, BoundError):
    """A message that would hire one actor more than there may be, or in a longer chain."""

    def __init__(self, message: str, kind: str = "full") -> None:
        super().__init__(message, kind)


class AnswerError(AgentMatrixError, ValueError):
    """An answer that does not fit the question of a paused graph, or where no question is open."""


class ScriptExhausted(AgentMatrixError):
    """A `ScriptedChatModel` was called more often than it has answers."""


class CodecError(AgentMatrixError):
    """Base of the errors of encoding and decoding."""


class EncodeError(CodecError, TypeError):
    """A value that cannot be encoded. The message names its path, its type and the option that allows it."""


class DecodeError(CodecError, ValueError):
    """Bytes that are not a value of the allowed types, or too large, or too deep."""


class TypeNotAllowed(DecodeError):
    """Bytes that name a type which is not allowed. The message names the path, the type and the option."""


class RemoteError(AgentMatrixError):
    """An exception on the host whose type is not known here.

    Attributes:
        type_name: the qualified name of the original type, `"package.module.Class"`.
    """

    def __init__(self, message: str, type_name: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name


class HostError(AgentMatrixError):
    """Base of the errors between a caller and a host."""


class HostUnreachable(HostError, ConnectionError):
    """No host answers at the address. Nothing has been started there.

    Attributes:
        refused: whether its machine answers that nobody listens there.
        closed: whether the connection was there, and was closed.
    """

    refused: bool = False
    closed: bool = False


class HostLost(HostError, ConnectionError):
    """The connection to the host broke during a run, and the run cannot be taken up again. The message says what is
    known of it, and what to do.

    Attributes:
        delivered: whether the host has certainly taken the run; False where that is unknown.
    """

    delivered: bool = False

    def __init__(self, message: str = "", delivered: bool = False) -> None:
        super().__init__(message)
        if delivered:
            self.delivered = True


class HostBusy(HostError):
    """The host has as many runs as it takes. Nothing has been started there.

    Attributes:
        retry_after: seconds after which to try again; None where that is not known.
        serving: False where the host takes no runs at all, since it starts or stops.
    """

    retry_after: float | None = None
    serving: bool = True

    def __init__(self, message: str = "", retry_after: float | None = None, *, serving: bool = True) -> None:
        super().__init__(message)
        if retry_after is not None:
            self.retry_after = retry_after
        if not serving:
            self.serving = False


class AgentNotFound(HostError, LookupError):
    """The host has no agent of that name. The message lists its agents."""


class Unauthenticated(HostError, PermissionError):
    """The host requires a token or a certificate, or rejects the given one."""


class PermissionDenied(HostError, PermissionError):
    """The host knows this caller and does not let it do this. Nothing has been started there."""


class VersionMismatch(HostError):
    """The host has another version of the wire, or another minor version of langgraph."""


class ReplicaMismatch(HostError):
    """Two hosts that are to be replicas of one agent show different ones. The message names both and the first
    difference. Nothing has been started."""


class DeadlineExceeded(HostError, TimeoutError):
    """The run took longer than its timeout; it has been cancelled on the host."""


class ProtocolError(AgentMatrixError):
    """A peer violated the protocol. The run is ended."""


class AddressError(AgentMatrixError, ValueError):
    """An address or URL that cannot be parsed, or that a host cannot or may not bind."""


class DatasetError(AgentMatrixError, ValueError):
    """Rows, columns, a file or a setting of a dataset that cannot be used. The message names line and column."""


class TooManyFailures(AgentMatrixError, RuntimeError):
    """So many rows of a dataset have failed that the others were not begun. The message has the last error.

    Attributes:
        report: the `Report` of what was done.
    """

    report: object = None


class MissingExtra(AgentMatrixError, ImportError):
    """An optional dependency that is not installed. The message is the pip line that installs it."""
