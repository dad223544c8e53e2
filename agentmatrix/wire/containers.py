"""Built-in values with parts: each is a msgpack array whose first element is a tag."""

from __future__ import annotations

import array
import re
import types
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from collections.abc import Sequence
from datetime import datetime, time, tzinfo
from fractions import Fraction
from typing import Any, Final, TypeVar

import ormsgpack
from ormsgpack import Ext

from agentmatrix.wire.extensions import EncodePart, InvalidPart, PartDecoder, PartEncoder, Tag, key_step
from agentmatrix.wire.scalars import DATETIME, TIME, datetime_bytes, time_bytes

T = TypeVar("T")

_MOST_EQUAL_HASHES: Final = 1_000
_LONGEST_PATTERN: Final = 1 << 16
_LARGEST_FRACTION: Final = 1 << 64_000


def _distinct(decoder: PartDecoder, keys: list[Any]) -> list[Any]:
    """The keys themselves, after a check that they will not collide: a peer may have chosen them so."""
    decoder.charge(100 * len(keys))
    if len(keys) > _MOST_EQUAL_HASHES and max(Counter(map(hash, keys)).values()) > _MOST_EQUAL_HASHES:
        raise InvalidPart(f"more than {_MOST_EQUAL_HASHES} keys have the same hash")
    return keys


def _typed(value: Any, cls: type[T], what: str) -> T:
    if not isinstance(value, cls):
        raise InvalidPart(f"{what} is a {type(value).__name__}")
    return value


def _decode_tuple(decoder: PartDecoder, payload: list[Any], depth: int) -> tuple[Any, ...]:
    return tuple(decoder.decode_rest(payload, depth))


def _decode_set(decoder: PartDecoder, payload: list[Any], depth: int) -> set[Any]:
    return set(_distinct(decoder, decoder.decode_rest(payload, depth)))


def _decode_frozenset(decoder: PartDecoder, payload: list[Any], depth: int) -> frozenset[Any]:
    return frozenset(_distinct(decoder, decoder.decode_rest(payload, depth)))


def _decode_deque(decoder: PartDecoder, payload: list[Any], depth: int) -> deque[Any]:
    decoder.charge(800)
    maxlen, *items = decoder.decode_rest(payload, depth)
    return deque(items, maxlen)


def _keys_and_values(encoder: PartEncoder, value: Any, depth: int) -> list[Any]:
    """Keys and values in turn: what a dict is whose keys are not all plain strings."""
    out: list[Any] = []
    key: Any = None
    try:
        for key, item in dict.items(value):
            out.append(encoder.encode_part(key, depth + 1))
            out.append(encoder.encode_part(item, depth + 1))
    except InvalidPart as invalid:
        invalid.steps.append(key_step(key) if len(out) % 2 else f"<key {key_step(key)}>")
        raise
    return out


def encode_pairs(encoder: PartEncoder, value: Any, depth: int) -> list[Any]:
    """A dict with keys of any type."""
    return [PAIRS.ext, *_keys_and_values(encoder, value, depth)]


def _decode_pairs(decoder: PartDecoder, payload: list[Any], depth: int, start: int = 1) -> dict[Any, Any]:
    if (len(payload) - start) % 2:
        raise InvalidPart("a key without a value")
    keys = _distinct(decoder, [decoder.decode_field(key, "<key>", depth) for key in payload[start::2]])
    values = payload[start + 1 :: 2]
    out = {}
    for key, value in zip(keys, values, strict=True):
        out[key] = decoder.decode_field(value, key_step(key), depth)
    return out


def _decode_ordered(decoder: PartDecoder, payload: list[Any], depth: int) -> OrderedDict[Any, Any]:
    decoder.charge(400)
    return OrderedDict(_decode_pairs(decoder, payload, depth))


def _decode_counter(decoder: PartDecoder, payload: list[Any], depth: int) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    dict.update(counter, _decode_pairs(decoder, payload, depth))
    return counter


def _encode_default(encoder: PartEncoder, value: Any, depth: int) -> list[Any]:
    factory = encoder.encode_field(value.default_factory, ".default_factory", depth)
    return [DEFAULTDICT.ext, factory, *_keys_and_values(encoder, value, depth)]


def _decode_default(decoder: PartDecoder, payload: list[Any], depth: int) -> defaultdict[Any, Any]:
    factory = decoder.decode_field(payload[1], ".default_factory", depth)
    if factory is not None and not isinstance(factory, type):
        raise InvalidPart("a default_factory that is no class")
    return defaultdict(factory, _decode_pairs(decoder, payload, depth, start=2))


def _decode_chain(decoder: PartDecoder, payload: list[Any], depth: int) -> ChainMap[Any, Any]:
    return ChainMap(*(_typed(part, dict, "a map of a ChainMap") for part in decoder.decode_rest(payload, depth)))


def _decode_proxy(decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
    (mapping,) = decoder.decode_rest(payload, depth)
    return types.MappingProxyType(_typed(mapping, dict, "the mapping of a mappingproxy"))


def _decode_namespace(decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
    (attributes,) = decoder.decode_rest(payload, depth)
    return types.SimpleNamespace(**_typed(attributes, dict, "the attributes of a SimpleNamespace"))


def _decode_bytearray(decoder: PartDecoder, payload: list[Any], depth: int) -> bytearray:
    (data,) = payload[1:]
    return bytearray(_typed(data, bytes, "the content of a bytearray"))


def _encode_array(encoder: PartEncoder, value: array.array[Any], depth: int) -> list[Any]:
    if value.typecode == "u":
        return [ARRAY.ext, "u", encoder.encode_part(value.tounicode(), depth)]
    return [ARRAY.ext, value.typecode, value.tobytes()]


def _decode_array(decoder: PartDecoder, payload: list[Any], depth: int) -> array.array[Any]:
    code, data = decoder.decode_rest(payload, depth)
    if code == "u":
        return array.array("u", _typed(data, str, "the content of an array"))
    return array.array(_typed(code, str, "the type of an array"), _typed(data, bytes, "the content of an array"))


def _encode_datetime(encoder: PartEncoder, value: datetime, depth: int) -> Any:
    naive = Ext(DATETIME, datetime_bytes(value))
    if value.tzinfo is None:
        return naive
    return [DATETIME_IN.ext, naive, encoder.encode_field(value.tzinfo, ".tzinfo", depth)]


def _encode_time(encoder: PartEncoder, value: time, depth: int) -> Any:
    naive = Ext(TIME, time_bytes(value))
    if value.tzinfo is None:
        return naive
    return [TIME_IN.ext, naive, encoder.encode_field(value.tzinfo, ".tzinfo", depth)]


def _zone(value: Any) -> tzinfo:
    if not isinstance(value, tzinfo):
        raise InvalidPart(f"a time zone is a {type(value).__name__}")
    return value


def _decode_datetime(decoder: PartDecoder, payload: list[Any], depth: int) -> datetime:
    naive, zone = decoder.decode_rest(payload, depth)
    return _typed(naive, datetime, "a datetime").replace(tzinfo=_zone(zone))


def _decode_time(decoder: PartDecoder, payload: list[Any], depth: int) -> time:
    naive, zone = decoder.decode_rest(payload, depth)
    return _typed(naive, time, "a time").replace(tzinfo=_zone(zone))


def _decode_pattern(decoder: PartDecoder, payload: list[Any], depth: int) -> re.Pattern[Any]:
    pattern, flags = decoder.decode_rest(payload, depth)
    if not isinstance(pattern, (str, bytes)) or len(pattern) > _LONGEST_PATTERN or type(flags) is not int:
        raise InvalidPart("no regular expression, or one that is too long")
    return re.compile(pattern, flags & ~re.DEBUG)  # DEBUG would print


def _decode_range(decoder: PartDecoder, payload: list[Any], depth: int) -> range:
    return range(*decoder.decode_rest(payload, depth))


def _decode_slice(decoder: PartDecoder, payload: list[Any], depth: int) -> slice:
    start, stop, step = decoder.decode_rest(payload, depth)
    return slice(start, stop, step)


def _decode_fraction(decoder: PartDecoder, payload: list[Any], depth: int) -> Fraction:
    numerator, denominator = decoder.decode_rest(payload, depth)
    if type(numerator) is not int or type(denominator) is not int:
        raise InvalidPart("a fraction of other things than ints")
    if max(abs(numerator), denominator) > _LARGEST_FRACTION:
        raise InvalidPart("a fraction of ints with more than 64,000 bits")
    return Fraction(numerator, denominator)


TUPLE: Final = Tag(0, _decode_tuple)
_OF_ONE: Final = ormsgpack.packb([TUPLE.ext, None])[:-1]
"""How the encoding of a tuple of one item begins."""


def joined(tuples: Sequence[bytes]) -> bytes:
    """The encoding of a tuple with the items of several tuples of one item, which are encoded already."""
    if len(tuples) == 1:
        return tuples[0]
    head = b"\xdd" + (len(tuples) + 1).to_bytes(4, "big") + _OF_ONE[1:]
    return b"".join((head, *(one[len(_OF_ONE) :] for one in tuples)))


SET: Final = Tag(1, _decode_set)
FROZENSET: Final = Tag(2, _decode_frozenset)
DEQUE: Final = Tag(3, _decode_deque)
PAIRS: Final = Tag(4, _decode_pairs)
ORDERED: Final = Tag(5, _decode_ordered)
DEFAULTDICT: Final = Tag(6, _decode_default)
COUNTER: Final = Tag(7, _decode_counter)
CHAINMAP: Final = Tag(8, _decode_chain)
PROXY: Final = Tag(9, _decode_proxy)
NAMESPACE: Final = Tag(10, _decode_namespace)
BYTEARRAY: Final = Tag(11, _decode_bytearray)
ARRAY: Final = Tag(12, _decode_array)
DATETIME_IN: Final = Tag(13, _decode_datetime)
TIME_IN: Final = Tag(14, _decode_time)
PATTERN: Final = Tag(15, _decode_pattern)
RANGE: Final = Tag(16, _decode_range)
SLICE: Final = Tag(17, _decode_slice)
FRACTION: Final = Tag(18, _decode_fraction)


def _encode_memoryview(encoder: PartEncoder, value: memoryview, depth: int) -> bytes:
    return value.tobytes()


ENCODERS: Final[dict[type, EncodePart]] = {
    tuple: lambda encoder, v, depth: [TUPLE.ext, *encoder.encode_items(v, depth)],
    set: lambda encoder, v, depth: [SET.ext, *encoder.encode_items(v, depth)],
    frozenset: lambda encoder, v, depth: [FROZENSET.ext, *encoder.encode_items(v, depth)],
    deque: lambda encoder, v, depth: [DEQUE.ext, v.maxlen, *encoder.encode_items(v, depth)],
    OrderedDict: lambda encoder, v, depth: [ORDERED.ext, *_keys_and_values(encoder, OrderedDict.copy(v), depth)],
    Counter: lambda encoder, v, depth: [COUNTER.ext, *_keys_and_values(encoder, v, depth)],
    defaultdict: _encode_default,
    ChainMap: lambda encoder, v, depth: [CHAINMAP.ext, *encoder.encode_items(v.maps, depth)],
    types.MappingProxyType: lambda encoder, v, depth: [PROXY.ext, encoder.encode_mapping(dict(v), depth)],
    types.SimpleNamespace: lambda encoder, v, depth: [NAMESPACE.ext, encoder.encode_mapping(vars(v), depth)],
    bytearray: lambda encoder, v, depth: [BYTEARRAY.ext, v],
    memoryview: _encode_memoryview,
    array.array: _encode_array,
    datetime: _encode_datetime,
    time: _encode_time,
    re.Pattern: lambda encoder, v, depth: [PATTERN.ext, *encoder.encode_items((v.pattern, v.flags), depth)],
    range: lambda encoder, v, depth: [RANGE.ext, v.start, v.stop, v.step],
    slice: lambda encoder, v, depth: [SLICE.ext, *encoder.encode_items((v.start, v.stop, v.step), depth)],
    Fraction: lambda encoder, v, depth: [FRACTION.ext, v.numerator, v.denominator],
}
