from agentmatrix.wire.v1 import run_pb2 as _run_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ("agent",)
    AGENT_FIELD_NUMBER: _ClassVar[int]
    agent: str
    def __init__(self, agent: _Optional[str] = ...) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("version", "card")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CARD_FIELD_NUMBER: _ClassVar[int]
    version: _run_pb2.Version
    card: Card
    def __init__(self, version: _Optional[_Union[_run_pb2.Version, _Mapping]] = ..., card: _Optional[_Union[Card, _Mapping]] = ...) -> None: ...

class ListAgentsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAgentsReply(_message.Message):
    __slots__ = ("version", "agents")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    version: _run_pb2.Version
    agents: _containers.RepeatedCompositeFieldContainer[AgentName]
    def __init__(self, version: _Optional[_Union[_run_pb2.Version, _Mapping]] = ..., agents: _Optional[_Iterable[_Union[AgentName, _Mapping]]] = ...) -> None: ...

class AgentName(_message.Message):
    __slots__ = ("name", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class Card(_message.Message):
    __slots__ = ("name", "description", "details")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    details: bytes
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., details: _Optional[bytes] = ...) -> None: ...
