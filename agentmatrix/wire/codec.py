"""Values to bytes and back, for bytes from an untrusted peer: only classes of an allow-list are ever instantiated.

The format is msgpack (ormsgpack) with extension types (`extensions.py`). Encoding is structural: an instance of a
model, dataclass, enum or named tuple is written with its class's module and qualified name, whether or not the class
is in the allow-list. Decoding looks that name up in the allow-list, imports nothing, calls no constructor, and checks
pydantic models against their schema (`validation.py`). Size and depth are bounded.

Threads share a `Codec` without a lock: its two caches are dicts in which an entry, once made, is as good as one that
another thread makes, and each call has an `Encoder` or a `Decoder` of its own.
"""

from __future__ import annotations

import functools
import types
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, Final, Literal, get_args

import ormsgpack
from langchain_core.messages import BaseMessage

from agentmatrix.errors import DecodeError, EncodeError, TypeNotAllowed
from agentmatrix.wire import arrays, containers, exceptions, scalars, tensors
from agentmatrix.wire.allowlist import allowed_classes, built_in_classes, is_data_class, types_of
from agentmatrix.wire.decoding import Decoder, PartUnlisted
from agentmatrix.wire.encoding import Encoder, PartialEncoder, is_plain, pack, pack_plain
from agentmatrix.wire.extensions import EncodePart, InvalidPart, PartEncoder
from agentmatrix.wire.objects import ObjectCodec, PlainObjectCodec, class_ext, wire_name
from agentmatrix.wire.pydantic_models import object_codec_of
from agentmatrix.wire.shared_messages import SharedMessages, encode_message
from agentmatrix.wire.size import SHORT, most_levels
from agentmatrix.wire.unencodable import UnencodableValue, encode_unencodable
from agentmatrix.wire.unlisted import STORED_TYPE, UnlistedValue, encode_unlisted, not_allowed
from agentmatrix.wire.unlisted import stored as stored_form

__all__ = ["DEFAULT_MAX_BYTES", "Codec", "Unlisted", "types_of"]

_DEEPEST: Final = 240  # ormsgpack writes 254 levels
DEFAULT_MAX_BYTES: Final = 1 << 30
"""Of a value on the wire and, estimated from above, in memory."""
_LEAST_ROOM: Final = 200
"""A message of which this multiple is allowed is small enough in memory, whatever it holds."""
_STORED: Final = STORED_TYPE.encode()
_MOST_CLASSES_GIVEN_UP: Final = 8
"""How many listed classes may count as unlisted in one message; each means to decode it again."""

Unlisted = Literal["error", "dict"]
"""What becomes of an object of a class that is not in the allow-list: an error, or an `UnlistedValue`."""


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
        unlisted: what an object of another class is decoded to: `"dict"` is an `UnlistedValue`, `"error"` an error.
    """

    def __init__(
        self,
        allow: Iterable[object] = (),
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_depth: int = 200,
        tracebacks: bool = True,
        unlisted: Unlisted = "error",
    ) -> None:
        if unlisted not in get_args(Unlisted):
            raise ValueError(f"unlisted={unlisted!r}: it is one of {', '.join(map(repr, get_args(Unlisted)))}")
        self._allowed: MutableMapping[str, type] = {**built_in_classes(), **allowed_classes(allow)}
        self._max_bytes = max_bytes
        self._max_depth = min(max_depth, _DEEPEST)
        self._most_plain = min(SHORT, max_bytes // _LEAST_ROOM)
        self._tracebacks = tracebacks
        self._unlisted: Unlisted = unlisted
        self._stored: Literal["", "bytes", "text"] = ""
        self._left_out: Mapping[str, Any] = {}
        self._sent: dict[str, type] = {}
        self._encoded_messages: SharedMessages | None = None
        self._decoded_messages: SharedMessages | None = None
        self._object_codecs: dict[type, ObjectCodec] = {}
        self._encoders: dict[type, EncodePart] = {
            **scalars.ENCODERS,
            **containers.ENCODERS,
            UnencodableValue: encode_unencodable,
            UnlistedValue: encode_unlisted,
        }

    def extended(self, allow: Iterable[object]) -> Codec:
        """A codec that allows these classes as well."""
        codec = Codec(
            (),
            max_bytes=self._max_bytes,
            max_depth=self._max_depth,
            tracebacks=self._tracebacks,
            unlisted=self._unlisted,
        )
        codec._allowed = {**self._allowed, **allowed_classes(allow)}
        codec._object_codecs = dict(self._object_codecs)
        return codec

    def for_storage(self, *, text: bool = False) -> Codec:
        """The codec for values of a caller's checkpointer or cache; as `text`, of its store, which may keep JSON alone.

        It decodes an object of an unlisted class to a dict with the object's bytes, and encodes that as the object. It
        is this one, where an unlisted class is an error.
        """
        if self._unlisted == "error":
            return self
        codec = self._copy()
        codec._stored = "text" if text else "bytes"
        return codec

    def for_replies(self) -> Codec:
        """The codec by which a host reads what a caller's checkpointer, cache and store have kept for it.

        It knows the classes of the objects that this codec has encoded, listed or not: they are the graph's own. An
        object of another class, which came from a host further on, is an `UnlistedValue` again.
        """
        codec = self._copy()
        codec._allowed, codec._unlisted = ChainMap(self._sent, self._allowed), "dict"
        return codec

    def with_messages(self, messages: SharedMessages, *, encodes: bool) -> Codec:
        """The codec for one run, whose messages go back and forth once.

        Args:
            messages: of the run.
            encodes: whether to name them, rather than to read their names alone.
        """
        _ = self.listed  # for all copies
        codec = self._copy()
        codec._decoded_messages = messages
        codec._encoded_messages = messages if encodes else None
        return codec

    def with_left_out(self, parts: Mapping[str, Any]) -> Codec:
        """The codec for what comes back of a config that was encoded in part: what had to stay is itself again.

        Args:
            parts: what `encode_partly` has left out.
        """
        codec = self._copy()
        codec._left_out = parts
        return codec

    def _copy(self) -> Codec:
        # What copy.copy does in a third of the time: each run has several.
        codec = object.__new__(Codec)
        codec.__dict__.update(self.__dict__)
        return codec

    @functools.cached_property
    def listed(self) -> frozenset[tuple[str, ...]]:
        """The module and the name of each class of the allow-list, as LangGraph's serializer lists them."""
        return frozenset((cls.__module__, cls.__name__) for cls in self._allowed.values())

    def listed_class(self, name: str) -> type | None:
        """The class of the allow-list with this wire name, `"module:qualname"`; None without one."""
        return self._allowed.get(name)

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

    def encode(self, value: object, where: str = "value", messages: SharedMessages | None = None) -> bytes:
        """The bytes of a value.

        Args:
            value: the value.
            where: the name of the value in an error; paths start with it.
            messages: takes those of LangChain's messages that are in the value.

        Raises:
            EncodeError: a part of it has no wire form, or it is too large or too deep. Names the path, the type and
                what to do.
        """
        if (plain := self._packed(value)) is not None:
            return plain
        try:
            data: bytes = _on_fresh_stack(functools.partial(self._encode, messages=messages), value)
        except InvalidPart as invalid:
            raise EncodeError(invalid.at(where)) from None
        except RecursionError:
            raise EncodeError(f"{where}: nested too deep for the stack") from None
        if len(data) > self._max_bytes:
            raise EncodeError(f"{where}: {len(data):,} bytes, more than max_bytes={self._max_bytes:,}")
        return data

    def encode_plain(self, value: object, where: str = "value") -> bytes:
        """As `encode`, for a value that is known to be small and flat, and most often plain."""
        try:
            data = pack_plain(value)
        except TypeError:
            return self.encode(value, where)
        return data if len(data) <= self._max_bytes else self.encode(value, where)

    def _packed(self, value: object) -> bytes | None:
        """The bytes of a value of built-in types alone; None where an `Encoder` has to look at its parts."""
        try:
            data = pack_plain(value) if is_plain(value) else b""
        except TypeError:
            return None
        is_short = 0 < len(data) <= self._most_plain and most_levels(data) <= self._max_depth
        return data if is_short and not self._has_stored(data) else None

    def _has_stored(self, data: bytes | memoryview) -> bool:
        """Whether a dict in the message may stand for an object, or be taken for one that does."""
        return bool(self._stored) and _STORED in bytes(data)

    def encode_pieces(self, value: object, where: str = "value", messages: SharedMessages | None = None) -> list[bytes]:
        """The bytes of a value in pieces: a message, and the large buffers in it, which are not copied.

        Arguments and errors as of `encode`.
        """
        if (plain := self._packed(value)) is not None:
            return [plain]
        try:
            pieces: list[bytes] = _on_fresh_stack(functools.partial(self._encode_pieces, messages=messages), value)
        except InvalidPart as invalid:
            raise EncodeError(invalid.at(where)) from None
        except RecursionError:
            raise EncodeError(f"{where}: nested too deep for the stack") from None
        if (size := sum(map(len, pieces))) > self._max_bytes:
            raise EncodeError(
                f"{where}: {size:,} bytes, more than max_bytes={self._max_bytes:,}; RemoteAgent(max_value=) and "
                "Host(max_value=) set it"
            )
        return pieces

    def _encode_pieces(self, value: object, messages: SharedMessages | None) -> list[bytes]:
        buffers: list[bytes] = []
        return [self._encode(value, buffers=buffers, messages=messages), *buffers]

    def encode_partly(self, value: object, where: str, left_out: dict[str, Any]) -> bytes:
        """The bytes of a value, with an `UnencodableValue` for each part that cannot be encoded.

        Args:
            value: the value.
            where: the name of the value in the placeholders' sentences.
            left_out: takes the parts that cannot be encoded, by sentence.
        """
        limits = self._encoder_of, self._max_bytes, self._max_depth
        try:
            try:
                return pack(PartialEncoder(where, left_out, *limits).encode_whole(value))
            except TypeError:
                return pack(PartialEncoder(where, left_out, *limits, False).encode_whole(value))
        except (RecursionError, TypeError) as error:
            reason = f"{where} cannot cross to a remote agent: {error}"
            left_out[reason] = value
            return self.encode(UnencodableValue(reason))

    def decode_pieces(self, pieces: Sequence[bytes | BytesIO], where: str = "value") -> Any:
        """The value of `encode_pieces`, or of anything else that a peer sent. Arguments and errors as of `decode`."""
        message = pieces[0]
        return self.decode(message.getvalue() if isinstance(message, BytesIO) else message, where, pieces[1:])

    def decode(self, data: bytes | memoryview, where: str = "value", buffers: Sequence[bytes | BytesIO] = ()) -> Any:
        """The value of some bytes.

        Args:
            data: bytes from `encode`, or anything else that a peer sent.
            where: the name of the value in an error; paths start with it.
            buffers: the large buffers beside them; what is made of one that can be written to keeps it.

        Raises:
            TypeNotAllowed: the bytes name a class that is not in the allow-list.
            DecodeError: they are no value, or too large, or too deep, or a value that fails the check of its class.
        """
        if len(data) <= self._most_plain and most_levels(data) <= self._max_depth and not self._has_stored(data):
            # Without an extension, which is an error here, there is nothing to make.
            try:
                return ormsgpack.unpackb(data)
            except ValueError:
                pass
        try:
            return _on_fresh_stack(functools.partial(self._decode, buffers=buffers), data)
        except InvalidPart as invalid:
            raise (TypeNotAllowed if invalid.not_allowed else DecodeError)(invalid.at(where)) from invalid.__cause__
        except (RecursionError, MemoryError) as error:
            raise DecodeError(f"{where}: too large or too deep for this process ({type(error).__name__})") from None

    def _decode(self, data: bytes | memoryview, buffers: Sequence[bytes | BytesIO]) -> Any:
        allowed, limits = self._allowed, (self._max_bytes, self._max_depth)
        unlisted = None if self._unlisted == "error" else self._keep if self._stored else _itself
        for _ in range(_MOST_CLASSES_GIVEN_UP):
            try:
                return Decoder(
                    allowed.get,
                    self._object_codec_of,
                    *limits,
                    unlisted,
                    bool(self._stored),
                    self._left_out,
                    self._decoded_messages,
                ).decode(data, buffers)
            except PartUnlisted as error:
                if unlisted is None:
                    raise error.__cause__ or error from None
                allowed = {name: cls for name, cls in allowed.items() if cls is not error.cls}
                last = error
        raise last.__cause__ or last

    def _keep(self, value: UnlistedValue) -> Any:
        return stored_form(value, self._encode(value, stored=False), text=self._stored == "text")

    def _encode(
        self,
        value: object,
        *,
        stored: bool | None = None,
        buffers: list[bytes] | None = None,
        messages: SharedMessages | None = None,
    ) -> bytes:
        messages = messages or self._encoded_messages
        stored = bool(self._stored) if stored is None else stored
        for plain_strings in (True, False):
            if buffers is not None:
                buffers.clear()
            limits = self._max_bytes, self._max_depth
            encoder = Encoder(self._encoder_of, *limits, plain_strings, stored, buffers, messages)
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
        encode = arrays.encoder_of(cls) or tensors.encoder_of(cls)
        if encode is not None:
            return encode
        tensors.refuse_table(cls)
        self._refuse_resource(cls)
        codec = self._object_codec_of(cls)
        if isinstance(codec, PlainObjectCodec) and not self.allows(cls):
            return functools.partial(_refuse_ordinary, codec)
        self._sent[wire_name(cls)] = cls
        return functools.partial(encode_message, codec) if issubclass(cls, BaseMessage) else codec.encode

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


def _refuse_ordinary(codec: PlainObjectCodec, encoder: PartEncoder, value: Any, depth: int) -> Any:
    """Refuse an object of an ordinary class that is not listed, and say how to admit it where that would help."""
    name = wire_name(codec.cls)
    try:
        codec.encode(encoder, value, depth)
    except InvalidPart as inside:
        if not inside.reason.startswith("the type "):
            raise InvalidPart(f"a {name.replace(':', '.')} cannot cross, listed or not: {inside.at('it')}") from None
    raise InvalidPart(not_allowed(name))


def _itself(value: UnlistedValue) -> UnlistedValue:
    return value


def _on_fresh_stack(work: Callable[[Any], Any], value: Any) -> Any:
    """Call `work` here, or again in a thread of its own where the caller's stack leaves too little room.

    The work has no effects, so it can be repeated.
    """
    try:
        return work(value)
    except RecursionError:
        with ThreadPoolExecutor(1) as fresh:
            return fresh.submit(work, value).result()
