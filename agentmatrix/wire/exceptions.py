"""Exceptions to bytes and back.

An exception crosses with its type, arguments, notes, attributes, cause, context, group and the text of its traceback.
Its class is looked up among the listed classes and, for exceptions only, among the modules that are already imported:
nothing is imported, and no constructor is called. What cannot cross becomes its `repr`, a class that is not known here
becomes `RemoteError`. The traceback stands at the end of the chain of causes as a `RemoteTraceback`, as
`concurrent.futures` does it for processes; an exception that passes through several hosts keeps the first one.
"""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any, Final

import langchain_core.exceptions  # noqa: F401 - so that its classes are known
import langgraph.errors
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from agentmatrix.errors import DecodeError, EncodeError, RemoteError
from agentmatrix.wire.extensions import Broken, Decoding, Encoding, Marker, Refusal, Tag
from agentmatrix.wire.objects import name_of, state_of

if TYPE_CHECKING:
    from agentmatrix.wire.codec import Codec

_LONGEST_TEXT: Final = 100_000
_SHORT_TEXT: Final = 2_000
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
"""What built-in exceptions keep outside `args` and `__dict__`."""
_CONTROL_FLOW: Final = (langgraph.errors.GraphBubbleUp, GeneratorExit)


class RemoteTraceback(Exception):
    """The traceback of the host, as text; the last cause of an exception that came from there.

    Attributes:
        text: what Python printed on the host for the exception and its causes.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def encode_failure(error: BaseException, codec: Codec) -> bytes:
    """The bytes of an exception. Never raises: what cannot cross is replaced by its `repr`.

    Args:
        error: the exception, with or without a traceback.
        codec: lists the classes of arguments and attributes.
    """
    try:
        return codec.encode(error, "error")
    except (EncodeError, RecursionError, MemoryError):
        text = _text(error)[:_SHORT_TEXT]
        return codec.encode(RemoteError(f"{_type_name(error)}: {text}", type_name=_type_name(error)))


def decode_failure(data: bytes, codec: Codec) -> BaseException:
    """The exception of some bytes.

    Args:
        data: what `encode_failure` gave, or anything else that a peer sent.
        codec: lists the classes of arguments and attributes.

    Returns:
        The exception, with its own class if that is listed or already imported, else a `RemoteError`.

    Raises:
        DecodeError: the bytes are no exception.
    """
    error = codec.decode(data, "error")
    if not isinstance(error, BaseException):
        raise DecodeError(f"error: a {type(error).__name__} where an exception was due")
    return error


def lower(walk: Encoding, error: BaseException, depth: int) -> list[Any]:
    """Take an exception apart, its traceback included."""
    parts = _parts(walk, error, depth, seen=set())
    if not isinstance(error, _CONTROL_FLOW):
        text = _traceback(error)
        if text:
            parts["traceback"] = text
    return [FAILURE.ext, parts]


def _parts(walk: Encoding, error: BaseException, depth: int, seen: set[int]) -> dict[str, Any]:
    seen.add(id(error))
    parts: dict[str, Any] = {
        "type": name_of(type(error)),
        "text": walk.lower(_text(error)[:_LONGEST_TEXT], depth),
    }
    if not isinstance(error, BaseExceptionGroup):
        parts["args"] = [_or_repr(walk, value, depth + 1) for value in error.args]
    names = [name for cls, names in _LAYOUT.items() if isinstance(error, cls) for name in names]
    layout = {name: getattr(error, name) for name in names if getattr(error, name, None) is not None}
    if isinstance(error, ValidationError):
        layout = {"title": error.title, "errors": error.errors(include_url=False)}
    state = {name: value for name, value in state_of(error).items() if not name.startswith("__")}
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    for name, values in (("layout", layout), ("state", state)):
        if values:
            parts[name] = {key: _or_repr(walk, value, depth + 1) for key, value in values.items()}
    if notes:
        parts["notes"] = walk.field(notes, "", depth)
    if isinstance(error, BaseExceptionGroup):
        parts["message"] = walk.lower(str(error.message), depth)
        parts["group"] = [_linked(walk, child, depth + 1, seen) for child in error.exceptions]
    return parts | _chain(walk, error, depth, seen)


def _chain(walk: Encoding, error: BaseException, depth: int, seen: set[int]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    cause, context = error.__cause__, error.__context__
    if cause is not None and not isinstance(cause, RemoteTraceback) and id(cause) not in seen:
        parts["cause"] = _linked(walk, cause, depth, seen)
    if context is not None and context is cause:
        parts["context"] = True
    elif context is not None and id(context) not in seen:
        parts["context"] = _linked(walk, context, depth, seen)
    if error.__suppress_context__ and not isinstance(cause, RemoteTraceback):
        parts["suppress"] = True
    return parts


def _linked(walk: Encoding, error: BaseException, depth: int, seen: set[int]) -> Any:
    """An exception inside an exception; None where the chain is too long."""
    if depth >= 100:
        return None
    return [FAILURE.ext, _parts(walk, error, depth + 2, seen)]


def _or_repr(walk: Encoding, value: Any, depth: int) -> Any:
    try:
        return walk.field(value, "", depth)
    except (Refusal, RecursionError):
        return walk.lower(_repr(value), depth)


def _repr(value: Any) -> str:
    try:
        return repr(value)[:_LONGEST_TEXT]
    except Exception:
        return f"<{type(value).__qualname__}>"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"<{_type_name(error)}, whose text cannot be had>"


def _type_name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _last(error: BaseException) -> BaseException:
    """The end of the chain of causes and contexts."""
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
    end = _last(error)
    if isinstance(end.__cause__, RemoteTraceback):
        return end.__cause__.text
    if error.__traceback__ is None:
        return ""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:
        return ""
    return (text if len(text) <= _LONGEST_TEXT else f"...\n{text[-_LONGEST_TEXT:]}").encode(errors="replace").decode()


def _lift(walk: Decoding, payload: list[Any], depth: int) -> BaseException:
    walk.charge(2_000)
    (parts,) = payload[1:]
    if type(parts) is not dict or type(parts.get("type")) is not str:
        raise Refusal("no exception")
    name, text = parts["type"], walk.field(parts.get("text", ""), ".text", depth)
    args = [_lift_part(walk, part, depth + 1) for part in parts.get("args", ())]
    layout = {key: _lift_part(walk, part, depth + 1) for key, part in parts.get("layout", {}).items()}
    state = {key: _lift_part(walk, part, depth + 1) for key, part in parts.get("state", {}).items()}
    group = walk.field(parts.get("group"), "", depth)
    message = walk.field(parts.get("message", ""), "", depth)
    error = _rebuilt(walk, name, text, args, layout, state, (message, group))
    _link(walk, error, parts, depth)
    return error


def _lift_part(walk: Decoding, part: Any, depth: int) -> Any:
    try:
        return walk.field(part, "", depth)
    except Refusal as refusal:
        if not refusal.unlisted:
            raise
        return _readable(part)


def _readable(raw: Any) -> str:
    """What an object of an unlisted class looked like."""
    if isinstance(raw, Broken):
        return raw.reason.removeprefix("the type ").partition(" is not listed")[0]
    if isinstance(raw, dict):
        inside = ", ".join(f"{key}={_readable(value)}" for key, value in raw.items() if key.isidentifier())
        return f"{_readable(raw[''])}({inside})" if "" in raw else f"{{{inside}}}"
    if isinstance(raw, list):
        texts = [_readable(value) for value in raw if not isinstance(value, Marker)]
        is_object = bool(raw) and isinstance(raw[0], Broken)
        return f"{texts[0]}({', '.join(texts[1:])})" if is_object else f"[{', '.join(texts)}]"
    return repr(raw)


def _rebuilt(
    walk: Decoding,
    name: str,
    text: str,
    args: list[Any],
    layout: dict[str, Any],
    state: dict[str, Any],
    group: tuple[str, Any],
) -> BaseException:
    cls = _class(walk, name)
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


def _class(walk: Decoding, name: str) -> type[BaseException] | None:
    found: Any = walk.admitted(name)
    if found is None:
        module, _, qualname = name.partition(":")
        found = sys.modules.get(module)
        for part in qualname.split("."):  # through __dict__: getattr could run a module's __getattr__
            found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _instance(
    cls: type[BaseException], args: list[Any], layout: dict[str, Any], state: dict[str, Any], group: tuple[str, Any]
) -> BaseException:
    base: Any = next(base for base in cls.__mro__ if not base.__flags__ & 1 << 9)
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
    lines = [_line(layout["title"], line) for line in layout["errors"]]
    error = ValidationError.from_exception_data(layout["title"], lines)
    for name, value in state.items():
        if not name.startswith("__"):
            setattr(error, name, value)
    return error


def _line(title: str, line: dict[str, Any]) -> InitErrorDetails:
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


def _link(walk: Decoding, error: BaseException, parts: dict[str, Any], depth: int) -> None:
    notes = walk.field(parts.get("notes"), "", depth)
    if notes:
        error.__notes__ = [str(note) for note in notes]
    cause = walk.field(parts.get("cause"), ".__cause__", depth)
    context = cause if parts.get("context") is True else walk.field(parts.get("context"), ".__context__", depth)
    error.__cause__ = cause
    error.__context__ = context
    error.__suppress_context__ = parts.get("suppress") is True
    if type(parts.get("traceback")) is str:
        _last(error).__cause__ = RemoteTraceback(parts["traceback"])


FAILURE = Tag(48, _lift)

__all__ = ["RemoteTraceback", "decode_failure", "encode_failure"]
