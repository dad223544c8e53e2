from __future__ import annotations
from typing import Any
from agentmatrix.wire.marks import Encoding, Refusal
def lower(walk: Encoding, value: Any, depth: int) -> Any:
    raise Refusal("no")
