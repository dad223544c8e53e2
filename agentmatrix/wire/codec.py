"""Values to bytes and back, for bytes from an untrusted peer: only classes of an allow-list are ever instantiated.

The format is msgpack (ormsgpack) with extension types (`extensions.py`). Encoding is structural: an instance of a
model, dataclass, enum or named tuple is written with its class's module and qualified name, whether or not the class
is in the allow-list. Decoding looks that name up in the allow-list, imports nothing, calls no constructor, and checks
pydantic models against their schema (`validation.py`). Size and depth are bounded.

Threads share a `Codec` without a lock: its two caches are dicts in which an entry, once made, is as good as one that
another thread makes, and each call has an `Encoder` or a `Decoder` of its own.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from agentmatrix.errors import DecodeError, EncodeError, TypeNotAllowed
from agentmatrix.wire import arrays, containers, exceptions, scalars
from agentmatrix.wire.allowlist import allowed_classes, built_in_classes, is_data_class, types_of
from agentmatrix.wire.decoding import Decoder, not_allowed
from agentmatrix.wire.encoding import Encoder, pack
from agentmatrix.wire.extensions import EncodePart, InvalidPart, PartEncoder
from agentmatrix.wire.objects import ObjectCodec, PlainObjectCodec, class_ext, wire_name
from agentmatrix.wire.pydantic_models import object_codec_of

__all__ = ["Codec", "types_of"]

_DEEPEST: Final = 240  # ormsgpack writes 254 levels


class Codec:
    """An allow-list of classes, and the conversion of values to bytes and back.

    Built-in Python values, numpy arrays, LangChain's messages, documents and outputs and LangGraph's values are
    always allowed.

    Args:
        allow: more classes, modules, or names of modules whose classes are allowed; the classes of an allowed class's
            fields come with it. Classes defined in functions are given as objects.
        max_bytes: the most bytes of a message, and the most memory of its value (estimated from above).
        max_depth: how many containers may be nested; at most 240.
        tracebacks: whether exceptions are encoded with the text of their traceback.
    """

    def __init__(
        self,
        allow: Iterable[object] = (),
        *,
        max_bytes: int = 1 << 30,
        max_depth: int = 200,
        tracebacks: bool = True,
    ) -> None:
        self._allowed = {**built_in_classes(), **allowed_classes(allow)}
        self._max_bytes = max_bytes
        self._max_depth = min(max_depth, _DEEPEST)
        self._tracebacks = tracebacks
        self._object_codecs: dict[type, ObjectCodec] = {}
        self._encoders: dict[type, EncodePart] = {**scalars.ENCODERS, **containers.ENCODERS}

    def extended(self, allow: Iterable[object]) -> Codec:
        """A codec that allows these classes as well."""
        codec = Codec((), max_bytes=self._max_bytes, max_depth=self._max_depth, tracebacks=self._tracebacks)
        codec._allowed = {**self._allowed, **allowed_classes(allow)}
        codec._object_codecs = dict(self._object_codecs)
        return codec

    def allows(self, cls: type) -> bool:
        """Whether values of the class, or the class itself, can be decoded."""
        return self._allowed.get(wire_name(cls)) is cls or cls in scalars.ENCODERS or cls in containers.ENCODERS

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
            where: the name of the value in an error; paths start with it.

        Raises:
            EncodeError: a part of it has no wire form, or it is too large or too deep. Names the path, the type and
                what to do.
        """
        try:
            data: bytes = _on_fresh_stack(self._encode, value)
        except InvalidPart as invalid:
            raise EncodeError(invalid.at(where)) from None
        except RecursionError:
            raise EncodeError(f"{where}: nested too deep for the stack") from None
        if len(data) > self._max_bytes:
            raise EncodeError(f"{where}: {len(data):,} bytes, more than max_bytes={self._max_bytes:,}")
        return data

    def decode(self, data: bytes | memoryview, where: str = "value") -> Any:
        """The value of some bytes.

        Args:
            data: bytes from `encode`, or anything else that a peer sent.
            where: the name of the value in an error; paths start with it.

        Raises:
            TypeNotAllowed: the bytes name a class that is not in the allow-list.
            DecodeError: they are no value, or too large, or too deep, or a value that fails the check of its class.
        """
        try:
            return _on_fresh_stack(self._decode, data)
        except InvalidPart as invalid:
            raise (TypeNotAllowed if invalid.not_allowed else DecodeError)(invalid.at(where)) from invalid.__cause__
        except (RecursionError, MemoryError) as error:
            raise DecodeError(f"{where}: too large or too deep for this process ({type(error).__name__})") from None

    def _decode(self, data: bytes | memoryview) -> Any:
        return Decoder(self._allowed.get, self._object_codec_of, self._max_bytes, self._max_depth).decode(data)

    def _encode(self, value: object) -> bytes:
        for plain_strings in (True, False):
            encoder = Encoder(self._encoder_of, self._max_bytes, self._max_depth, plain_strings)
            try:
                return pack(encoder.encode_part(value, 0))
            except TypeError as error:
                if not plain_strings or "surrogates" not in str(error):
                    raise InvalidPart(f"not to be written as msgpack ({error})") from error
        raise AssertionError("unreachable")

    def _object_codec_of(self, cls: type) -> ObjectCodec:
        codec = self._object_codecs.get(cls)
        if codec is None:
            codec = object_codec_of(cls)
            if codec is None:
                raise InvalidPart(f"instances of {cls.__module__}.{cls.__qualname__} are no data")
            self._object_codecs[cls] = codec
        return codec

    def _encoder_of(self, cls: type) -> EncodePart:
        encode = self._encoders.get(cls)
        if encode is None:
            encode = self._encoders[cls] = self._find_encoder(cls)
        return encode

    def _find_encoder(self, cls: type) -> EncodePart:
        if issubclass(cls, BaseException):
            return exceptions.encode_exception if self._tracebacks else exceptions.encode_without_traceback
        if issubclass(cls, type):
            return self._encode_class
        encode = arrays.encoder_of(cls)
        if encode is not None:
            return encode
        self._refuse_resource(cls)
        codec = self._object_codec_of(cls)
        if isinstance(codec, PlainObjectCodec) and not self.allows(cls):
            raise InvalidPart(not_allowed(wire_name(cls)))
        return codec.encode

    def _encode_class(self, encoder: PartEncoder, value: type, depth: int) -> Any:
        if not self.allows(value):
            raise InvalidPart(f"a class as a value: {not_allowed(wire_name(value))}")
        return class_ext(value)

    @staticmethod
    def _refuse_resource(cls: type) -> None:
        if issubclass(cls, (types.FunctionType, types.MethodType, types.BuiltinFunctionType)):
            raise InvalidPart("a function cannot cross; send its name or its result, and keep it where it is called")
        if is_data_class(cls) and cls is not object:
            return
        raise InvalidPart(
            f"a {cls.__module__}.{cls.__qualname__} belongs to this process and cannot cross; send data that it can "
            "be made from, or keep it out of the state"
        )


def _on_fresh_stack(work: Callable[[Any], Any], value: Any) -> Any:
    """Call `work` here, or again in a thread of its own where the caller's stack leaves too little room.

    The work has no effects, so it can be repeated.
    """
    try:
        return work(value)
    except RecursionError:
        with ThreadPoolExecutor(1) as fresh:
            return fresh.submit(work, value).result()
