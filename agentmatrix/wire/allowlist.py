"""The allow-list of a codec: the classes that each codec has, and those that `allow=` and schemas add."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, Final

import typing_extensions
from pydantic import BaseModel

from agentmatrix.wire.objects import base_of, is_named_tuple, is_plain, wire_name

_BUILT_IN: Final = {
    "langchain_core.agents": "AgentAction AgentActionMessageLog AgentFinish AgentStep",
    "langchain_core.chat_history": "InMemoryChatMessageHistory",
    "langchain_core.documents": "Document Blob",
    "langchain_core.messages": "AIMessage AIMessageChunk BaseMessage BaseMessageChunk ChatMessage ChatMessageChunk "
    "FunctionMessage FunctionMessageChunk HumanMessage HumanMessageChunk RemoveMessage SystemMessage "
    "SystemMessageChunk ToolMessage ToolMessageChunk",
    "langchain_core.messages.base": "TextAccessor",
    "langchain_core.outputs": "ChatGeneration ChatGenerationChunk ChatResult Generation GenerationChunk LLMResult "
    "RunInfo",
    "langchain_core.prompt_values": "ChatPromptValue ChatPromptValueConcrete ImagePromptValue ImageURL PromptValue "
    "StringPromptValue",
    "langchain_core.runnables.utils": "AddableDict",
    "langchain_core.structured_query": "Comparator Comparison Operation Operator StructuredQuery",
    "langgraph.callbacks": "GraphInterruptEvent GraphResumeEvent",
    "langgraph.checkpoint.base": "CheckpointTuple",
    "langgraph.checkpoint.serde.types": "*",
    "langgraph.errors": "ErrorCode NodeError",
    "langgraph.runtime": "ExecutionInfo ServerInfo",
    "langgraph.store.base": "GetOp Item ListNamespacesOp MatchCondition PutOp SearchItem SearchOp",
    "langgraph.types": "CacheKey Command GraphOutput Interrupt Overwrite PregelTask RetryPolicy Send StateSnapshot "
    "StateUpdate TimeoutPolicy",
}
_VALUE_CLASSES: Final = frozenset(
    {bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, object, type(None)}
)
"""Classes that may be values themselves, such as the factory of a defaultdict."""


def is_data_class(cls: type) -> bool:
    """Whether instances of a class can be encoded: they are nothing but their fields or attributes."""
    if issubclass(cls, (BaseModel, Enum)) or dataclasses.is_dataclass(cls) or is_named_tuple(cls):
        return True
    return base_of(cls) is not None or is_plain(cls)


@functools.cache
def built_in_classes() -> dict[str, type]:
    """The classes that each codec allows, by wire name."""
    table = {wire_name(cls): cls for cls in _VALUE_CLASSES}
    for module_name, names in _BUILT_IN.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        found = classes_of(module) if names == "*" else [getattr(module, name, None) for name in names.split()]
        table.update((wire_name(cls), cls) for cls in found if isinstance(cls, type))
    return table


def allowed_classes(allow: Iterable[object]) -> dict[str, type]:
    """The classes that `allow=` names, by wire name; of two with the same name the last one counts.

    Args:
        allow: classes, modules, or names of modules (or of classes, `"package.module.Class"`).

    Raises:
        ValueError: a name that is neither a module's nor a class's.
        TypeError: something else.
    """
    table: dict[str, type] = {}
    for item in (allow,) if isinstance(allow, str) else allow:
        for cls in _classes_named_by(item):
            table.update((wire_name(part), part) for part in types_of(cls))
            if not typing_extensions.is_typeddict(cls):
                table[wire_name(cls)] = cls
    return table


def _classes_named_by(item: object) -> Iterator[type]:
    if isinstance(item, str):
        item = _import(item)
    if isinstance(item, type):
        yield item
    elif isinstance(item, types.ModuleType):
        yield from classes_of(item)
    elif typing.get_origin(item) is not None:
        yield from types_of(item)
    else:
        raise TypeError(f"allow= takes classes, modules and names of modules, not {item!r}")


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        module, _, attribute = name.replace(":", ".").rpartition(".")
        if module and error.name is not None and name.startswith(error.name):
            try:
                return getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError):
                pass
        raise ValueError(f"allow=[{name!r}] names no module that can be imported") from error


def classes_of(module: types.ModuleType) -> Iterator[type]:
    """The classes in a module's namespace that it, or for a package one of its modules, defines; nested classes too."""
    pending = list(vars(module).values())
    seen: set[int] = set()
    inside = module.__name__ + "."
    while pending:
        item = pending.pop()
        if not isinstance(item, type) or id(item) in seen:
            continue
        seen.add(id(item))
        if item.__module__ == module.__name__ or item.__module__.startswith(inside):
            yield item
            pending.extend(vars(item).values())


def types_of(*annotations: object) -> set[type]:
    """The classes whose instances may occur in values of the annotations.

    Pydantic models, dataclasses, enums, named tuples, subclasses of built-in types and ordinary Python classes, found
    through fields, `Annotated`, unions, generics and TypedDicts. Subclasses that the module of an annotated class
    defines count too, since a field of a base class holds them.

    Args:
        annotations: classes and type expressions; anything else is ignored.

    Returns:
        The classes. Never raises.
    """
    found: set[type] = set()
    pending: list[object] = list(annotations)
    seen: set[int] = set()
    keep: list[object] = []
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        keep.append(item)  # so that no other object gets its id
        try:
            pending.extend(_parts(item))
            if isinstance(item, type) and _is_user_class(item):
                found.add(item)
        except Exception:
            continue
    return found


def _is_user_class(cls: type) -> bool:
    if typing_extensions.is_typeddict(cls) or cls in _VALUE_CLASSES or getattr(cls, "_is_protocol", False):
        return False
    if cls.__module__.partition(".")[0] in sys.stdlib_module_names and cls.__module__ != "__main__":
        return False
    return cls is not BaseModel and is_data_class(cls) and not issubclass(cls, (BaseException, type))


def _parts(item: Any) -> Iterator[object]:
    """The annotations one level inside an annotation."""
    if isinstance(item, (list, tuple)):
        yield from item
    origin = typing_extensions.get_origin(item)
    if origin is typing.Annotated:
        yield typing_extensions.get_args(item)[0]
    elif origin in (typing.Literal, typing_extensions.Literal):
        yield from map(type, typing_extensions.get_args(item))
    elif origin is not None:
        yield origin
        yield from typing_extensions.get_args(item)
    if isinstance(item, (typing.TypeVar, typing_extensions.TypeVar)):
        yield from (item.__bound__, item.__constraints__, getattr(item, "__default__", None))
    elif not isinstance(item, type):
        yield from (getattr(item, "__value__", None), getattr(item, "__supertype__", None))
    else:
        yield from _fields_of(item)


def _fields_of(cls: type) -> Iterator[object]:
    if cls.__module__ == "builtins":
        return
    if issubclass(cls, BaseModel):
        for field in cls.model_fields.values():
            yield field.annotation
        generic = cls.__pydantic_generic_metadata__
        yield from (generic["args"], generic["origin"])
    yield from getattr(cls, "__orig_bases__", ())
    if is_data_class(cls) and _is_user_class(cls):
        yield from [known for known in _subclasses(cls) if known.__module__ == cls.__module__]
    yield from _hints(cls)


def _subclasses(cls: type) -> list[type]:
    return type.__subclasses__(cls)


def _hints(cls: type) -> Iterator[object]:
    try:
        yield from typing_extensions.get_type_hints(cls, include_extras=True).values()
    except Exception:
        names = {**vars(sys.modules.get(cls.__module__, types)), **vars(cls)}
        for annotation in inspect.get_annotations(cls).values():
            try:
                yield eval(annotation, names) if isinstance(annotation, str) else annotation
            except Exception:
                continue
