"""Numpy arrays and scalars, as raw buffers. Numpy is optional: it is imported only once a value needs it."""

from __future__ import annotations

import sys
from typing import Any

from agentmatrix.wire.extensions import EncodePart, InvalidPart, PartDecoder, PartEncoder, Tag


def encoder_of(cls: type) -> EncodePart | None:
    """The function that encodes values of a numpy class; None for another class."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if cls is numpy.ndarray:
        return _encode_array
    return _encode_scalar if issubclass(cls, numpy.generic) else _encode_dtype if issubclass(cls, numpy.dtype) else None


def _description(dtype: Any, encoder: PartEncoder, depth: int) -> Any:
    from numpy.lib.format import dtype_to_descr

    if dtype.hasobject:
        raise InvalidPart("a numpy array of objects cannot cross; use a list, or a dtype without objects")
    return encoder.encode_field(dtype_to_descr(dtype), ".dtype", depth)


def _checked_dtype(description: Any) -> Any:
    from numpy.lib.format import descr_to_dtype

    dtype = descr_to_dtype(description)
    if dtype.hasobject:
        raise InvalidPart("a numpy array of objects")
    return dtype


def _encode_array(encoder: PartEncoder, value: Any, depth: int) -> list[Any]:
    import numpy

    description = _description(value.dtype, encoder, depth)
    if value.nbytes > encoder.max_bytes:
        raise InvalidPart(f"an array of {value.nbytes:,} bytes, more than max_bytes={encoder.max_bytes:,}")
    columns = value.flags.f_contiguous and not value.flags.c_contiguous
    flat = value.T if columns else value
    # msgpack takes the buffer itself. As bytes: memoryview has no datetimes and no structured types.
    buffer: Any = numpy.ascontiguousarray(flat).reshape(-1).view(numpy.uint8) if value.size and value.itemsize else b""
    return [
        NDARRAY.ext,
        description,
        list(value.shape),
        columns,
        encoder.buffer(memoryview(buffer)),
    ]


def _decode_array(decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
    import numpy

    description, shape, columns = decoder.decode_rest(payload[:-1], depth)
    data = decoder.writable(payload[-1])
    dtype = _checked_dtype(description)
    decoder.charge(len(data) + dtype.itemsize)
    if dtype.itemsize == 0 or not data:
        if dtype.itemsize and 0 not in shape:
            raise InvalidPart("an array without its data")
        return numpy.empty(shape, dtype, order="F" if columns else "C")
    array = numpy.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if columns else array.reshape(shape)


def _encode_scalar(encoder: PartEncoder, value: Any, depth: int) -> list[Any]:
    return [SCALAR.ext, _description(value.dtype, encoder, depth), value.tobytes()]


def _decode_scalar(decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
    import numpy

    description, data = decoder.decode_rest(payload, depth)
    dtype = _checked_dtype(description)
    if dtype.itemsize == 0:
        return numpy.zeros((), dtype)[()]
    return numpy.frombuffer(bytearray(data), dtype, count=1)[0]


def _encode_dtype(encoder: PartEncoder, value: Any, depth: int) -> list[Any]:
    return [DTYPE.ext, _description(value, encoder, depth)]


def _decode_dtype(decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
    (description,) = decoder.decode_rest(payload, depth)
    return _checked_dtype(description)


NDARRAY = Tag(32, _decode_array)
SCALAR = Tag(33, _decode_scalar)
DTYPE = Tag(34, _decode_dtype)
