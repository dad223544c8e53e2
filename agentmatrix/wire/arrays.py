"""Numpy arrays and scalars, as raw buffers. Numpy is optional and imported only for a value of its own."""

from __future__ import annotations

import sys
from typing import Any

from agentmatrix.wire.extensions import Decoding, Encoding, Lower, Refusal, Tag


def lowering(cls: type) -> Lower | None:
    """The function that lowers values of a numpy class; None if it is none."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if cls is numpy.ndarray:
        return _lower_array
    return _lower_scalar if issubclass(cls, numpy.generic) else _lower_dtype if issubclass(cls, numpy.dtype) else None


def _described(dtype: Any, walk: Encoding, depth: int) -> Any:
    from numpy.lib.format import dtype_to_descr

    if dtype.hasobject:
        raise Refusal("a numpy array of objects cannot cross; use a list, or a dtype without objects")
    return walk.field(dtype_to_descr(dtype), ".dtype", depth)


def _dtype(description: Any) -> Any:
    from numpy.lib.format import descr_to_dtype

    dtype = descr_to_dtype(description)
    if dtype.hasobject:
        raise Refusal("a numpy array of objects")
    return dtype


def _lower_array(walk: Encoding, value: Any, depth: int) -> list[Any]:
    import numpy

    description = _described(value.dtype, walk, depth)
    if value.nbytes > walk.max_bytes:
        raise Refusal(f"an array of {value.nbytes:,} bytes, more than max_bytes={walk.max_bytes:,}")
    columns = value.flags.f_contiguous and not value.flags.c_contiguous
    flat = value.T if columns else value
    # msgpack takes the buffer itself; memoryview knows no datetimes and no structures, so it is shown bytes
    buffer: Any = numpy.ascontiguousarray(flat).reshape(-1).view(numpy.uint8) if value.size and value.itemsize else b""
    return [
        NDARRAY.ext,
        description,
        list(value.shape),
        columns,
        memoryview(buffer),
    ]


def _lift_array(walk: Decoding, payload: list[Any], depth: int) -> Any:
    import numpy

    description, shape, columns, data = walk.rest(payload, depth)
    dtype = _dtype(description)
    walk.charge(len(data) + dtype.itemsize)
    if dtype.itemsize == 0 or not data:
        if dtype.itemsize and 0 not in shape:
            raise Refusal("an array without its data")
        return numpy.empty(shape, dtype, order="F" if columns else "C")
    array = numpy.frombuffer(bytearray(data), dtype)
    return array.reshape(shape[::-1]).T if columns else array.reshape(shape)


def _lower_scalar(walk: Encoding, value: Any, depth: int) -> list[Any]:
    return [SCALAR.ext, _described(value.dtype, walk, depth), value.tobytes()]


def _lift_scalar(walk: Decoding, payload: list[Any], depth: int) -> Any:
    import numpy

    description, data = walk.rest(payload, depth)
    dtype = _dtype(description)
    if dtype.itemsize == 0:
        return numpy.zeros((), dtype)[()]
    return numpy.frombuffer(bytearray(data), dtype, count=1)[0]


def _lower_dtype(walk: Encoding, value: Any, depth: int) -> list[Any]:
    return [DTYPE.ext, _described(value, walk, depth)]


def _lift_dtype(walk: Decoding, payload: list[Any], depth: int) -> Any:
    (description,) = walk.rest(payload, depth)
    return _dtype(description)


NDARRAY = Tag(32, _lift_array)
SCALAR = Tag(33, _lift_scalar)
DTYPE = Tag(34, _lift_dtype)
