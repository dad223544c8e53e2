"""Tensors as raw buffers where PyTorch is, and data frames, which never cross."""

from __future__ import annotations

import threading
from typing import Any

import ormsgpack
import pytest

from agentmatrix.errors import DecodeError, EncodeError
from agentmatrix.wire.codec import Codec
from agentmatrix.wire.tensors import TENSOR

CODEC, CALLER = Codec(), Codec(unlisted="dict")


def through(value: Any) -> Any:
    return CODEC.decode(CODEC.encode(value))


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.arange(6).reshape(2, 3),
        lambda t: t.arange(6.0).reshape(2, 3).T,
        lambda t: t.tensor(1.5),
        lambda t: t.empty(0, 3),
        lambda t: t.tensor([True, False]),
        lambda t: t.tensor([1 + 2j]).conj(),
        lambda t: t.ones(3, dtype=t.bfloat16),
        lambda t: t.ones(3, dtype=t.float16)[::2],
        lambda t: t.ones(2, requires_grad=True),
        lambda t: t.nn.Parameter(t.ones(2), requires_grad=False),
        lambda t: t.ones(2, requires_grad=True) * 2,
    ],
)
def test_a_tensor_comes_back_as_it_was(make: Any) -> None:
    torch = pytest.importorskip("torch")
    tensor = make(torch)
    back = through({"tensor": tensor})["tensor"]
    assert type(back) is type(tensor) and back.dtype is tensor.dtype and back.shape == tensor.shape
    assert back.requires_grad is tensor.requires_grad and back.equal(tensor)
    with torch.no_grad():
        back.zero_()  # its own memory


def test_a_tensor_that_is_no_plain_buffer_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(EncodeError, match="to_dense"):
        CODEC.encode(torch.ones(3).to_sparse())
    with pytest.raises(EncodeError, match="max_bytes"):
        Codec(max_bytes=100).encode(torch.ones(1000))


@pytest.mark.parametrize(
    "parts",
    [
        *(
            ("float32", [2], False, False, b"1234"),
            ("float32", [-1], False, False, b""),
            ("load", [1], False, False, b"1"),
        ),
        *(("float32", ["1"], False, False, b"1234"), ("float32", [1 << 40], False, False, b""), ("float32",)),
    ],
)
def test_a_tensor_that_is_none_is_refused(parts: Any) -> None:
    pytest.importorskip("torch")
    with pytest.raises(DecodeError):
        CODEC.decode(ormsgpack.packb([TENSOR.ext, *parts]))


def test_without_pytorch_it_is_a_dict_and_a_tensor_again_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ormsgpack.packb({"x": [TENSOR.ext, "float32", [1], False, False, b"\0\0\x80?"]})
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(DecodeError, match="PyTorch is not installed"):
        CODEC.decode(data)
    arrived = CALLER.decode(data)
    assert arrived["x"].type == "torch.Tensor" and arrived["x"]["shape"] == [1]
    assert CALLER.encode(arrived) == data
    stored = CALLER.for_storage()
    assert stored.encode(stored.decode(data)) == data


class BlockManager:
    """As pandas has one inside of each frame."""


def test_a_data_frame_is_a_plain_sentence_and_never_allow() -> None:
    frame_class: Any = type("DataFrame", (), {"__module__": "pandas.core.frame"})
    derived: Any = type("MyFrame", (frame_class,), {"__module__": "mine"})
    for cls in (frame_class, derived):
        for codec in (CODEC, Codec(allow=[cls])):
            with pytest.raises(
                EncodeError, match=r'state\["df"\]: a pandas.DataFrame cannot cross; send its records'
            ) as caught:
                codec.encode({"df": cls()}, "state")
            assert "allow" not in str(caught.value)


def test_a_real_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1]})
    for value in (frame, frame["a"], frame.index):
        with pytest.raises(EncodeError, match=r"a pandas\.\w+ cannot cross") as caught:
            CODEC.encode(value)
        assert "allow" not in str(caught.value)


class Client:
    def __init__(self) -> None:
        self.settings = {"lock": threading.Lock()}


class Holder:
    def __init__(self, held: Any) -> None:
        self.held = held


def test_an_object_is_not_said_to_be_admitted_where_that_would_not_help() -> None:
    with pytest.raises(EncodeError, match=r"Client cannot cross, listed or not: it\.settings\[\"lock\"\]"):
        CODEC.encode(Client())
    with pytest.raises(EncodeError, match=r"allow=\[Holder\]"):
        CODEC.encode(Holder(1))
    with pytest.raises(EncodeError, match=r"Holder cannot cross.*lock"):
        CODEC.encode(Holder(Client()))
