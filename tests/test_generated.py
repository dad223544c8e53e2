"""The committed protobuf code is what the schema under protos/ gives, and runs on the runtimes that are allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROTOS = sorted(path.relative_to(ROOT) for path in (ROOT / "protos").rglob("*.proto"))


def test_generated_code_is_that_of_the_schema(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools comes with the dev extra")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "protos", f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--pyi_out={tmp_path}", *map(str, PROTOS)], cwd=ROOT, check=True)
    made = {path.name: path.read_text() for path in tmp_path.rglob("*_pb2.py*")}
    committed = {path.name: path.read_text() for path in (ROOT / "agentmatrix/wire/v1").glob("*_pb2.py*")}
    assert made == committed, "run `make protos` and commit what it wrote"


def test_generated_code_asks_for_no_newer_runtime_than_the_lowest_allowed() -> None:
    for path in (ROOT / "agentmatrix/wire/v1").glob("*_pb2.py"):
        assert "# Protobuf Python Version: 6.31.1\n" in path.read_text(), "generate with grpcio-tools 1.74.0"


def test_pure_python_protobuf_is_refused_with_the_mend() -> None:
    script = """
from agentmatrix.errors import MissingExtra
from agentmatrix.transport import connect, listen, parse_target
for attempt in (lambda: listen("127.0.0.1:0", None), lambda: connect(parse_target("localhost:1/x"))):
    try:
        attempt()
    except MissingExtra as error:
        print(error)
"""
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.count("pure-Python mode") == 2
    assert "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" in result.stdout
