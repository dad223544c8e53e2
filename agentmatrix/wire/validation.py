"""The check of decoded fields against their class's pydantic schema.

A model is rebuilt from exactly the values that were sent, or refused: a check never alters a value. The values came
out of a validated model once, so they are held against what the schema says of *validated* values:

1. strictly, each field against its type and constraints, and through its `after` validators; `before` validators
   parse outside input and are left out, `wrap` and `plain` ones are asked;
2. a field that fails is accepted if it equals its class's default, which pydantic does not validate either, or if
   the model's whole validator, asked as pydantic would be, gives the same value back (enum values, lax types).

Then the model's own `after` validators see a copy of the instance.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticUndefined, SchemaValidator

from agentmatrix.wire.extensions import Refusal

_PARSERS: Final = frozenset({"function-before", "json"})
_FORGOTTEN: Final = frozenset(
    {"strict", "validation_alias", "serialization", "metadata", "init", "init_only", "kw_only", "computed_fields"}
)
_OPAQUE: Final = frozenset({"default", "default_factory", "function", "expected", "members", "cls", "config", "ref"})


class Check:
    """Refuses fields that an instance of the class could not have.

    Args:
        cls: a pydantic model or a pydantic dataclass.
    """

    __slots__ = ("_cls", "_defaults", "_fields", "_root", "_strict", "_whole")

    def __init__(self, cls: Any) -> None:
        self._cls = cls
        self._fields = cls.__pydantic_fields__
        self._root = bool(getattr(cls, "__pydantic_root_model__", False))
        schema, config, wrappers = _fields_schema(cls.__pydantic_core_schema__)
        self._strict = SchemaValidator(schema, config)
        self._whole = [SchemaValidator(_around_instance(wrapper, cls)) for wrapper in wrappers]

    def __call__(self, fields: dict[str, Any], extra: dict[str, Any] | None = None) -> None:
        """Raise `Refusal` unless the fields, and the extra fields of a model that takes any, are right."""
        if fields.keys() != self._fields.keys():
            missing = self._fields.keys() - fields.keys()
            name = min(missing or fields.keys() - self._fields.keys())
            raise Refusal(f"{self._cls.__qualname__} {'lacks its' if missing else 'has no'} field {name!r}")
        try:
            asked = fields["root"] if self._root else {**fields, **extra} if extra else fields
            self._strict.validate_python(asked, strict=True)
        except Exception as error:
            self._second_opinion(fields, error)

    def _second_opinion(self, fields: dict[str, Any], first: Exception) -> None:
        if not isinstance(first, ValidationError):
            doubtful = set(fields)
        else:
            doubtful = {str(e["loc"][0]) if e["loc"] and not self._root else "root" for e in _errors(first)}
        doubtful = {name for name in doubtful if name not in fields or not self._is_default(name, fields[name])}
        if doubtful and not self._maps_to_itself(fields, doubtful):
            raise _refusal(self._cls, first) from first

    def _is_default(self, name: str, value: Any) -> bool:
        field = self._fields[name]
        if field.default is not PydanticUndefined:
            return same(field.default, value)
        if field.default_factory is None or field.default_factory_takes_validated_data:
            return False
        return same(field.default_factory(), value)

    def _maps_to_itself(self, fields: dict[str, Any], doubtful: set[str]) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                asked = fields["root"] if self._root else dict(fields)
                again = self._cls.__pydantic_validator__.validate_python(asked, by_name=True, by_alias=False)
        except Exception:
            return False
        return all(name in fields and same(fields[name], getattr(again, name)) for name in doubtful)

    def whole(self, instance: Any) -> None:
        """Raise `Refusal` unless the class's own `after` validators accept the instance."""
        for validator in self._whole:
            twin = copy.copy(instance)
            for name, value in getattr(twin, "__dict__", {}).items():
                if type(value) in (list, dict, set):
                    twin.__dict__[name] = copy.copy(value)
            try:
                validator.validate_python(twin)
            except Exception as error:
                raise _refusal(self._cls, error) from error


def check_old(cls: Any, fields: dict[str, Any]) -> None:
    """Refuse fields that a model of pydantic's version 1 interface would not keep as they are."""
    missing = cls.__fields__.keys() - fields.keys()
    unknown = fields.keys() - cls.__fields__.keys()
    if missing or (unknown and cls.__config__.extra != "allow"):
        raise Refusal(f"{cls.__qualname__} {'lacks its' if missing else 'has no'} field {min(missing or unknown)!r}")
    for name, field in cls.__fields__.items():
        try:
            again, errors = field.validate(copy.copy(fields[name]), fields, loc=name, cls=cls)
        except Exception as error:
            raise _refusal(cls, error) from error
        if errors or not same(again, fields[name]):
            raise Refusal(f"{cls.__qualname__} cannot have this {name!r}")


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal and of the same types, all the way down lists, tuples, sets and dicts."""
    if type(left) is not type(right):
        return False
    if type(left) in (list, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if type(left) is dict:
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if type(left) in (set, frozenset):
        return bool(left == right) and sorted(map(repr, map(type, left))) == sorted(map(repr, map(type, right)))
    return left is right or bool(left == right)


def check_of(cls: Any) -> Check | None:
    """The check of a class; None if it has no pydantic schema (a dataclass of the standard library)."""
    return Check(cls) if isinstance(getattr(cls, "__pydantic_validator__", None), SchemaValidator) else None


def _errors(error: ValidationError) -> list[Any]:
    return error.errors(include_url=False, include_context=False, include_input=False)


def _refusal(cls: type, error: Exception) -> Refusal:
    if not isinstance(error, ValidationError):
        return Refusal(f"not a valid {cls.__qualname__} ({type(error).__name__}: {error})")
    first = _errors(error)[0]
    refusal = Refusal(f"not a valid {cls.__qualname__}: {first['msg']}")
    refusal.steps.extend(f".{part}" if isinstance(part, str) else f"[{part}]" for part in first["loc"][:1])
    return refusal


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
    fields = _checking(node)
    if named:
        fields = {"type": "definitions", "schema": fields, "definitions": [_checking(part) for part in named.values()]}
    return fields, config, wrappers


def _checking(node: Any) -> Any:
    """A copy of a schema that checks validated values: no parsers, no aliases, nothing lax, no inner models again."""
    if isinstance(node, (list, tuple)):
        return type(node)(map(_checking, node))
    if not isinstance(node, dict):
        return node
    kind = node.get("type")
    if not isinstance(kind, str):  # a table of schemas, one of which may be called "type"
        return {key: _checking(value) for key, value in node.items()}
    if kind in _PARSERS:
        return _checking(node["schema"]) if "schema" in node else {"type": "any"}
    if kind in ("model", "dataclass"):
        return {"type": "is-instance", "cls": node["cls"], **({"ref": node["ref"]} if "ref" in node else {})}
    return {key: value if key in _OPAQUE else _checking(value) for key, value in node.items() if key not in _FORGOTTEN}
