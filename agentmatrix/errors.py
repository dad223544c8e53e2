"""Every exception that AgentMatrix raises itself.

::

    AgentMatrixError
    ├── BuildError (ValueError)         a graph that cannot be compiled: names the node and the mend
    │   ├── CycleError                  a Dag with a cycle, drawn
    │   └── NotAnAgentError (TypeError) something that cannot be made an agent
    ├── BoundError (RecursionError)     a loop or a group went on past its bound
    ├── TriggerError (RuntimeError)      a trigger group waits for a source that can no longer come
    ├── SpeakerError (ValueError)       the floor was given to somebody who is not in the group
    ├── SignalError                     a signal that was not taken: nobody declares it, or the run is over
    ├── ScriptExhausted                 a scripted chat model has no answers left
    ├── CodecError
    │   ├── EncodeError (TypeError)     a value that cannot cross the wire: names path, type and option
    │   └── DecodeError (ValueError)    bytes that are not a value of the listed types
    │       └── TypeNotAllowed          a type that nobody listed: names the option that admits it
    ├── RemoteError                     a remote exception whose type is not known here
    ├── HostError                       the conversation with a host failed
    │   ├── HostUnreachable (ConnectionError)   nothing has been started there
    │   ├── HostLost (ConnectionError)          it was lost in the middle of a run: says what is unknown
    │   ├── HostBusy                            it runs as much as it may
    │   ├── AgentNotFound (LookupError)         it has no agent of that name
    │   ├── Unauthenticated (PermissionError)   wrong or missing token or certificate
    │   ├── VersionMismatch                     it speaks another version
    │   └── DeadlineExceeded (TimeoutError)     the run took longer than its timeout
    ├── ProtocolError                   a peer that breaks the rules of the wire
    ├── AddressError (ValueError)       an address or URL that cannot be understood or bound
    └── MissingExtra (ImportError)      an optional dependency that is not installed

Control flow (interrupts, commands to a parent, drains) is LangGraph's own and not in this tree.
"""

from __future__ import annotations


class AgentMatrixError(Exception):
    """Base of every exception of this package."""


class BuildError(AgentMatrixError, ValueError):
    """A graph that cannot be compiled. The message names the node and what to do."""


class CycleError(BuildError):
    """A cycle in a `Dag`. The message draws it."""


class NotAnAgentError(BuildError, TypeError):
    """Something that `as_agent` cannot make an agent of."""


class BoundError(AgentMatrixError, RecursionError):
    """A loop or a chat group went on past its bound. The message names the loop and the option that raises it."""


class TriggerError(AgentMatrixError, RuntimeError):
    """A trigger group demands a source that can no longer come. The message names who skipped it, and the mend.

    Attributes:
        node: the node that the group belongs to.
        group: the name of the group.
        skipped: the labels of the sources that are missing.
    """

    def __init__(self, message: str, node: str = "", group: str = "", skipped: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.node, self.group, self.skipped = node, group, skipped


class SpeakerError(AgentMatrixError, ValueError):
    """A speaker or a handoff gave the floor to somebody who is not in the chat group. The message names the members."""


class SignalError(AgentMatrixError):
    """A signal was not taken: nobody declares it, nobody will take it any more, its input is closed, or the run is
    over. The message says which."""


class ScriptExhausted(AgentMatrixError):
    """A `ScriptedChatModel` was called more often than it has answers."""


class CodecError(AgentMatrixError):
    """Base of what can go wrong between a value and its bytes."""


class EncodeError(CodecError, TypeError):
    """A value that cannot cross the wire. The message names its path, its type and what admits it."""


class DecodeError(CodecError, ValueError):
    """Bytes that are not a value of the listed types, or too large, or too deep."""


class TypeNotAllowed(DecodeError):
    """Bytes that name a type which nobody listed. The message names the path, the type and the option."""


class RemoteError(AgentMatrixError):
    """An exception on the host whose type is not known here.

    Attributes:
        type_name: the qualified name of the original type, `"package.module.Class"`.
    """

    def __init__(self, message: str, type_name: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name


class HostError(AgentMatrixError):
    """Base of what can go wrong between a caller and a host."""


class HostUnreachable(HostError, ConnectionError):
    """No host answers at the address. Nothing has been started there."""


class HostLost(HostError, ConnectionError):
    """The host was lost in the middle of a run. The message says what is unknown."""


class HostBusy(HostError):
    """The host already runs as much as it may. Nothing has been started there."""


class AgentNotFound(HostError, LookupError):
    """The host has no agent of that name. The message lists those that it has."""


class Unauthenticated(HostError, PermissionError):
    """The host wants a token or a certificate, or refuses the one that it got."""


class VersionMismatch(HostError):
    """The host speaks another version of the wire, or runs another minor version of langgraph."""


class DeadlineExceeded(HostError, TimeoutError):
    """The run took longer than its timeout; it has been cancelled on the host."""


class ProtocolError(AgentMatrixError):
    """A peer broke the rules of the wire. The run is ended."""


class AddressError(AgentMatrixError, ValueError):
    """An address or URL that cannot be understood, or that a host cannot or may not bind."""


class MissingExtra(AgentMatrixError, ImportError):
    """An optional dependency that is not installed. The message is the pip line that installs it."""
