from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("run", "start", "reply", "credit", "cancel", "signal", "notice", "accepted", "part", "event", "request", "end", "chunk", "reset", "taken", "credit_bytes", "bulk")
    RUN_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BULK_FIELD_NUMBER: _ClassVar[int]
    run: int
    start: Start
    reply: Reply
    credit: Credit
    cancel: Cancel
    signal: Signal
    notice: Notice
    accepted: Accepted
    part: Part
    event: Event
    request: Request
    end: End
    chunk: Chunk
    reset: Reset
    taken: Taken
    credit_bytes: int
    bulk: _containers.RepeatedCompositeFieldContainer[Bulk]
    def __init__(self, run: _Optional[int] = ..., start: _Optional[_Union[Start, _Mapping]] = ..., reply: _Optional[_Union[Reply, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., signal: _Optional[_Union[Signal, _Mapping]] = ..., notice: _Optional[_Union[Notice, _Mapping]] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ..., part: _Optional[_Union[Part, _Mapping]] = ..., event: _Optional[_Union[Event, _Mapping]] = ..., request: _Optional[_Union[Request, _Mapping]] = ..., end: _Optional[_Union[End, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., reset: _Optional[_Union[Reset, _Mapping]] = ..., taken: _Optional[_Union[Taken, _Mapping]] = ..., credit_bytes: _Optional[int] = ..., bulk: _Optional[_Iterable[_Union[Bulk, _Mapping]]] = ...) -> None: ...

class Bulk(_message.Message):
    __slots__ = ("field", "size")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    field: int
    size: int
    def __init__(self, field: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class Frames(_message.Message):
    __slots__ = ("frames", "received", "disconnect")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[Frame]
    received: int
    disconnect: bool
    def __init__(self, frames: _Optional[_Iterable[_Union[Frame, _Mapping]]] = ..., received: _Optional[int] = ..., disconnect: bool = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("id", "version", "agent", "path", "verb", "arguments", "config", "timeout", "trace", "tickets", "checkpoint")
    class TraceEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    TICKETS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    id: str
    version: Version
    agent: str
    path: _containers.RepeatedScalarFieldContainer[str]
    verb: str
    arguments: bytes
    config: bytes
    timeout: float
    trace: _containers.ScalarMap[str, str]
    tickets: _containers.RepeatedScalarFieldContainer[str]
    checkpoint: bytes
    def __init__(self, id: _Optional[str] = ..., version: _Optional[_Union[Version, _Mapping]] = ..., agent: _Optional[str] = ..., path: _Optional[_Iterable[str]] = ..., verb: _Optional[str] = ..., arguments: _Optional[bytes] = ..., config: _Optional[bytes] = ..., timeout: _Optional[float] = ..., trace: _Optional[_Mapping[str, str]] = ..., tickets: _Optional[_Iterable[str]] = ..., checkpoint: _Optional[bytes] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("wire", "langgraph", "agentmatrix")
    WIRE_FIELD_NUMBER: _ClassVar[int]
    LANGGRAPH_FIELD_NUMBER: _ClassVar[int]
    AGENTMATRIX_FIELD_NUMBER: _ClassVar[int]
    wire: int
    langgraph: str
    agentmatrix: str
    def __init__(self, wire: _Optional[int] = ..., langgraph: _Optional[str] = ..., agentmatrix: _Optional[str] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Part(_message.Message):
    __slots__ = ("value", "more")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    more: bool
    def __init__(self, value: _Optional[bytes] = ..., more: bool = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("parts",)
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: int
    def __init__(self, parts: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("kind", "arguments")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    arguments: bytes
    def __init__(self, kind: _Optional[str] = ..., arguments: _Optional[bytes] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("id", "target", "method", "arguments", "pipelined")
    ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    PIPELINED_FIELD_NUMBER: _ClassVar[int]
    id: int
    target: str
    method: str
    arguments: bytes
    pipelined: bool
    def __init__(self, id: _Optional[int] = ..., target: _Optional[str] = ..., method: _Optional[str] = ..., arguments: _Optional[bytes] = ..., pipelined: bool = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("id", "value", "failure", "through")
    ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    id: int
    value: bytes
    failure: bytes
    through: int
    def __init__(self, id: _Optional[int] = ..., value: _Optional[bytes] = ..., failure: _Optional[bytes] = ..., through: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Signal(_message.Message):
    __slots__ = ("id", "address", "value", "number")
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    id: str
    address: str
    value: bytes
    number: int
    def __init__(self, id: _Optional[str] = ..., address: _Optional[str] = ..., value: _Optional[bytes] = ..., number: _Optional[int] = ...) -> None: ...

class Taken(_message.Message):
    __slots__ = ("number", "refused")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    number: int
    refused: str
    def __init__(self, number: _Optional[int] = ..., refused: _Optional[str] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("kind", "arguments")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    arguments: bytes
    def __init__(self, kind: _Optional[str] = ..., arguments: _Optional[bytes] = ...) -> None: ...

class End(_message.Message):
    __slots__ = ("result", "failure", "written", "ended_by", "keeps_messages")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    ENDED_BY_FIELD_NUMBER: _ClassVar[int]
    KEEPS_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    result: bytes
    failure: bytes
    written: WrittenKeys
    ended_by: str
    keeps_messages: bool
    def __init__(self, result: _Optional[bytes] = ..., failure: _Optional[bytes] = ..., written: _Optional[_Union[WrittenKeys, _Mapping]] = ..., ended_by: _Optional[str] = ..., keeps_messages: bool = ...) -> None: ...

class WrittenKeys(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, keys: _Optional[_Iterable[str]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class Reset(_message.Message):
    __slots__ = ("kind", "reason", "retry_after")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    kind: str
    reason: str
    retry_after: float
    def __init__(self, kind: _Optional[str] = ..., reason: _Optional[str] = ..., retry_after: _Optional[float] = ...) -> None: ...
