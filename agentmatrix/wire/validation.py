"""The check of decoded fields against the pydantic schema of their class.

A model is rebuilt from exactly the values that were sent, or rejected: a check never alters a value. The values were
those of a validated model, so they are checked against what the schema says of *validated* values:

1. strictly: each field against its type and constraints, and by its `after` validators. `before` validators parse
   input from outside and are left out; `wrap` and `plain` validators are called;
2. a field that fails is accepted if it equals its default, which pydantic does not validate either, or if the model's
   own validator in its ordinary mode returns the same value (enum values, lax types).

Then the model's own `after` validators are called with a copy of the instance.

LangChain's and LangGraph's own classes, messages above all, are often changed after they were validated, by LangChain
itself and by integrations: the dicts in them may lack keys or hold None, a count may be no int (see `_as_taken`), and
their `after` validators, which complete what has just been parsed, are left out.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticUndefined, SchemaValidator

from agentmatrix.wire.extensions import InvalidPart
from agentmatrix.wire.unencodable import UnencodableValue

_PARSER_KINDS: Final = frozenset({"function-before", "json"})
_DROPPED_KEYS: Final = frozenset(
    {"strict", "validation_alias", "serialization", "metadata", "init", "init_only", "kw_only", "computed_fields"}
)
_COPIED_KEYS: Final = frozenset(
    {"default", "default_factory", "function", "expected", "members", "cls", "config", "ref"}
)

_LIBRARIES: Final = frozenset({"langchain_core", "langgraph"})


class SchemaCheck:
    """Rejects values of fields that a validated instance of the class could not have.

    Args:
        cls: a pydantic model or a pydantic dataclass.
    """

    __slots__ = ("_after", "_cls", "_fields", "_root", "_strict")

    def __init__(self, cls: Any) -> None:
        self._cls = cls
        self._fields = cls.__pydantic_fields__
        self._root = bool(getattr(cls, "__pydantic_root_model__", False))
        schema, config, wrappers = _fields_schema(cls.__pydantic_core_schema__)
        if cls.__module__.partition(".")[0] in _LIBRARIES:
            schema, wrappers = _as_taken(schema), []
        self._strict = SchemaValidator(schema, config)
        self._after = [SchemaValidator(_around_instance(wrapper, cls)) for wrapper in wrappers]

    def __call__(self, fields: dict[str, Any], extra: dict[str, Any] | None = None) -> None:
        """Check the fields, and the extra fields of a model that allows them.

        Raises:
            InvalidPart: a field is missing, unknown or not valid.
        """
        if fields.keys() != self._fields.keys():
            missing = self._fields.keys() - fields.keys()
            name = min(missing or fields.keys() - self._fields.keys())
            raise InvalidPart(f"{self._cls.__qualname__} {'lacks its' if missing else 'has no'} field {name!r}")
        try:
            value = fields["root"] if self._root else {**fields, **extra} if extra else fields
            self._strict.validate_python(value, strict=True)
        except Exception as error:
            self._recheck(fields, error)

    def _recheck(self, fields: dict[str, Any], first: Exception) -> None:
        if not isinstance(first, ValidationError):
            failed = set(fields)
        else:
            failed = {str(e["loc"][0]) if e["loc"] and not self._root else "root" for e in _errors(first)}
        failed = {name for name in failed if type(fields.get(name)) is not UnencodableValue}
        failed = {name for name in failed if name not in fields or not self._is_default(name, fields[name])}
        if failed and not self._validates_unchanged(fields, failed):
            raise _invalid(self._cls, first) from first

    def _is_default(self, name: str, value: Any) -> bool:
        field = self._fields[name]
        if field.default is not PydanticUndefined:
            return is_same(field.default, value)
        if field.default_factory is None or field.default_factory_takes_validated_data:
            return False
        return is_same(field.default_factory(), value)

    def _validates_unchanged(self, fields: dict[str, Any], failed: set[str]) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = fields["root"] if self._root else dict(fields)
                again = self._cls.__pydantic_validator__.validate_python(value, by_name=True, by_alias=False)
        except Exception:
            return False
        return all(name in fields and is_same(fields[name], getattr(again, name)) for name in failed)

    def check_instance(self, instance: Any) -> None:
        """Call the class's own `after` validators with a copy of the instance, since they may change it.

        Raises:
            InvalidPart: one of them rejects it.
        """
        for validator in self._after:
            clone = copy.copy(instance)
            for name, value in getattr(clone, "__dict__", {}).items():
                if type(value) in (list, dict, set):
                    clone.__dict__[name] = copy.copy(value)
            try:
                validator.validate_python(clone)
            except Exception as error:
                raise _invalid(self._cls, error) from error


def check_v1_model(cls: Any, fields: dict[str, Any]) -> None:
    """Check the fields of a model of pydantic's version 1 interface: its validators return each unchanged.

    Raises:
        InvalidPart: a field is missing, unknown or not valid.
    """
    missing = cls.__fields__.keys() - fields.keys()
    unknown = fields.keys() - cls.__fields__.keys()
    if missing or (unknown and cls.__config__.extra != "allow"):
        raise InvalidPart(
            f"{cls.__qualname__} {'lacks its' if missing else 'has no'} field {min(missing or unknown)!r}"
        )
    for name, field in cls.__fields__.items():
        try:
            again, errors = field.validate(copy.copy(fields[name]), fields, loc=name, cls=cls)
        except Exception as error:
            raise _invalid(cls, error) from error
        if errors or not is_same(again, fields[name]):
            raise InvalidPart(f"{cls.__qualname__} cannot have this {name!r}")


def is_same(left: Any, right: Any) -> bool:
    """Whether two values are equal and of the same types, all the way down lists, tuples, sets and dicts."""
    if type(left) is not type(right):
        return False
    if type(left) in (list, tuple):
        return len(left) == len(right) and all(map(is_same, left, right))
    if type(left) is dict:
        return left.keys() == right.keys() and all(is_same(value, right[key]) for key, value in left.items())
    if type(left) in (set, frozenset):
        return bool(left == right) and sorted(map(repr, map(type, left))) == sorted(map(repr, map(type, right)))
    return left is right or bool(left == right)


def check_of(cls: Any) -> SchemaCheck | None:
    """The check of a class; None if it has no pydantic schema (a dataclass of the standard library)."""
    return SchemaCheck(cls) if isinstance(getattr(cls, "__pydantic_validator__", None), SchemaValidator) else None


def _errors(error: ValidationError) -> list[Any]:
    return error.errors(include_url=False, include_context=False, include_input=False)


def _invalid(cls: type, error: Exception) -> InvalidPart:
    if not isinstance(error, ValidationError):
        return InvalidPart(f"not a valid {cls.__qualname__} ({type(error).__name__}: {error})")
    first = _errors(error)[0]
    invalid = InvalidPart(f"not a valid {cls.__qualname__}: {first['msg']}")
    invalid.steps.extend(f".{part}" if isinstance(part, str) else f"[{part}]" for part in first["loc"][:1])
    return invalid


def _around_instance(wrapper: dict[str, Any], cls: type) -> Any:
    return {"type": "function-after", "function": wrapper["function"], "schema": {"type": "is-instance", "cls": cls}}


def _fields_schema(schema: Any) -> tuple[Any, Any, list[dict[str, Any]]]:
    """The schema of a class's fields alone, its configuration, and the `after` validators around the class."""
    named = {part["ref"]: part for part in schema.get("definitions", ())}
    node, wrappers = schema, []
    while node["type"] not in ("model", "dataclass"):
        if node["type"] == "function-after":
            wrappers.append(node)
        node = named[node["schema_ref"]] if node["type"] == "definition-ref" else node["schema"]
    config, root, node = node.get("config", {}), node.get("root_model"), node["schema"]
    while not root and node["type"] not in ("model-fields", "dataclass-args"):
        node = node["schema"]
    fields = _validated_schema(node)
    if named:
        fields = {
            "type": "definitions",
            "schema": fields,
            "definitions": [_validated_schema(part) for part in named.values()],
        }
    return fields, config, wrappers


def _validated_schema(node: Any) -> Any:
    """A copy of a schema for validated values: no parsers, no aliases, no lax modes.

    Of an inner model it checks the class alone: its fields were checked when it was decoded.
    """
    if isinstance(node, (list, tuple)):
        return type(node)(map(_validated_schema, node))
    if not isinstance(node, dict):
        return node
    kind = node.get("type")
    if not isinstance(kind, str):  # a table of schemas, one of which may be called "type"
        return {key: _validated_schema(value) for key, value in node.items()}
    if kind in _PARSER_KINDS:
        return _validated_schema(node["schema"]) if "schema" in node else {"type": "any"}
    if kind in ("model", "dataclass"):
        return {"type": "is-instance", "cls": node["cls"], **({"ref": node["ref"]} if "ref" in node else {})}
    return {
        key: value if key in _COPIED_KEYS else _validated_schema(value)
        for key, value in node.items()
        if key not in _DROPPED_KEYS
    }


def _as_taken(node: Any, *, in_dict: bool = False) -> Any:
    """A copy of a schema of validated values that takes what libraries make of their own messages.

    Any field may be None. The keys of a typed dict may be missing, and its numbers and words are not looked at.
    """
    if isinstance(node, (list, tuple)):
        return type(node)(_as_taken(part, in_dict=in_dict) for part in node)
    if not isinstance(node, dict):
        return node
    kind = node.get("type")
    if in_dict and kind in ("int", "float", "literal"):
        return {"type": "any"}
    if kind in ("model-field", "typed-dict-field"):
        return {**node, "schema": {"type": "nullable", "schema": _as_taken(node["schema"], in_dict=in_dict)}} | (
            {"required": False} if kind == "typed-dict-field" else {}
        )
    in_dict = in_dict or kind == "typed-dict"
    return {
        key: value if isinstance(kind, str) and key in _COPIED_KEYS else _as_taken(value, in_dict=in_dict)
        for key, value in node.items()
    }
