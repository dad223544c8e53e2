"""Values to bytes and back, for bytes from a peer: only listed types are ever constructed.

The engine is msgpack (ormsgpack); what it cannot say is said in extensions (`marks.py`). Encoding is structural: an
instance of a model, dataclass, enum or named tuple is written with its class's module and qualified name, listed or
not. Decoding looks that name up among the listed classes, imports nothing, calls no constructor, and checks pydantic
models against their schema (`validation.py`). Size and depth are bounded.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from agentmatrix.errors import DecodeError, EncodeError, TypeNotAllowed
from agentmatrix.wire import arrays, containers, exceptions, scalars
from agentmatrix.wire.allowlist import admissible, built_in, listed, types_of
from agentmatrix.wire.decoding import Decoder, not_listed
from agentmatrix.wire.encoding import Encoder, pack
from agentmatrix.wire.extensions import Encoding, Lower, Marker, Refusal
from agentmatrix.wire.objects import PlainShape, Shape, class_ext, name_of
from agentmatrix.wire.pydantic_models import shape_of

__all__ = ["Codec", "types_of"]

_DEEPEST = 240  # ormsgpack writes 254 levels


class Codec:
    """A table of types, and the way to bytes and back for their values.

    Built-in Python values, numpy arrays, LangChain's messages, documents and outputs and LangGraph's values are
    always listed.

    Args:
        allow: more classes, modules, or names of modules whose classes are listed; the classes of a listed class's
            fields come with it. Classes defined in functions are given as objects.
        max_bytes: the most bytes of a message, and the most memory of its value (estimated from above).
        max_depth: how many containers may be nested; at most 240.
    """

    def __init__(self, allow: Iterable[object] = (), *, max_bytes: int = 1 << 30, max_depth: int = 200) -> None:
        self._table = {**built_in(), **listed(allow)}
        self._max_bytes = max_bytes
        self._max_depth = min(max_depth, _DEEPEST)
        self._shapes: dict[type, Shape] = {}
        self._lowering: dict[type, Lower] = {**scalars.LOWER, **containers.LOWER}

    def extended(self, allow: Iterable[object]) -> Codec:
        """A codec that lists these classes as well."""
        codec = Codec((), max_bytes=self._max_bytes, max_depth=self._max_depth)
        codec._table = {**self._table, **listed(allow)}
        codec._shapes = dict(self._shapes)
        return codec

    def admits(self, cls: type) -> bool:
        """Whether values of the class, or the class itself, can be decoded."""
        return self._table.get(name_of(cls)) is cls or cls in scalars.LOWER or cls in containers.LOWER

    def can_encode(self, value: object) -> bool:
        """Whether `encode` would succeed."""
        try:
            self.encode(value)
        except EncodeError:
            return False
        return True

    def encode(self, value: object, where: str = "value") -> bytes:
        """The bytes of a value.

        Args:
            value: the value.
            where: what the value is called in an error; paths start with it.

        Raises:
            EncodeError: names the path, the type and what to do.
        """
        try:
            data: bytes = _with_room(self._encode, value)
        except Refusal as refusal:
            raise EncodeError(refusal.at(where)) from None
        except RecursionError:
            raise EncodeError(f"{where}: nested too deep for the stack") from None
        if len(data) > self._max_bytes:
            raise EncodeError(f"{where}: {len(data):,} bytes, more than max_bytes={self._max_bytes:,}")
        return data

    def decode(self, data: bytes | memoryview, where: str = "value") -> Any:
        """The value of some bytes.

        Args:
            data: what `encode` gave, or anything else that a peer sent.
            where: what the value is called in an error; paths start with it.

        Raises:
            TypeNotAllowed: the bytes name a type that is not listed.
            DecodeError: they are no value, too large or too deep, or a value that its type does not allow.
        """
        try:
            return _with_room(self._decode, data)
        except Refusal as refusal:
            raise (TypeNotAllowed if refusal.unlisted else DecodeError)(refusal.at(where)) from refusal.__cause__
        except (RecursionError, MemoryError) as error:
            raise DecodeError(f"{where}: too large or too deep for this process ({type(error).__name__})") from None

    def _decode(self, data: bytes | memoryview) -> Any:
        return Decoder(self._table.get, self._shape_of, self._max_bytes, self._max_depth).decode(data)

    def _encode(self, value: object) -> bytes:
        for plain_strings in (True, False):
            encoder = Encoder(self._lower_of, self.admits, self._max_bytes, self._max_depth, plain_strings)
            try:
                return pack(encoder.lower(value, 0))
            except TypeError as error:
                if not plain_strings or "surrogates" not in str(error):
                    raise Refusal(f"not to be written as msgpack ({error})") from error
        raise AssertionError("unreachable")

    def _shape_of(self, cls: type) -> Marker:
        shape = self._shapes.get(cls)
        if shape is None:
            shape = shape_of(cls)
            if shape is None:
                raise Refusal(f"instances of {cls.__module__}.{cls.__qualname__} are no data")
            self._shapes[cls] = shape
        return shape

    def _lower_of(self, cls: type) -> Lower:
        lower = self._lowering.get(cls)
        if lower is None:
            lower = self._lowering[cls] = self._find(cls)
        return lower

    def _find(self, cls: type) -> Lower:
        if issubclass(cls, BaseException):
            return exceptions.lower
        if issubclass(cls, type):
            return self._lower_class
        lower = arrays.lowering(cls)
        if lower is not None:
            return lower
        self._refuse_resource(cls)
        shape = self._shape_of(cls)
        assert isinstance(shape, Shape)
        if isinstance(shape, PlainShape) and not self.admits(cls):
            raise Refusal(not_listed(name_of(cls)))
        return shape.lower

    def _lower_class(self, walk: Encoding, value: type, depth: int) -> Any:
        if not self.admits(value):
            raise Refusal(f"a class as a value: {not_listed(name_of(value))}")
        return class_ext(value)

    @staticmethod
    def _refuse_resource(cls: type) -> None:
        if issubclass(cls, (types.FunctionType, types.MethodType, types.BuiltinFunctionType)):
            raise Refusal("a function cannot cross; send its name or its result, and keep it where it is called")
        if admissible(cls) and cls is not object:
            return
        raise Refusal(
            f"a {cls.__module__}.{cls.__qualname__} belongs to this process and cannot cross; send data that it can "
            "be made from, or keep it out of the state"
        )


def _with_room(work: Callable[[Any], Any], value: Any) -> Any:
    """Do the work; where the caller has left too little of the stack, in a thread that has all of its own."""
    try:
        return work(value)
    except RecursionError:
        with ThreadPoolExecutor(1) as fresh:
            return fresh.submit(work, value).result()
