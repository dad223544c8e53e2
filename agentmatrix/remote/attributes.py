"""The attributes that LangGraph reads of any graph, for one that runs elsewhere: from its card, once it is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.graph import Edge, Graph, Node
from langgraph.pregel import Pregel
from pydantic import BaseModel

from agentmatrix.card import AgentCard
from agentmatrix.errors import AgentMatrixError
from agentmatrix.live.live_run import LiveMixin
from agentmatrix.remote.connection import AgentConnection
from agentmatrix.remote.schema_classes import SchemaClasses, model_schema

__all__ = ["CardAttributes", "unreached_drawing"]


class CardAttributes(LiveMixin, Pregel[Any, Any, Any, Any]):
    """A graph whose attributes and schemas come from its card.

    Reading an attribute never touches the network; asking for a schema fetches the card when it is not known yet.
    """

    _connection: AgentConnection

    @property
    def agent(self) -> str:
        """Its name on the host."""
        raise NotImplementedError

    @property
    def card(self) -> AgentCard:
        """Its card; fetched when it is not known yet."""
        raise NotImplementedError

    async def acard(self) -> AgentCard:
        """Its card, awaited."""
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

    def list_types_of(self, annotations: Sequence[object]) -> None:
        """List the classes that a state with these annotations may hold, besides `allow=`: the host may send them.

        A graph of ours does so when the agent is put into it; in any other, the first run of the agent does.
        """
        self._connection.list_types_of(annotations)

    def _learn_input_keys(self) -> None:
        """Fetches the card before the first run over a connection, for its `input_keys`."""
        self._connection.forget_card_behind_a_loss()
        if self._known is None and not self._connection.card_refused:
            began = time.monotonic()
            try:
                _ = self.card
            except AgentMatrixError as error:
                self._connection.note_card_failed(error, time.monotonic() - began)

    async def _alearn_input_keys(self) -> None:
        self._connection.forget_card_behind_a_loss()
        if self._known is None and not self._connection.card_refused:
            began = time.monotonic()
            try:
                await self.acard()
            except AgentMatrixError as error:
                self._connection.note_card_failed(error, time.monotonic() - began)

    @property
    def InputType(self) -> Any:
        """The type of the input, made of its JSON schema; Any until the host was reached."""
        return self._type("input")

    @property
    def OutputType(self) -> Any:
        """The type of the output, made of its JSON schema; Any until the host was reached."""
        return self._type("output")

    def _type(self, kind: str) -> Any:
        card = self._known
        schema = None if card is None else card.schemas.get(kind)
        if card is None or not schema:
            return Any
        built: dict[tuple[int, str], Any] = self.__dict__.setdefault("_types", {})
        if (id(card), kind) not in built:
            classes = SchemaClasses(schema, card.types, self._connection.codec.listed_class)
            built[id(card), kind] = classes.whole(card.classes.get(kind, ""), self.get_name(kind.title()))
        return built[id(card), kind]

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

    def get_config_jsonschema(self, *, include: Sequence[str] | None = None) -> dict[str, Any]:
        own, more = self._schema("config"), super().get_config_jsonschema(include=include)
        merged: dict[str, Any] = {**more, **own}
        for key in ("properties", "$defs"):
            if key in more or key in own:
                merged[key] = {**own.get(key, {}), **more.get(key, {})}
        return merged

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        return self._model("input", Runnable.get_input_schema)

    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        return self._model("output", Runnable.get_output_schema)

    def _model(self, kind: str, make: Callable[[Any], Any]) -> type[BaseModel]:
        """The class that checks an input or an output. Its JSON schema is that of the local graph's, to the letter."""
        schema, card = self._schema(kind), self.card
        exact: dict[str, Any] = card.schemas.get(f"{kind}_model") or schema or {}
        if kind == "input" and card.classes.get(kind) == "typed_dict":
            exact = model_schema(exact, self.get_name("Input"))
        made: Any = make(self)
        made.model_json_schema = classmethod(lambda cls, *args, **kwargs: dict(exact))
        return cast(type[BaseModel], made)


def unreached_drawing(name: str, address: str) -> Graph:
    """The drawing of an agent whose card is not known: one node that says so."""
    names = {"__start__": "__start__", name: f"{name} @{address} (not reached)", "__end__": "__end__"}
    nodes = {key: Node(id=key, name=text, data=None, metadata=None) for key, text in names.items()}
    return Graph(nodes=nodes, edges=[Edge("__start__", name), Edge(name, "__end__")])
