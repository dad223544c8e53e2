"""Built-in values without parts: each is one msgpack extension."""

from __future__ import annotations

import ipaddress
import pathlib
import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from ormsgpack import Ext
from pydantic import SecretBytes, SecretStr, networks
from pydantic_core import MultiHostUrl, PydanticUndefined, TzInfo, Url

from agentmatrix.wire.extensions import EncodePart, InvalidPart, PartEncoder

_COMPLEX = struct.Struct(">dd")
_DATETIME = struct.Struct(">HBBBBBIB")
_DATE = struct.Struct(">HBB")
_TIME = struct.Struct(">BBBIB")
_SPAN = struct.Struct(">iII")

BIG_INT: Final = 3
SURROGATES: Final = 4
_SINGLETONS: Final = {b"ellipsis": Ellipsis, b"notimplemented": NotImplemented, b"undefined": PydanticUndefined}


def _numbered(*classes: type) -> dict[type, bytes]:
    return {cls: bytes([number]) for number, cls in enumerate(classes)}


_PATHS = _numbered(pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
_ADDRESSES = _numbered(
    ipaddress.IPv4Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Address,
    ipaddress.IPv6Interface,
    ipaddress.IPv6Network,
)
_URLS: Final[dict[str, type]] = {
    cls.__name__: cls
    for cls in (
        *(Url, MultiHostUrl, networks.AnyUrl, networks.AnyHttpUrl, networks.HttpUrl, networks.FileUrl),
        *(networks.FtpUrl, networks.WebsocketUrl, networks.AnyWebsocketUrl, networks.PostgresDsn),
        *(networks.CockroachDsn, networks.AmqpDsn, networks.RedisDsn, networks.MongoDsn, networks.KafkaDsn),
        *(networks.NatsDsn, networks.MySQLDsn, networks.MariaDBDsn, networks.ClickHouseDsn, networks.SnowflakeDsn),
    )
}


def big_int(value: int) -> Ext:
    """An int beyond 64 bits."""
    return Ext(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def surrogates(value: str) -> Ext:
    """A string with lone surrogates, which UTF-8 has no bytes for."""
    return Ext(SURROGATES, value.encode("utf-8", "surrogatepass"))


def _span(value: timedelta) -> bytes:
    return _SPAN.pack(value.days, value.seconds, value.microseconds)


def _to_span(data: bytes) -> timedelta:
    return timedelta(*_SPAN.unpack(data))


def datetime_bytes(value: datetime) -> bytes:
    """Year to microsecond and fold of a datetime, without its zone."""
    return _DATETIME.pack(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.fold
    )


def _naive_datetime(data: bytes) -> datetime:
    *parts, fold = _DATETIME.unpack(data)
    return datetime(*parts, fold=fold)


def time_bytes(value: time) -> bytes:
    """Hour to microsecond and fold of a time, without its zone."""
    return _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)


def _naive_time(data: bytes) -> time:
    *parts, fold = _TIME.unpack(data)
    return time(*parts, fold=fold)


def _zone(value: timezone) -> bytes:
    offset = value.utcoffset(None)
    name = value.tzname(None)
    return _span(offset) + (b"" if name == timezone(offset).tzname(None) else name.encode("utf-8", "surrogatepass"))


def _to_zone(data: bytes) -> timezone:
    offset = _to_span(data[: _SPAN.size])
    name = data[_SPAN.size :].decode("utf-8", "surrogatepass")
    return timezone(offset, name) if name else timezone(offset)


def _zone_key(value: ZoneInfo) -> bytes:
    if value.key is None:
        raise InvalidPart("a ZoneInfo that was read from a file has no name to send; use ZoneInfo(key)")
    return value.key.encode()


def _offset(value: TzInfo) -> bytes:
    span = value.utcoffset(None)
    return _span(span if span is not None else timedelta())


def _path(value: pathlib.PurePath) -> bytes:
    return _PATHS[type(value)] + str(value).encode("utf-8", "surrogatepass")


def _to_path(data: bytes) -> pathlib.PurePath:
    text = data[1:].decode("utf-8", "surrogatepass")
    cls = _class_of(_PATHS, data)
    try:
        return cls(text)  # type: ignore[no-any-return]
    except NotImplementedError:  # a concrete path of the other operating system
        return (pathlib.PurePosixPath if cls is pathlib.PosixPath else pathlib.PureWindowsPath)(text)


def _class_of(table: dict[type, bytes], data: bytes) -> Callable[[str], Any]:
    for cls, number in table.items():
        if number == data[:1]:
            return cls
    raise ValueError("no such class")


def _address(value: Any) -> bytes:
    return _ADDRESSES[type(value)] + str(value).encode()


def _to_address(data: bytes) -> Any:
    return _class_of(_ADDRESSES, data)(data[1:].decode())


def _url(value: Any) -> bytes:
    return f"{type(value).__name__} {value}".encode()


def _to_url(data: bytes) -> Any:
    name, _, text = data.decode().partition(" ")
    return _URLS[name](text)


def _singleton(value: object) -> bytes:
    return next(name for name, known in _SINGLETONS.items() if known is value)


def _to_decimal(data: bytes) -> Decimal:
    return Decimal(data.decode("ascii"))


_SCALARS: Final[list[tuple[int, tuple[type, ...], Callable[[Any], bytes], Callable[[bytes], Any]]]] = [
    (5, (complex,), lambda v: _COMPLEX.pack(v.real, v.imag), lambda d: complex(*_COMPLEX.unpack(d))),
    (6, (Decimal,), lambda v: str(v).encode("ascii"), _to_decimal),
    (7, (), datetime_bytes, _naive_datetime),
    (8, (date,), lambda v: _DATE.pack(v.year, v.month, v.day), lambda d: date(*_DATE.unpack(d))),
    (9, (), time_bytes, _naive_time),
    (10, (timedelta,), _span, _to_span),
    (11, (timezone,), _zone, _to_zone),
    (12, (ZoneInfo,), _zone_key, lambda d: ZoneInfo(d.decode())),
    (13, (TzInfo,), _offset, lambda d: TzInfo(int(_to_span(d).total_seconds()))),
    (14, (UUID,), lambda v: v.bytes, lambda d: UUID(bytes=d)),
    (15, tuple(_PATHS), _path, _to_path),
    (16, tuple(_ADDRESSES), _address, _to_address),
    (17, tuple(_URLS.values()), _url, _to_url),
    (18, (SecretStr,), lambda v: v.get_secret_value().encode("utf-8", "surrogatepass"),
     lambda d: SecretStr(d.decode("utf-8", "surrogatepass"))),
    (19, (SecretBytes,), lambda v: v.get_secret_value(), SecretBytes),
    (20, tuple(type(value) for value in _SINGLETONS.values()), _singleton, _SINGLETONS.__getitem__),
]  # fmt: skip

DATETIME: Final = 7
TIME: Final = 9


def _encoder(code: int, pack: Callable[[Any], bytes]) -> EncodePart:
    def encode(encoder: PartEncoder, value: Any, depth: int) -> Ext:
        return Ext(code, pack(value))

    return encode


ENCODERS: Final[dict[type, EncodePart]] = {
    cls: _encoder(code, pack) for code, classes, pack, _ in _SCALARS for cls in classes
}
DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {
    BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    SURROGATES: lambda data: data.decode("utf-8", "surrogatepass"),
    **{code: unpack for code, _, _, unpack in _SCALARS},
}
