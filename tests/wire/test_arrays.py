"""Numpy arrays and scalars come back with their dtype, order and values."""

from __future__ import annotations

from typing import Any

import ormsgpack
import pytest

from agentmatrix.errors import DecodeError, EncodeError
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.extensions import TAG

np = pytest.importorskip("numpy")
CODEC = Codec()
BASE = np.arange(24, dtype=np.int32).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "array",
    [
        BASE,
        np.asfortranarray(BASE),
        BASE[:, ::2, ::-1],
        BASE.T,
        BASE.transpose(1, 0, 2),
        np.array(3.5),
        np.array([], dtype="f4"),
        np.zeros((0, 3)),
        np.zeros((3, 0), order="F"),
        np.array([1, 2], dtype=">i8"),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(["a", "bcd"]),
        np.array([b"a", b"bcd"]),
        np.array(["2024-01-01", "NaT"], dtype="M8[ns]"),
        np.array([1, 2], dtype="m8[s]"),
        np.array([(1, 2.5, "x")], dtype=[("a", "i4"), ("b", "f8"), ("c", "U3")]),
        np.zeros(2, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.zeros(2, dtype=[("a", "f4", (2, 2))]),
        np.zeros(3, dtype="V4"),
        np.float16([1.5]),
        np.broadcast_to(np.arange(3), (4, 3)),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}-{array.strides}",
)
def test_an_array_comes_back_as_it_was(array: Any) -> None:
    back = CODEC.decode(CODEC.encode({"a": [array]}))["a"][0]
    assert type(back) is np.ndarray and back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        assert back.flags.f_contiguous
    assert back.flags.writeable


@pytest.mark.parametrize(
    "scalar",
    [
        np.float64(1.5),
        np.int8(-1),
        np.bool_(True),
        np.datetime64("2024-01-01T00:00:00", "ms"),
        np.str_("x"),
        np.bytes_(b"x"),
    ],
    ids=lambda scalar: type(scalar).__name__,
)
def test_a_scalar_comes_back_as_it_was(scalar: Any) -> None:
    back = CODEC.decode(CODEC.encode((scalar, scalar.dtype)))
    assert type(back[0]) is type(scalar) and back[0] == scalar and back[1] == scalar.dtype


def test_an_array_of_objects_is_refused() -> None:
    with pytest.raises(EncodeError, match=r'state\["a"\]: a numpy array of objects'):
        CODEC.encode({"a": np.array([object()])}, "state")


def test_a_view_of_a_few_bytes_that_claims_to_be_huge_is_refused() -> None:
    with pytest.raises(EncodeError):
        Codec(max_bytes=1 << 20).encode(np.broadcast_to(np.zeros(1), (1 << 40,)))


@pytest.mark.parametrize(
    "parts",
    [
        ["|O", [1], False, b"\0" * 8],
        ["<f8", [1 << 40], False, b"\0" * 8],
        ["<f8", [1 << 40], False, b""],
        ["<f8", [0, 1 << 62], False, b""],
        ["V0", [1 << 40], False, b""],
        ["<f8", [-1], False, b"\0" * 8],
        ["<f8", ["x"], False, b"\0" * 8],
        ["nonsense", [1], False, b"\0" * 8],
        [[["a", "|O"]], [1], False, b"\0" * 8],
        ["<U1000000000", [1], False, b""],
    ],
)
def test_an_array_that_is_none_is_refused(parts: list[Any]) -> None:
    try:
        back = CODEC.decode(ormsgpack.packb([ormsgpack.Ext(TAG, b"\x20"), *parts]))
    except DecodeError:
        return
    assert back.nbytes <= 8
