"""Classes made of the JSON schemas in a card: a remote graph's input and output types, for tools and validation.

A model is told the same of a remote graph as a tool as of the local one, and its arguments are checked and coerced here
by the same rules. An object inside of them goes to the host as one of the host's own class: a class that this process
has not got is made with the host's name for it, under which the codec writes it.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NotRequired, Required, Union

import pydantic
from langchain_core.messages import AnyMessage, BaseMessage
from pydantic import AfterValidator, AnyUrl, BaseModel, ConfigDict, Field, TypeAdapter, create_model
from typing_extensions import TypedDict

try:
    from pydantic import MISSING
except ImportError:  # before pydantic 2.14
    from pydantic.experimental.missing_sentinel import MISSING

__all__ = ["SchemaClasses", "given", "model_schema"]

_FORMATS: Final[Mapping[str, Any]] = {
    "date-time": datetime.datetime,
    "date": datetime.date,
    "time": datetime.time,
    "duration": datetime.timedelta,
    "uuid": uuid.UUID,
    "binary": bytes,
    "path": Path,
    "uri": AnyUrl,
}
_PLAIN: Final[Mapping[str, Any]] = {"integer": int, "number": float, "boolean": bool, "null": None}
_CONSTRAINTS: Final = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
    "minItems": "min_length",
    "maxItems": "max_length",
}
_INSIDE: Final = {"array": list, "object": dict}
"""What is left out of an object inside of the arguments, by its type, where the schema does not say its default."""


class SchemaClasses:
    """Makes Python types of one JSON schema.

    Args:
        schema: the schema.
        known: of the classes that its `$defs` describe, by their name there: the name on the wire, the kind (`"model"`,
            `"dataclass"` or `"enum"`) and the values of an enum's members by name. Any other is a TypedDict.
        listed: returns the class of a wire name, where this process lists it.
    """

    def __init__(
        self,
        schema: Mapping[str, Any],
        known: Mapping[str, tuple[str, str, Mapping[str, Any] | None]],
        listed: Callable[[str], type | None],
    ) -> None:
        self._schema, self._known, self._listed = schema, known, listed
        self._made: dict[str, Any] = {}

    def whole(self, kind: str, name: str) -> Any:
        """The type of the schema itself.

        Args:
            kind: `"model"`, `"dataclass"` or `"typed_dict"`; anything else is what the schema says.
            name: the name of the class, where the schema has no title.
        """
        if kind not in ("model", "dataclass", "typed_dict") or "properties" not in self._schema:
            return self.annotation(self._schema)
        title = str(self._schema.get("title", name))
        if kind == "model":
            return self._model(title, self._schema, __name__, outermost=True)
        return self._typed_dict(title, self._schema)

    def annotation(self, node: Any) -> Any:
        """The type of a part of the schema."""
        if not isinstance(node, dict):
            return Any
        if "$ref" in node:
            return self._class(str(node["$ref"]).rpartition("/")[2])
        for key in ("anyOf", "oneOf", "allOf"):
            if parts := node.get(key):
                return _union(map(self.annotation, parts))
        if "const" in node:
            return Literal[node["const"]]
        if "enum" in node:
            return Literal[tuple(node["enum"])]  # a Literal of each
        kind = node.get("type")
        if isinstance(kind, list):
            return _union(self.annotation({**node, "type": one}) for one in kind)
        found = self._typed(kind, node)
        limits = {name: node[key] for key, name in _CONSTRAINTS.items() if key in node and found is not AnyUrl}
        return Annotated[found, Field(**limits)] if limits else found

    def _typed(self, kind: Any, node: Mapping[str, Any]) -> Any:
        if kind == "string":
            return _FORMATS.get(node.get("format", ""), str)
        if kind == "array":
            if "prefixItems" in node:
                return tuple[tuple(map(self.annotation, node["prefixItems"]))]  # type: ignore[misc]
            items = self.annotation(node.get("items", {}))
            return set[items] if node.get("uniqueItems") else list[items]  # type: ignore[valid-type]
        if kind == "object":
            more = node.get("additionalProperties")
            if "properties" in node:
                return self._typed_dict(str(node.get("title", "object")), node)
            return dict[str, self.annotation(more)] if isinstance(more, dict) else dict[str, Any]  # type: ignore[misc]
        return _PLAIN.get(kind, Any)

    def _class(self, name: str) -> Any:
        if name not in self._made:
            # Inside of itself it is looked up once it is needed.
            self._made[name] = Annotated[Any, AfterValidator(lambda value: self._adapter(name).validate_python(value))]
            node = self._schema.get("$defs", {}).get(name, {})
            wire_name, kind, members = self._known.get(name, ("", "", None))
            self._made[name] = self._listed(wire_name) or self._make(name, node, wire_name, kind, members)
        return self._made[name]

    def _adapter(self, name: str) -> TypeAdapter[Any]:
        return TypeAdapter(self._made[name])

    def _make(
        self, name: str, node: Mapping[str, Any], wire_name: str, kind: str, members: Mapping[str, Any] | None
    ) -> Any:
        module, _, qualname = wire_name.partition(":")
        if kind == "enum" and members:
            mixin: Any = next((cls for cls in (str, int) if all(type(v) is cls for v in members.values())), None)
            return Enum(name, dict(members), module=module, qualname=qualname, type=mixin)
        if kind not in ("model", "dataclass") or "properties" not in node:
            return self._typed_dict(name, node) if "properties" in node else self.annotation(node)
        made = self._model(name, node, module) if kind == "model" else self._dataclass(name, node, module)
        made.__qualname__ = qualname
        return made

    def _fields(self, node: Mapping[str, Any], outermost: bool = False) -> dict[str, tuple[Any, Any]]:
        required = set(node.get("required", ()))
        return {key: self._field(part, key in required, outermost) for key, part in node.get("properties", {}).items()}

    def _field(self, part: Mapping[str, Any], required: bool, outermost: bool) -> tuple[Any, Any]:
        annotation = self.annotation(part)
        said = {key: part[key] for key in ("title", "description", "examples", "deprecated") if key in part}
        if required:
            return annotation, Field(**said)
        if "default" in part:
            return annotation, Field(part["default"], validate_default=True, **said)
        if outermost:  # left out, it stays out
            return _union((annotation, MISSING)), Field(MISSING, **said)
        return annotation, Field(default_factory=_INSIDE.get(part.get("type", ""), lambda: None), **said)

    def _model(self, name: str, node: Mapping[str, Any], module: str, outermost: bool = False) -> type[BaseModel]:
        extra: Any = {True: "allow", False: "forbid"}.get(node.get("additionalProperties"), "ignore")  # type: ignore[arg-type]
        fields: Any = self._fields(node, outermost)
        config = ConfigDict(extra=extra)
        return create_model(name, __config__=config, __module__=module, __doc__=node.get("description"), **fields)

    def _dataclass(self, name: str, node: Mapping[str, Any], module: str) -> type:
        fields = self._fields(node)
        defaults = {key: info for key, (_, info) in fields.items()}
        hints = {key: annotation for key, (annotation, _) in fields.items()}
        space = {"__annotations__": hints, "__doc__": node.get("description"), "__module__": module, **defaults}
        return pydantic.dataclasses.dataclass(type(name, (), space), kw_only=True)

    def _typed_dict(self, name: str, node: Mapping[str, Any]) -> Any:
        required = set(node.get("required", ()))
        hints: dict[str, Any] = {
            key: Required[self._described(part)] if key in required else NotRequired[self._described(part)]
            for key, part in node.get("properties", {}).items()
        }
        make: Any = TypedDict
        made = make(name, hints)
        made.__doc__ = node.get("description")
        return made

    def _described(self, part: Mapping[str, Any]) -> Any:
        said = {key: part[key] for key in ("title", "description", "default", "examples") if key in part}
        annotation = self.annotation(part)
        return Annotated[annotation, Field(**said)] if said.keys() - {"title"} else annotation


def model_schema(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The JSON schema of a model around something that is no model itself: it refers to the schema of that."""
    inside = {key: part for key, part in schema.items() if key != "$defs"}
    title = str(schema.get("title", name))
    return {"$defs": {**schema.get("$defs", {}), title: inside}, "$ref": f"#/$defs/{title}", "title": name}


def given(value: Any) -> Any:
    """The input itself; of a dict the items that an object of an input schema was given, not those that it left out."""
    if type(value) is dict and any(item is MISSING for item in value.values()):
        return {key: item for key, item in value.items() if item is not MISSING}
    return value


def _union(parts: Iterable[Any]) -> Any:
    parts = tuple(parts)
    if parts and all(isinstance(part, type) and issubclass(part, BaseMessage) for part in parts):
        return AnyMessage  # which tells them apart by a function that no schema shows
    return Union[parts]  # noqa: UP007 - `|` does not take each of them
