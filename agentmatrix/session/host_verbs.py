"""The verbs that a host runs for a caller: which there are, what of their arguments is taken, and in whose name.

Whatever way a config comes in, the verb is called with one that the host has made: a config, or an identity, among the
arguments is refused.
"""

from __future__ import annotations

from typing import Any, Final

from agentmatrix.errors import DecodeError, ProtocolError, VersionMismatch
from agentmatrix.pregel import config_keys
from agentmatrix.session.host_state import brief
from agentmatrix.session.verb_names import ITERATED, UNARY, sync_verb

__all__ = [
    "EMPTY_CONFIG",
    "RUNS",
    "STREAMS",
    "check_verb",
    "checked_arguments",
    "takes_config",
    "without_identity",
]

STREAMS: Final = ITERATED | {f"a{verb}" for verb in ITERATED}
"""The verbs that yield parts."""
RUNS: Final = frozenset({"invoke", "ainvoke", "stream", "astream"})
"""The verbs that run nodes."""
_POSITIONAL: Final = {"invoke": 1, "stream": 1, "clear_cache": 1, "saver": 3}
"""How many arguments of a verb come by their place; none of any other."""
_WITHOUT_CONFIG: Final = frozenset({"clear_cache", "saver"})
_MADE_BY_THE_HOST: Final = ("config", "control")

EMPTY_CONFIG: Final[dict[str, Any]] = {"config": {}, "configurable": {}, "reserved": {}, "lent": {}}
"""What a caller that sends no config has sent."""


def check_verb(verb: str) -> None:
    """Refuses what is no verb.

    Raises:
        VersionMismatch: names it.
    """
    if sync_verb(verb) not in UNARY | ITERATED:
        raise VersionMismatch(f"the host does not know the verb {brief(verb)}")


def takes_config(verb: str) -> bool:
    """Whether the verb is called with a config."""
    return sync_verb(verb) not in _WITHOUT_CONFIG


def checked_arguments(verb: str, arguments: Any) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a verb as a caller has sent them.

    Raises:
        DecodeError: they are not a call's.
        ProtocolError: they hold what the host makes for itself.
    """
    if not (isinstance(arguments, (tuple, list)) and len(arguments) == 2):
        raise DecodeError("the arguments of a verb are a list and a dict")
    args, kwargs = arguments
    if not (
        isinstance(args, (tuple, list)) and isinstance(kwargs, dict) and all(isinstance(key, str) for key in kwargs)
    ):
        raise DecodeError("the arguments of a verb are a list and a dict")
    if len(args) > _POSITIONAL.get(sync_verb(verb), 0):
        raise ProtocolError(f"{verb} got {len(args)} arguments by their place: its config is not one of them")
    for name in _MADE_BY_THE_HOST:
        if name in kwargs:
            raise ProtocolError(f"{verb} got {name}= among its arguments, which the host makes for itself")
    return list(args), dict(kwargs)


_WITH_CONFIGS: Final = frozenset({"payload", "data", "config", "parent_config", "tasks", "state"})
"""The keys under which the parts of some stream modes have configs."""


def without_identity(value: Any) -> Any:
    """Parts of a stream without what the host has put into their configs: who calls is nothing for the wire."""
    if isinstance(value, dict):
        if isinstance(value.get("configurable"), dict):
            kept = {key: item for key, item in value["configurable"].items() if not config_keys.is_authentication(key)}
            return {**value, "configurable": kept}
        return {key: without_identity(item) if key in _WITH_CONFIGS else item for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(without_identity, value))
    return value
