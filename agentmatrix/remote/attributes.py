"""The attributes that LangGraph reads of any graph, for one that runs elsewhere: from its card, once it is known."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from pydantic import BaseModel

from agentmatrix.card import AgentCard, schema_model
from agentmatrix.live.live_run import LiveMixin

__all__ = ["CardAttributes"]


class CardAttributes(LiveMixin, Pregel[Any, Any, Any, Any]):
    """A graph whose attributes and schemas come from its card.

    Reading an attribute never touches the network; asking for a schema fetches the card when it is not known yet.
    """

    @property
    def agent(self) -> str:
        """Its name on the host."""
        raise NotImplementedError

    @property
    def card(self) -> AgentCard:
        """Its card; fetched when it is not known yet."""
        raise NotImplementedError

    @property
    def _known(self) -> AgentCard | None:
        raise NotImplementedError

    def _channel(self, name: str, default: Any) -> Any:
        card = self._known
        return default if card is None else card.channels[name]

    @property
    def input_channels(self) -> Any:  # type: ignore[override]
        return self._channel("input_channels", "__input__")

    @property
    def output_channels(self) -> Any:  # type: ignore[override]
        return self._channel("output_channels", "__output__")

    @property
    def stream_channels(self) -> Any:  # type: ignore[override]
        return self._channel("stream_channels", None)

    @property
    def stream_mode(self) -> Any:  # type: ignore[override]
        return self._channel("stream_mode", "values")

    @property
    def interrupt_before_nodes(self) -> Any:  # type: ignore[override]
        return self._channel("interrupt_before_nodes", [])

    @property
    def interrupt_after_nodes(self) -> Any:  # type: ignore[override]
        return self._channel("interrupt_after_nodes", [])

    @property
    def description(self) -> str:
        """The agent's own words, empty until the host was reached."""
        card = self._known
        return "" if card is None else card.description

    @property
    def signals(self) -> frozenset[str] | None:  # type: ignore[override]
        """The signals that the agent itself declares; None until the host was reached."""
        card = self._known
        return None if card is None else card.signals

    @property
    def input_keys(self) -> frozenset[str] | None:
        """The keys of its input, if that is a state: of the state around it no others are sent. None until the host was
        reached."""
        card = self._known
        return None if card is None else card.input_keys

    @property
    def InputType(self) -> Any:
        return Any

    @property
    def OutputType(self) -> Any:
        return Any

    def _schema(self, kind: str) -> Any:
        card = self.card
        if kind in card.unmade:
            raise TypeError(f"the host cannot make the {kind} schema of {self.agent!r}: {card.unmade[kind]}")
        return card.schemas.get(kind)

    def get_input_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        schema: dict[str, Any] = self._schema("input")
        return schema

    def get_output_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]:
        schema: dict[str, Any] = self._schema("output")
        return schema

    def get_context_jsonschema(self) -> dict[str, Any] | None:
        schema: dict[str, Any] | None = self._schema("context")
        return schema

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        return schema_model(self.get_name("Input"), self._schema("input"))

    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        return schema_model(self.get_name("Output"), self._schema("output"))
