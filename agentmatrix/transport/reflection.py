"""`grpc.reflection`, v1 and v1alpha, so that the usual tools (grpcurl, grpcui, Postman) find the services of a host.

The messages are described here, in a pool of their own: a program may have gRPC's package for them as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from agentmatrix.wire.v1 import run_pb2, service_pb2

__all__ = ["METHOD", "SERVICES", "answer"]

SERVICES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
METHOD: Final = "ServerReflectionInfo"
_HEALTH: Final = "grpc.health.v1.Health"
_NOT_FOUND, _INVALID = 5, 3

# Fields as (number, name, type, repeated); a type of one letter is a scalar.
_SCALARS: Final = {
    "s": FieldDescriptorProto.TYPE_STRING,
    "b": FieldDescriptorProto.TYPE_BYTES,
    "i": FieldDescriptorProto.TYPE_INT32,
}
_REFLECTION: Final = {
    "ServerReflectionRequest": [
        (1, "host", "s", False),
        (3, "file_by_filename", "s", False),
        (4, "file_containing_symbol", "s", False),
        (7, "list_services", "s", False),
    ],
    "FileDescriptorResponse": [(1, "file_descriptor_proto", "b", True)],
    "ServiceResponse": [(1, "name", "s", False)],
    "ListServiceResponse": [(1, "service", "ServiceResponse", True)],
    "ErrorResponse": [(1, "error_code", "i", False), (2, "error_message", "s", False)],
    "ServerReflectionResponse": [
        (1, "valid_host", "s", False),
        (2, "original_request", "ServerReflectionRequest", False),
        (4, "file_descriptor_response", "FileDescriptorResponse", False),
        (6, "list_services_response", "ListServiceResponse", False),
        (7, "error_response", "ErrorResponse", False),
    ],
}
_HEALTH_MESSAGES: Final = {
    "HealthCheckRequest": [(1, "service", "s", False)],
    "HealthCheckResponse": [(1, "status", "ServingStatus", False)],
}


def answer(data: bytes) -> bytes:
    """The answer to a request."""
    messages = _messages()
    request = messages["ServerReflectionRequest"]()
    response = messages["ServerReflectionResponse"]()
    try:
        request.ParseFromString(data)
    except DecodeError:
        response.error_response.error_code = _INVALID
        response.error_response.error_message = "not a ServerReflectionRequest"
        return bytes(response.SerializeToString())
    response.valid_host = request.host
    response.original_request.CopyFrom(request)
    if request.HasField("list_services"):
        for name in _services():
            response.list_services_response.service.add(name=name)
    elif file := _file(request):
        response.file_descriptor_response.file_descriptor_proto.extend(
            found.SerializeToString() for found in _with_imports(file)
        )
    else:
        response.error_response.error_code = _NOT_FOUND
        response.error_response.error_message = "the host has no such file or symbol"
    return bytes(response.SerializeToString())


def _services() -> list[str]:
    ours = [service.full_name for service in service_pb2.DESCRIPTOR.services_by_name.values()]
    return [*ours, _HEALTH, *SERVICES]


@cache
def _files() -> dict[str, FileDescriptorProto]:
    """The files that describe the services, by name, what is imported before what imports it."""
    files = []
    for module in (run_pb2, service_pb2):
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    files.append(_described("grpc/health/v1/health.proto", _HEALTH, _HEALTH_MESSAGES))
    health = files[-1].message_type[1].enum_type.add(name="ServingStatus")
    for number, status in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        health.value.add(name=status, number=number)
    for method, streams in (("Check", False), ("Watch", True)):
        files[-1].service[0].method.add(
            name=method,
            input_type=".grpc.health.v1.HealthCheckRequest",
            output_type=".grpc.health.v1.HealthCheckResponse",
            server_streaming=streams,
        )
    for service in SERVICES:
        package = service.rpartition(".")[0]
        file = _described(f"{package.replace('.', '/')}/reflection.proto", service, _REFLECTION)
        file.service[0].method.add(
            name=METHOD,
            input_type=f".{package}.ServerReflectionRequest",
            output_type=f".{package}.ServerReflectionResponse",
            client_streaming=True,
            server_streaming=True,
        )
        files.append(file)
    return {file.name: file for file in files}


def _described(name: str, service: str, messages: dict[str, list[tuple[int, str, str, bool]]]) -> FileDescriptorProto:
    package, _, service_name = service.rpartition(".")
    file = FileDescriptorProto(name=name, package=package, syntax="proto3")
    for message, fields in messages.items():
        described = file.message_type.add(name=message)
        # In a oneof, a field that is empty and one that is not there are two things.
        described.oneof_decl.add(name="message")
        for number, field, kind, repeated in fields:
            label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
            added = described.field.add(name=field, number=number, label=label)
            if kind in _SCALARS:
                added.type = _SCALARS[kind]
            elif kind == "ServingStatus":
                added.type, added.type_name = FieldDescriptorProto.TYPE_ENUM, f".{package}.{message}.{kind}"
            else:
                added.type, added.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{package}.{kind}"
            if message.startswith("ServerReflection") and number > 2:
                added.oneof_index = 0
        if not any(field.HasField("oneof_index") for field in described.field):
            del described.oneof_decl[:]
    file.service.add(name=service_name)
    return file


@cache
def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in _files().values():
        pool.Add(file)
    return pool


@cache
def _messages() -> dict[str, Any]:
    package = SERVICES[0].rpartition(".")[0]
    return {name: GetMessageClass(_pool().FindMessageTypeByName(f"{package}.{name}")) for name in _REFLECTION}


def _file(request: Any) -> FileDescriptorProto | None:
    """The file that a request asks for."""
    if request.HasField("file_by_filename"):
        return _files().get(request.file_by_filename)
    if not request.HasField("file_containing_symbol"):
        return None
    try:
        return _files()[_pool().FindFileContainingSymbol(request.file_containing_symbol).name]
    except KeyError:
        return None


def _with_imports(file: FileDescriptorProto) -> Iterator[FileDescriptorProto]:
    yield file
    for name in file.dependency:
        yield from _with_imports(_files()[name])
