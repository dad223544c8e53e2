"""What users write to name an agent, and the one sentence they get when it cannot be understood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmatrix.errors import AddressError
from agentmatrix.transport import Target, parse_target


@pytest.mark.parametrize(
    ("text", "url", "expected"),
    [
        ("gpu-box:50051/research", None, Target("grpc", "gpu-box:50051", "research")),
        ("grpc://gpu-box:50051/research", None, Target("grpc", "gpu-box:50051", "research")),
        ("grpcs://gpu-box.example.org:443/research", None, Target("grpcs", "gpu-box.example.org:443", "research")),
        ("research", "grpc://gpu-box:50051", Target("grpc", "gpu-box:50051", "research")),
        ("research", "gpu-box:50051", Target("grpc", "gpu-box:50051", "research")),
        ("research", "grpcs://gpu-box:50051/", Target("grpcs", "gpu-box:50051", "research")),
        ("127.0.0.1:50051", None, Target("grpc", "127.0.0.1:50051")),
        ("[::1]:50051/x", None, Target("grpc", "[::1]:50051", "x")),
        ("gpu_box:50051/my agent".replace(" ", "-"), None, Target("grpc", "gpu_box:50051", "my-agent")),
        ("inproc://lab/research", None, Target("inproc", "lab", "research")),
        ("research", "inproc://lab", Target("inproc", "lab", "research")),
        ("unix:/run/x.sock/research", None, Target("unix", "/run/x.sock", "research")),
        ("unix:///run/x.sock/research", None, Target("unix", "/run/x.sock", "research")),
        ("unix:/run/x.sock", None, Target("unix", "/run/x.sock")),
        ("unix:x.sock/research", None, Target("unix", "x.sock", "research")),
        ("research", "unix:/run/socket", Target("unix", "/run/socket", "research")),
    ],
)
def test_targets(text: str, url: str | None, expected: Target) -> None:
    target = parse_target(text, url)
    assert target == expected
    assert parse_target(target.agent, target.url) == target if target.agent else parse_target(target.url) == target


@pytest.mark.parametrize(
    ("text", "url", "sentence"),
    [
        ("research", None, "names no host"),
        ("gpu-box/research", None, "has no port"),
        ("gpu-box:/research", None, "not a port"),
        ("gpu-box:70000/research", None, "not a port"),
        ("gpu-box:0/research", None, "not a port"),
        (":50051/research", None, "not the name of a machine"),
        ("http://gpu-box:50051/research", None, "http:// is not spoken here"),
        ("::1:50051/x", None, "stands in brackets"),
        ("gpu-box:50051/a/b", None, "not the name of an agent"),
        ("gpu-box:50051 /a", None, "empty or has blanks"),
        ("", None, "empty or has blanks"),
        ("inproc://", None, "names no host of this process"),
        ("unix:", None, "names no socket"),
        ("", "gpu-box:50051", "not the name of an agent"),
        ("research", "grpc://gpu-box:50051/other", "already names an agent"),
        ("gpu-box:50051/research", "grpc://gpu-box:50051", "not the name of an agent"),
    ],
)
def test_what_cannot_be_understood_is_said_in_one_sentence(text: str, url: str | None, sentence: str) -> None:
    with pytest.raises(AddressError, match=sentence) as caught:
        parse_target(text, url)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40), st.none() | st.text(max_size=40))
def test_no_text_raises_anything_else(text: str, url: str | None) -> None:
    try:
        target = parse_target(text, url)
    except AddressError:
        return
    assert target.address
