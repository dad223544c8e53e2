"""Built-in values with parts: each is a msgpack array whose first element is a tag."""

from __future__ import annotations

import array
import re
import types
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from datetime import datetime, time, tzinfo
from fractions import Fraction
from typing import Any, Final, TypeVar

from ormsgpack import Ext

from agentmatrix.wire.extensions import Decoding, Encoding, Lower, Refusal, Tag, key_step
from agentmatrix.wire.scalars import DATETIME, TIME, datetime_bytes, time_bytes

T = TypeVar("T")

_MOST_EQUAL_HASHES: Final = 1_000
_LONGEST_PATTERN: Final = 1 << 16
_LARGEST_FRACTION: Final = 1 << 64_000


def _distinct(walk: Decoding, keys: list[Any]) -> list[Any]:
    """The keys themselves, after a check that they will not collide: a peer may have chosen them so."""
    walk.charge(100 * len(keys))
    if len(keys) > _MOST_EQUAL_HASHES and max(Counter(map(hash, keys)).values()) > _MOST_EQUAL_HASHES:
        raise Refusal(f"more than {_MOST_EQUAL_HASHES} keys have the same hash")
    return keys


def _typed(value: Any, cls: type[T], what: str) -> T:
    if not isinstance(value, cls):
        raise Refusal(f"{what} is a {type(value).__name__}")
    return value


def _lift_tuple(walk: Decoding, payload: list[Any], depth: int) -> tuple[Any, ...]:
    return tuple(walk.rest(payload, depth))


def _lift_set(walk: Decoding, payload: list[Any], depth: int) -> set[Any]:
    return set(_distinct(walk, walk.rest(payload, depth)))


def _lift_frozenset(walk: Decoding, payload: list[Any], depth: int) -> frozenset[Any]:
    return frozenset(_distinct(walk, walk.rest(payload, depth)))


def _lift_deque(walk: Decoding, payload: list[Any], depth: int) -> deque[Any]:
    walk.charge(800)
    maxlen, *items = walk.rest(payload, depth)
    return deque(items, maxlen)


def _pairs(walk: Encoding, value: Any, depth: int) -> list[Any]:
    """Keys and values in turn: what a dict is whose keys are not all plain strings."""
    out: list[Any] = []
    key: Any = None
    try:
        for key, item in dict.items(value):
            out.append(walk.lower(key, depth + 1))
            out.append(walk.lower(item, depth + 1))
    except Refusal as refusal:
        refusal.steps.append(key_step(key) if len(out) % 2 else f"<key {key_step(key)}>")
        raise
    return out


def lower_pairs(walk: Encoding, value: Any, depth: int) -> list[Any]:
    """A dict with keys of any type."""
    return [PAIRS.ext, *_pairs(walk, value, depth)]


def _lift_pairs(walk: Decoding, payload: list[Any], depth: int, start: int = 1) -> dict[Any, Any]:
    if (len(payload) - start) % 2:
        raise Refusal("a key without a value")
    keys = _distinct(walk, [walk.field(key, "<key>", depth) for key in payload[start::2]])
    values = payload[start + 1 :: 2]
    out = {}
    for key, value in zip(keys, values, strict=True):
        out[key] = walk.field(value, key_step(key), depth)
    return out


def _lift_ordered(walk: Decoding, payload: list[Any], depth: int) -> OrderedDict[Any, Any]:
    walk.charge(400)
    return OrderedDict(_lift_pairs(walk, payload, depth))


def _lift_counter(walk: Decoding, payload: list[Any], depth: int) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    dict.update(counter, _lift_pairs(walk, payload, depth))
    return counter


def _lower_default(walk: Encoding, value: Any, depth: int) -> list[Any]:
    factory = walk.field(value.default_factory, ".default_factory", depth)
    return [DEFAULTDICT.ext, factory, *_pairs(walk, value, depth)]


def _lift_default(walk: Decoding, payload: list[Any], depth: int) -> defaultdict[Any, Any]:
    factory = walk.field(payload[1], ".default_factory", depth)
    if factory is not None and not isinstance(factory, type):
        raise Refusal("a default_factory that is no class")
    return defaultdict(factory, _lift_pairs(walk, payload, depth, start=2))


def _lift_chain(walk: Decoding, payload: list[Any], depth: int) -> ChainMap[Any, Any]:
    return ChainMap(*(_typed(part, dict, "a map of a ChainMap") for part in walk.rest(payload, depth)))


def _lift_proxy(walk: Decoding, payload: list[Any], depth: int) -> Any:
    (mapping,) = walk.rest(payload, depth)
    return types.MappingProxyType(_typed(mapping, dict, "the mapping of a mappingproxy"))


def _lift_namespace(walk: Decoding, payload: list[Any], depth: int) -> Any:
    (attributes,) = walk.rest(payload, depth)
    return types.SimpleNamespace(**_typed(attributes, dict, "the attributes of a SimpleNamespace"))


def _lift_bytearray(walk: Decoding, payload: list[Any], depth: int) -> bytearray:
    (data,) = payload[1:]
    return bytearray(_typed(data, bytes, "the content of a bytearray"))


def _lower_array(walk: Encoding, value: array.array[Any], depth: int) -> list[Any]:
    if value.typecode == "u":
        return [ARRAY.ext, "u", walk.lower(value.tounicode(), depth)]
    return [ARRAY.ext, value.typecode, value.tobytes()]


def _lift_array(walk: Decoding, payload: list[Any], depth: int) -> array.array[Any]:
    code, data = walk.rest(payload, depth)
    if code == "u":
        return array.array("u", _typed(data, str, "the content of an array"))
    return array.array(_typed(code, str, "the type of an array"), _typed(data, bytes, "the content of an array"))


def _lower_datetime(walk: Encoding, value: datetime, depth: int) -> Any:
    naive = Ext(DATETIME, datetime_bytes(value))
    if value.tzinfo is None:
        return naive
    return [DATETIME_IN.ext, naive, walk.field(value.tzinfo, ".tzinfo", depth)]


def _lower_time(walk: Encoding, value: time, depth: int) -> Any:
    naive = Ext(TIME, time_bytes(value))
    if value.tzinfo is None:
        return naive
    return [TIME_IN.ext, naive, walk.field(value.tzinfo, ".tzinfo", depth)]


def _zone(value: Any) -> tzinfo:
    if not isinstance(value, tzinfo):
        raise Refusal(f"a time zone is a {type(value).__name__}")
    return value


def _lift_datetime(walk: Decoding, payload: list[Any], depth: int) -> datetime:
    naive, zone = walk.rest(payload, depth)
    return _typed(naive, datetime, "a datetime").replace(tzinfo=_zone(zone))


def _lift_time(walk: Decoding, payload: list[Any], depth: int) -> time:
    naive, zone = walk.rest(payload, depth)
    return _typed(naive, time, "a time").replace(tzinfo=_zone(zone))


def _lift_pattern(walk: Decoding, payload: list[Any], depth: int) -> re.Pattern[Any]:
    pattern, flags = walk.rest(payload, depth)
    if not isinstance(pattern, (str, bytes)) or len(pattern) > _LONGEST_PATTERN or type(flags) is not int:
        raise Refusal("no regular expression, or one that is too long")
    return re.compile(pattern, flags & ~re.DEBUG)  # DEBUG would print


def _lift_range(walk: Decoding, payload: list[Any], depth: int) -> range:
    return range(*walk.rest(payload, depth))


def _lift_slice(walk: Decoding, payload: list[Any], depth: int) -> slice:
    start, stop, step = walk.rest(payload, depth)
    return slice(start, stop, step)


def _lift_fraction(walk: Decoding, payload: list[Any], depth: int) -> Fraction:
    numerator, denominator = walk.rest(payload, depth)
    if type(numerator) is not int or type(denominator) is not int:
        raise Refusal("a fraction of other things than ints")
    if max(abs(numerator), denominator) > _LARGEST_FRACTION:
        raise Refusal("a fraction of ints with more than 64,000 bits")
    return Fraction(numerator, denominator)


TUPLE: Final = Tag(0, _lift_tuple)
SET: Final = Tag(1, _lift_set)
FROZENSET: Final = Tag(2, _lift_frozenset)
DEQUE: Final = Tag(3, _lift_deque)
PAIRS: Final = Tag(4, _lift_pairs)
ORDERED: Final = Tag(5, _lift_ordered)
DEFAULTDICT: Final = Tag(6, _lift_default)
COUNTER: Final = Tag(7, _lift_counter)
CHAINMAP: Final = Tag(8, _lift_chain)
PROXY: Final = Tag(9, _lift_proxy)
NAMESPACE: Final = Tag(10, _lift_namespace)
BYTEARRAY: Final = Tag(11, _lift_bytearray)
ARRAY: Final = Tag(12, _lift_array)
DATETIME_IN: Final = Tag(13, _lift_datetime)
TIME_IN: Final = Tag(14, _lift_time)
PATTERN: Final = Tag(15, _lift_pattern)
RANGE: Final = Tag(16, _lift_range)
SLICE: Final = Tag(17, _lift_slice)
FRACTION: Final = Tag(18, _lift_fraction)


def _lower_memoryview(walk: Encoding, value: memoryview, depth: int) -> bytes:
    return value.tobytes()


LOWER: Final[dict[type, Lower]] = {
    tuple: lambda walk, v, depth: [TUPLE.ext, *walk.sequence(v, depth)],
    set: lambda walk, v, depth: [SET.ext, *walk.sequence(v, depth)],
    frozenset: lambda walk, v, depth: [FROZENSET.ext, *walk.sequence(v, depth)],
    deque: lambda walk, v, depth: [DEQUE.ext, v.maxlen, *walk.sequence(v, depth)],
    OrderedDict: lambda walk, v, depth: [ORDERED.ext, *_pairs(walk, OrderedDict.copy(v), depth)],
    Counter: lambda walk, v, depth: [COUNTER.ext, *_pairs(walk, v, depth)],
    defaultdict: _lower_default,
    ChainMap: lambda walk, v, depth: [CHAINMAP.ext, *walk.sequence(v.maps, depth)],
    types.MappingProxyType: lambda walk, v, depth: [PROXY.ext, walk.mapping(dict(v), depth)],
    types.SimpleNamespace: lambda walk, v, depth: [NAMESPACE.ext, walk.mapping(vars(v), depth)],
    bytearray: lambda walk, v, depth: [BYTEARRAY.ext, v],
    memoryview: _lower_memoryview,
    array.array: _lower_array,
    datetime: _lower_datetime,
    time: _lower_time,
    re.Pattern: lambda walk, v, depth: [PATTERN.ext, *walk.sequence((v.pattern, v.flags), depth)],
    range: lambda walk, v, depth: [RANGE.ext, v.start, v.stop, v.step],
    slice: lambda walk, v, depth: [SLICE.ext, *walk.sequence((v.start, v.stop, v.step), depth)],
    Fraction: lambda walk, v, depth: [FRACTION.ext, v.numerator, v.denominator],
}
