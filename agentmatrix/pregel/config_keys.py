"""The reserved keys under `config["configurable"]` by which LangGraph makes a graph run as a subgraph.

Each key is sorted by how it crosses to another process. A key that this module does not know, of a newer LangGraph,
stays with the caller: `is_reserved` tells it from the keys of users.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from langgraph._internal import _constants as constants

__all__ = [
    "AUTH_USER",
    "BY_VALUE",
    "CACHE",
    "CHECKPOINTER",
    "CHECKPOINT_NS",
    "DROPPED",
    "DURABILITY",
    "ERROR_SOURCE_NODE",
    "IDENTITY",
    "NODE_FINISHED",
    "NS_SEP",
    "PROXIED",
    "REPLAY_STATE",
    "RESUMING",
    "RUNTIME",
    "SCRATCHPAD",
    "STREAM",
    "TASK_ID",
    "HIDDEN",
    "is_authentication",
    "is_reserved",
    "reserved_keys",
    "unknown_keys",
]

NS_SEP: Final[str] = constants.NS_SEP
CHECKPOINTER: Final[str] = constants.CONFIG_KEY_CHECKPOINTER
STREAM: Final[str] = constants.CONFIG_KEY_STREAM
CACHE: Final[str] = constants.CONFIG_KEY_CACHE
RUNTIME: Final[str] = constants.CONFIG_KEY_RUNTIME
SCRATCHPAD: Final[str] = constants.CONFIG_KEY_SCRATCHPAD
REPLAY_STATE: Final[str] = constants.CONFIG_KEY_REPLAY_STATE
NODE_FINISHED: Final[str] = constants.CONFIG_KEY_NODE_FINISHED
TASK_ID: Final[str] = constants.CONFIG_KEY_TASK_ID
CHECKPOINT_NS: Final[str] = constants.CONFIG_KEY_CHECKPOINT_NS
RESUMING: Final[str] = constants.CONFIG_KEY_RESUMING
DURABILITY: Final[str] = constants.CONFIG_KEY_DURABILITY
ERROR_SOURCE_NODE: Final[str] = constants.ERROR_SOURCE_NODE

IDENTITY: Final = frozenset({"thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map"})
"""Keys without a prefix that say which checkpoint is meant: plain data that always crosses."""

AUTH_USER: Final = "langgraph_auth_user"
"""The key under which a server of LangGraph's puts who calls: `runtime.server_info.user` is made of it."""

BY_VALUE: Final = frozenset(
    {
        constants.CONFIG_KEY_TASK_ID,
        constants.CONFIG_KEY_RESUMING,
        constants.CONFIG_KEY_RESUME_MAP,
        constants.CONFIG_KEY_STRICT_RESUME,
        constants.CONFIG_KEY_DURABILITY,
        constants.CONFIG_KEY_STREAM_MESSAGES_V2,
    }
)
"""Reserved keys whose values are plain data and cross as they are."""

PROXIED: Final = frozenset({CHECKPOINTER, STREAM, CACHE, RUNTIME, SCRATCHPAD, REPLAY_STATE, NODE_FINISHED})
"""Reserved keys whose objects stay with the caller; the host gets proxies."""

DROPPED: Final = frozenset(
    {
        constants.CONFIG_KEY_SEND,
        constants.CONFIG_KEY_READ,
        constants.CONFIG_KEY_CALL,
        constants.CONFIG_KEY_RUNNER_SUBMIT,
        constants.CONFIG_KEY_TIMED_ATTEMPT_OBSERVER,
        constants.CONFIG_KEY_NODE_ERROR,
        "__pregel_read_state",  # Since langgraph 1.2.24.
    }
)
"""Reserved keys that mean something only inside the parent's own task."""

_PREFIX = "__pregel_"
HIDDEN = (_PREFIX, "langgraph_auth")
"""What the keys begin with that `is_reserved` or `is_authentication` is true of."""


def is_reserved(key: str) -> bool:
    """Whether LangGraph keeps a key to itself, whether this release of ours knows it or not."""
    return key.startswith(_PREFIX)


def is_authentication(key: object) -> bool:
    """Whether a key says who calls, which the host alone may say."""
    return isinstance(key, str) and key.startswith("langgraph_auth")


def reserved_keys() -> Mapping[str, str]:
    """Every reserved config key of the installed LangGraph: constant's name -> key."""
    return {name: value for name, value in vars(constants).items() if name.startswith("CONFIG_KEY_")}


def unknown_keys() -> frozenset[str]:
    """The reserved keys of the installed LangGraph that nobody has sorted yet: they are dropped at the boundary."""
    return frozenset(reserved_keys().values()) - BY_VALUE - PROXIED - DROPPED - IDENTITY
