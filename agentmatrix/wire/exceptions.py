"""Exceptions as parts of values: how the codec encodes and decodes them.

An exception crosses with its type, arguments, notes, attributes, cause, context, group and the text of its traceback.
Its class is looked up in the allow-list and, for exceptions only, in the modules that are already imported: nothing is
imported, and no constructor of a class written in Python is called. An argument or attribute that cannot cross becomes
its `repr`; an exception whose class is not known here becomes a `RemoteError`. The traceback is the last cause of the
chain, a `RemoteTraceback`, as in `concurrent.futures` for processes; an exception that passes through several hosts
keeps the first one.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any, Final

import langchain_core.exceptions  # noqa: F401 - so that its classes are found among the imported modules
import langgraph.errors
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from agentmatrix.errors import RemoteError
from agentmatrix.wire.extensions import InvalidPart, Marker, PartDecoder, PartEncoder, Tag, Undecodable
from agentmatrix.wire.objects import HEAP_TYPE, instance_state, wire_name

_LONGEST_TEXT: Final = 100_000
_LAYOUT: Final[dict[type[BaseException], tuple[str, ...]]] = {
    OSError: ("errno", "strerror", "filename", "filename2"),
    StopIteration: ("value",),
    SystemExit: ("code",),
    ImportError: ("msg", "name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
    SyntaxError: (
        *("msg", "filename", "lineno", "offset", "text"),
        *("end_lineno", "end_offset", "print_file_and_line"),
    ),
    UnicodeError: ("encoding", "object", "start", "end", "reason"),
}
"""Attributes that built-in exceptions keep outside `args` and `__dict__`."""
_MOST_NOTES: Final = 100
_CONTROL_FLOW: Final = (langgraph.errors.GraphBubbleUp, GeneratorExit)


class RemoteTraceback(Exception):
    """The traceback on the host, as text; the last cause of an exception from there.

    Attributes:
        text: the output of `traceback.format_exception` on the host for the exception and its causes.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def encode_exception(encoder: PartEncoder, error: BaseException, depth: int) -> list[Any]:
    """Encode an exception with its traceback, but control flow without one: nobody reads it."""
    parts = _encode_parts(encoder, error, depth, seen=set())
    if not isinstance(error, _CONTROL_FLOW):
        text = _traceback(error)
        if text:
            parts["traceback"] = text
    return [EXCEPTION.ext, parts]


def encode_without_traceback(encoder: PartEncoder, error: BaseException, depth: int) -> list[Any]:
    """Encode an exception, and nothing of the files and the source of this process."""
    return [EXCEPTION.ext, _encode_parts(encoder, error, depth, seen=set())]


def _encode_parts(encoder: PartEncoder, error: BaseException, depth: int, seen: set[int]) -> dict[str, Any]:
    seen.add(id(error))
    parts: dict[str, Any] = {
        "type": wire_name(type(error)),
        "text": encoder.encode_part(text_of(error)[:_LONGEST_TEXT], depth),
    }
    if not isinstance(error, BaseExceptionGroup):
        parts["args"] = [_encode_or_repr(encoder, value, depth + 1) for value in error.args]
    names = [name for cls, names in _LAYOUT.items() if isinstance(error, cls) for name in names]
    layout = {name: getattr(error, name) for name in names if getattr(error, name, None) is not None}
    if isinstance(error, ValidationError):
        layout = {"title": error.title, "errors": error.errors(include_url=False)}
    state = {name: value for name, value in instance_state(error).items() if not name.startswith("__")}
    notes = _shortened([str(note) for note in getattr(error, "__notes__", ())])
    for name, values in (("layout", layout), ("state", state)):
        if values:
            parts[name] = {key: _encode_or_repr(encoder, value, depth + 1) for key, value in values.items()}
    if notes:
        parts["notes"] = encoder.encode_field(notes, "", depth)
    if isinstance(error, BaseExceptionGroup):
        parts["message"] = encoder.encode_part(str(error.message), depth)
        parts["group"] = [_encode_linked(encoder, child, depth + 1, seen) for child in error.exceptions]
    return parts | _encode_chain(encoder, error, depth, seen)


def _shortened(notes: list[str]) -> list[str]:
    """The notes of an exception: of very many the first and the last, since LangGraph adds one in each graph around."""
    if len(notes) <= _MOST_NOTES:
        return notes
    half = _MOST_NOTES // 2
    return [*notes[:half], "... and so on ...", *notes[-half:]]


def _encode_chain(encoder: PartEncoder, error: BaseException, depth: int, seen: set[int]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    cause, context = error.__cause__, error.__context__
    if cause is not None and not isinstance(cause, RemoteTraceback) and id(cause) not in seen:
        parts["cause"] = _encode_linked(encoder, cause, depth, seen)
    if context is not None and context is cause:
        parts["context"] = True
    elif context is not None and id(context) not in seen:
        parts["context"] = _encode_linked(encoder, context, depth, seen)
    if error.__suppress_context__ and not isinstance(cause, RemoteTraceback):
        parts["suppress"] = True
    return parts


def _encode_linked(encoder: PartEncoder, error: BaseException, depth: int, seen: set[int]) -> Any:
    """Encode a cause, a context or a member of a group; None where the chain is nested too deep for a decoder."""
    if depth >= 100:
        return None
    return [EXCEPTION.ext, _encode_parts(encoder, error, depth + 2, seen)]


def _encode_or_repr(encoder: PartEncoder, value: Any, depth: int) -> Any:
    try:
        return encoder.encode_field(value, "", depth)
    except (InvalidPart, RecursionError):
        return encoder.encode_part(_repr(value), depth)


def _repr(value: Any) -> str:
    try:
        return repr(value)[:_LONGEST_TEXT]
    except Exception:
        return f"<{type(value).__qualname__}>"


def text_of(error: BaseException) -> str:
    """The text of an exception, also where its `__str__` fails."""
    try:
        return str(error)
    except Exception:
        return f"<{type_name_of(error)}, whose text cannot be had>"


def type_name_of(error: BaseException) -> str:
    """The qualified name of its class, `"package.module.Class"`."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _end_of_chain(error: BaseException) -> BaseException:
    """The last exception in the chain of causes and contexts that Python would print."""
    seen = {id(error)}
    while True:
        following = error.__cause__
        if following is None and not error.__suppress_context__:
            following = error.__context__
        if following is None or id(following) in seen or isinstance(following, RemoteTraceback):
            return error
        seen.add(id(following))
        error = following


def _traceback(error: BaseException) -> str:
    end = _end_of_chain(error)
    if isinstance(end.__cause__, RemoteTraceback):
        return end.__cause__.text
    if error.__traceback__ is None:
        return ""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:
        return ""
    return (text if len(text) <= _LONGEST_TEXT else f"...\n{text[-_LONGEST_TEXT:]}").encode(errors="replace").decode()


def _decode_exception(decoder: PartDecoder, payload: list[Any], depth: int) -> BaseException:
    decoder.charge(2_000)
    (parts,) = payload[1:]
    if type(parts) is not dict or type(parts.get("type")) is not str:
        raise InvalidPart("no exception")
    name, text = parts["type"], decoder.decode_field(parts.get("text", ""), ".text", depth)
    args = [_decode_or_text(decoder, part, depth + 1) for part in parts.get("args", ())]
    layout = {key: _decode_or_text(decoder, part, depth + 1) for key, part in parts.get("layout", {}).items()}
    state = {key: _decode_or_text(decoder, part, depth + 1) for key, part in parts.get("state", {}).items()}
    group = decoder.decode_field(parts.get("group"), "", depth)
    message = decoder.decode_field(parts.get("message", ""), "", depth)
    error = _rebuild(decoder, name, text, args, layout, state, (message, group))
    _restore_links(decoder, error, parts, depth)
    return error


def _decode_or_text(decoder: PartDecoder, part: Any, depth: int) -> Any:
    try:
        return decoder.decode_field(part, "", depth)
    except InvalidPart as invalid:
        if not invalid.not_allowed:
            raise
        return _encoded_as_text(part)


def _encoded_as_text(raw: Any) -> str:
    """A text for an object of a class that is not in the allow-list, made from its encoded parts."""
    if isinstance(raw, Undecodable):
        return raw.reason.removeprefix("the type ").partition(" is not listed")[0]
    if isinstance(raw, dict):
        inside = ", ".join(f"{key}={_encoded_as_text(value)}" for key, value in raw.items() if key.isidentifier())
        return f"{_encoded_as_text(raw[''])}({inside})" if "" in raw else f"{{{inside}}}"
    if isinstance(raw, list):
        texts = [_encoded_as_text(value) for value in raw if not isinstance(value, Marker)]
        is_object = bool(raw) and isinstance(raw[0], Undecodable)
        return f"{texts[0]}({', '.join(texts[1:])})" if is_object else f"[{', '.join(texts)}]"
    return repr(raw)


def _rebuild(
    decoder: PartDecoder,
    name: str,
    text: str,
    args: list[Any],
    layout: dict[str, Any],
    state: dict[str, Any],
    group: tuple[str, Any],
) -> BaseException:
    cls = _exception_class(decoder, name)
    try:
        if cls is ValidationError:
            return _validation_error(layout, state)
        if cls is not None:
            error = _instance(cls, args, layout, state, group)
            str(error)
            return error
    except Exception:
        cls = None
    type_name = name.replace(":", ".")
    unknown = RemoteError(f"{type_name}: {text}", type_name=type_name)
    unknown.__dict__["original_args"] = tuple(args)
    unknown.__dict__["original_exceptions"] = tuple(group[1] or ())
    return unknown


def _exception_class(decoder: PartDecoder, name: str) -> type[BaseException] | None:
    found: Any = decoder.allowed_class(name)
    if found is None:
        module, _, qualname = name.partition(":")
        found = sys.modules.get(module)
        for part in qualname.split("."):  # through __dict__: getattr could run a module's __getattr__
            found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _instance(
    cls: type[BaseException], args: list[Any], layout: dict[str, Any], state: dict[str, Any], group: tuple[str, Any]
) -> BaseException:
    # The constructor of the built-in base: it fills the memory that C keeps for the exception.
    base: Any = next(base for base in cls.__mro__ if not base.__flags__ & HEAP_TYPE)
    if issubclass(cls, BaseExceptionGroup):
        children = [child for child in group[1] if child is not None]
        error: BaseException = BaseExceptionGroup.__new__(cls, group[0], children)
        error.args = (group[0], children)
    else:
        error = base.__new__(cls, *args)
        error.args = tuple(args)
    allowed = {name for known, names in _LAYOUT.items() if issubclass(cls, known) for name in names}
    for name, value in layout.items():
        if name in allowed:
            BaseException.__setattr__(error, name, value)
    for name, value in state.items():
        if not name.startswith("__"):
            BaseException.__setattr__(error, name, value)
    return error


def _validation_error(layout: dict[str, Any], state: dict[str, Any]) -> BaseException:
    lines = [_error_details(layout["title"], line) for line in layout["errors"]]
    error = ValidationError.from_exception_data(layout["title"], lines)
    for name, value in state.items():
        if not name.startswith("__"):
            setattr(error, name, value)
    return error


def _error_details(title: str, line: dict[str, Any]) -> InitErrorDetails:
    details: InitErrorDetails = {"type": line["type"], "loc": tuple(line["loc"]), "input": line["input"]}
    if "ctx" in line:
        details["ctx"] = line["ctx"]
    try:
        made = ValidationError.from_exception_data(title, [details])
        if made.errors()[0]["msg"] == line["msg"]:
            return details
    except (TypeError, ValueError, KeyError):
        pass  # a type of the application's own
    custom = PydanticCustomError(line["type"], line["msg"])
    return {"type": custom, "loc": tuple(line["loc"]), "input": line["input"]}


def _restore_links(decoder: PartDecoder, error: BaseException, parts: dict[str, Any], depth: int) -> None:
    notes = decoder.decode_field(parts.get("notes"), "", depth)
    if notes:
        error.__notes__ = [str(note) for note in notes]
    cause = decoder.decode_field(parts.get("cause"), ".__cause__", depth)
    context = (
        cause if parts.get("context") is True else decoder.decode_field(parts.get("context"), ".__context__", depth)
    )
    error.__cause__ = cause
    error.__context__ = context
    error.__suppress_context__ = parts.get("suppress") is True
    if type(parts.get("traceback")) is str:
        _end_of_chain(error).__cause__ = RemoteTraceback(parts["traceback"])


EXCEPTION = Tag(48, _decode_exception)
