"""The states of actors: each has a namespace of its own in the graph's checkpointer, `staff/ann`.

A checkpoint of an actor keeps its state, and what it has answered to the message that it has read last. A message that
is told again, since the process was killed before the graph had heard of the answer, is answered with that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint

from agentmatrix.engine.branches import ALL, Span, afound_in, found_in
from agentmatrix.pregel.execution import (
    CONF,
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_CHECKPOINT_NS,
    MISSING,
    newer_versions,
    with_configurable,
)
from agentmatrix.scheduling.scheduled_activation import Write
from agentmatrix.scheduling.state import Channels, saved_value

__all__ = ["ActorState", "ActorStates", "ActorAnswer"]

_ANSWER = "agentmatrix:answer"
"""The hidden channel of an actor."""


class ActorAnswer(NamedTuple):
    """What an actor has answered to a message.

    Attributes:
        message: the id of the task that has read it.
        commands: what it has told the graph around it, as plain values.
    """

    message: str
    commands: Any


@dataclass(eq=False)
class ActorState:
    """The state of one actor.

    Attributes:
        channels: by key, its channels.
        count: how many messages it has read.
        answer: what it has answered last.
        saved: the checkpoint that has all this; None before the first.
        config: names that checkpoint.
        kept: the channels as that checkpoint has them.
    """

    channels: Channels
    count: int = 0
    answer: ActorAnswer | None = None
    saved: Any = None
    config: RunnableConfig = field(default_factory=lambda: RunnableConfig())
    kept: Channels = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """By key, what it holds."""
        return {key: channel.get() for key, channel in self.channels.items() if channel.is_available()}

    def updated(self, writes: Iterable[Write]) -> ActorState:
        """The state with these writes; this one stays as it is."""
        values: dict[str, list[Any]] = {}
        for key, value in writes:
            values.setdefault(key, []).append(value)
        channels = dict(self.channels)
        for key, found in values.items():
            channels[key] = channels[key].copy()
            channels[key].update(found)
        return ActorState(channels, self.count, self.answer, self.saved, self.config, self.kept)


class ActorStates:
    """Those of all actors of one kind, in one run.

    Args:
        specs: the channels of their state, empty.
        saver: the checkpointer, or None.
        config: the graph's, as its checkpointer takes it.
        durable: whether a state is saved before its actor's answer counts; else when the run ends.
        spans: when what counts here was kept.
    """

    def __init__(
        self,
        specs: Mapping[str, Any],
        saver: Any,
        config: RunnableConfig,
        *,
        durable: bool,
        spans: Sequence[Span] = ALL,
    ) -> None:
        self._specs, self._saver, self._config, self._durable = specs, saver, config, durable
        self._spans = spans
        self._known: dict[str, ActorState] = {}
        self._unsaved: dict[str, ActorState] = {}

    def new(self) -> ActorState:
        """That of an actor that nothing is known of."""
        return ActorState({key: spec.from_checkpoint(MISSING) for key, spec in self._specs.items()})

    def _config_of(self, address: str) -> RunnableConfig:
        above = self._config[CONF].get(CONFIG_KEY_CHECKPOINT_NS, "")
        namespace = f"{above}|{address}" if above else address
        return with_configurable(
            self._config, {CONFIG_KEY_CHECKPOINT_NS: namespace, CONFIG_KEY_CHECKPOINT_ID: None, "checkpoint_map": {}}
        )

    def load(self, address: str, *, is_new: bool) -> ActorState | None:
        """The state of an actor, or None where nothing is known of it.

        Args:
            address: the actor's.
            is_new: whether no checkpoint can have it.
        """
        if (known := self._known.get(address)) is not None or is_new or self._saver is None:
            return known
        if (found := found_in(self._saver, self._config_of(address), self._spans)) is None:
            return None
        return self._loaded(address, found)

    async def aload(self, address: str, *, is_new: bool) -> ActorState | None:
        """The same as `load`, async."""
        if (known := self._known.get(address)) is not None or is_new or self._saver is None:
            return known
        if (found := await afound_in(self._saver, self._config_of(address), self._spans)) is None:
            return None
        return self._loaded(address, found)

    def _loaded(self, address: str, found: CheckpointTuple) -> ActorState:
        values = found.checkpoint["channel_values"]
        channels = {key: spec.from_checkpoint(values.get(key, MISSING)) for key, spec in self._specs.items()}
        said = values.get(_ANSWER)
        answer = ActorAnswer(said["message"], said["commands"]) if said else None
        count = found.metadata.get("step", 0)
        state = ActorState(channels, count, answer, found.checkpoint, found.config, channels)
        self._known[address] = state
        return state

    def put(self, address: str, state: ActorState) -> None:
        """Keep a state."""
        if self._keeps(address, state):
            config, *given = self._checkpoint(address, state)
            state.config = self._saver.put(config, *given)

    async def aput(self, address: str, state: ActorState) -> None:
        """The same as `put`, async."""
        if self._keeps(address, state):
            config, *given = self._checkpoint(address, state)
            state.config = await self._saver.aput(config, *given)

    def _keeps(self, address: str, state: ActorState) -> bool:
        self._known[address] = state
        if self._saver is not None and not self._durable:
            self._unsaved[address] = state
        return self._saver is not None and self._durable

    def put_all(self) -> None:
        """Save what was not saved yet."""
        unsaved, self._unsaved = self._unsaved, {}
        for address, state in unsaved.items():
            config, *given = self._checkpoint(address, state)
            state.config = self._saver.put(config, *given)

    async def aput_all(self) -> None:
        """The same as `put_all`, async."""
        unsaved, self._unsaved = self._unsaved, {}
        for address, state in unsaved.items():
            config, *given = self._checkpoint(address, state)
            state.config = await self._saver.aput(config, *given)

    def _checkpoint(self, address: str, state: ActorState) -> tuple[RunnableConfig, Any, dict[str, Any], Any]:
        before = state.saved or empty_checkpoint()
        versions = dict(before["channel_versions"])
        following = self._saver.get_next_version(max(versions.values(), default=None), None)
        changed = (key for key, channel in state.channels.items() if channel is not state.kept.get(key))
        versions.update(dict.fromkeys((*changed, _ANSWER), following))
        # In full: LangGraph would keep differences of some channels, in writes that nobody makes here.
        values = {key: saved_value(channel) for key, channel in state.channels.items() if channel.is_available()}
        if state.answer is not None:
            values[_ANSWER] = state.answer._asdict()
        kept = {key: value for key, value in values.items() if value is not MISSING}
        checkpoint: Any = {**empty_checkpoint(), "channel_values": kept, "channel_versions": versions}
        config = self._config_of(address)
        if (id := state.config.get(CONF, {}).get(CONFIG_KEY_CHECKPOINT_ID)) is not None:
            config = with_configurable(config, {CONFIG_KEY_CHECKPOINT_ID: id})
        state.saved, state.kept = checkpoint, state.channels
        new = newer_versions(before["channel_versions"], checkpoint["channel_versions"])
        return config, checkpoint, {"source": "loop", "step": state.count, "parents": {}}, new
