"""PyTorch tensors, as raw buffers, and the tables of data frame libraries, which are refused.

PyTorch is optional: it is imported once a value needs it. A tensor arrives on the CPU, whatever device it was on.
"""

from __future__ import annotations

import math
import sys
from typing import Any, Final

from agentmatrix.wire.extensions import EncodePart, InvalidPart, PartDecoder, PartEncoder, Tag
from agentmatrix.wire.unlisted import UnlistedValue

_TABLES: Final = frozenset({"pandas", "polars", "pyarrow", "xarray", "modin", "dask", "geopandas"})
_PARTS: Final = ("dtype", "shape", "requires_grad", "parameter", "data")


def refuse_table(cls: type) -> None:
    """Raise `InvalidPart` for a class of a data frame library: listing it would not help."""
    for base in cls.__mro__:
        library = base.__module__.partition(".")[0]
        if library in _TABLES:
            raise InvalidPart(
                f"a {library}.{base.__name__} cannot cross; send its records, as of df.to_dict('records'), its columns "
                "as numpy arrays, or the bytes of a file format such as Parquet"
            )


def encoder_of(cls: type) -> EncodePart | None:
    """The function that encodes values of a tensor class; None for another class."""
    torch: Any = sys.modules.get("torch")
    return _encode if isinstance(getattr(torch, "Tensor", None), type) and issubclass(cls, torch.Tensor) else None


def _encode(encoder: PartEncoder, value: Any, depth: int) -> list[Any]:
    import ctypes

    import torch  # type: ignore[import-not-found, unused-ignore]

    cls, parameter = type(value), type(value) is torch.nn.Parameter
    if not parameter and cls is not torch.Tensor:
        raise InvalidPart(f"a {cls.__module__}.{cls.__qualname__} cannot cross; send a plain torch.Tensor")
    if value.layout is not torch.strided or value.is_quantized or value.is_meta or value.is_nested:
        raise InvalidPart("a sparse, quantized, nested or meta tensor cannot cross; send it dense, as of to_dense()")
    size = value.numel() * value.element_size()
    if size > encoder.max_bytes:
        raise InvalidPart(f"a tensor of {size:,} bytes, more than max_bytes={encoder.max_bytes:,}")
    plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    data = ctypes.string_at(plain.data_ptr(), size) if size else b""
    dtype = str(value.dtype).removeprefix("torch.")
    return [TENSOR.ext, dtype, list(value.shape), bool(value.requires_grad), parameter, encoder.buffer(data)]


def _decode(decoder: PartDecoder, payload: list[Any], depth: int) -> Any:
    parts = decoder.decode_rest(payload[:-1], depth)
    dtype_name, shape, requires_grad, parameter = parts
    try:
        import torch
    except ImportError:
        data = decoder.decode_part(payload[-1], depth)
        decoder.charge(len(data))
        tensor = UnlistedValue("torch:Tensor", zip(_PARTS, (*parts, data), strict=True))
        tensor._beside = {"tag": TENSOR.number}
        return decoder.unlisted_or(tensor, "a torch.Tensor, and PyTorch is not installed here")
    data = decoder.writable(payload[-1])
    decoder.charge(len(data))
    dtype = vars(torch).get(dtype_name)
    if not isinstance(dtype, torch.dtype):
        raise InvalidPart(f"a tensor of {dtype_name!r}")
    if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise InvalidPart(f"{len(data)} bytes for a tensor of {shape}")
    tensor = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    tensor = tensor.reshape(shape)
    return torch.nn.Parameter(tensor, requires_grad) if parameter else tensor.requires_grad_(requires_grad)


TENSOR: Final = Tag(35, _decode)
