"""For tests and demos: a scripted chat model, a real one without a key, and a real host in this process.

`loopback` is no mock: the graph runs behind a gRPC server on 127.0.0.1 and everything crosses it as bytes.
"""

from __future__ import annotations

from agentmatrix.testing.local_model import LocalChatModel, local_model
from agentmatrix.testing.loopback import loopback
from agentmatrix.testing.scripted import ScriptedChatModel

__all__ = ["LocalChatModel", "ScriptedChatModel", "local_model", "loopback"]
