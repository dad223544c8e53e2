"""What the models of a row use, and what that costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from agentmatrix.errors import DatasetError

__all__ = ["Prices", "RowUsage", "cost_of"]

Prices = Mapping[str, tuple[float, float]]
"""Money for a million tokens given to a model and made by it, by the model's name."""

_UNNAMED = "unnamed"
_MILLION = 1_000_000


class RowUsage(UsageMetadataCallbackHandler):
    """LangChain's counter of tokens for one row. It also keeps models from being called while all cool down.

    Args:
        cool_down: the seconds until models may be called.
    """

    # It hears of models only: nodes run as where nobody listens.
    ignore_chain = ignore_agent = ignore_retriever = ignore_retry = ignore_custom_event = True
    # Without a thread for each call.
    run_inline = True

    def __init__(self, cool_down: Callable[[], float]) -> None:
        super().__init__()
        self._cool_down = cool_down

    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Wait until models may be called again."""
        # Models are also called in other threads, with loops of their own: no event reaches all of them.
        while (seconds := self._cool_down()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(seconds)

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Count, also where the model has no name."""
        for answers in response.generations[:1]:
            for answer in answers[:1]:
                message = answer.message if isinstance(answer, ChatGeneration) else None
                if isinstance(message, AIMessage) and not message.response_metadata.get("model_name"):
                    named = {**message.response_metadata, "model_name": _UNNAMED}
                    copy = ChatGeneration(message=message.model_copy(update={"response_metadata": named}))
                    response = LLMResult(generations=[[copy]])
        super().on_llm_end(response, **kwargs)

    def tokens(self) -> dict[str, tuple[int, int]]:
        """Tokens given to and made by each model."""
        used = dict(self.usage_metadata)
        return {model: (usage["input_tokens"], usage["output_tokens"]) for model, usage in used.items()}


def cost_of(usage: Mapping[str, tuple[int, int]], prices: Prices | None) -> float:
    """What tokens cost.

    Raises:
        DatasetError: a model has no price.
    """
    if prices is None:
        return 0.0
    cost = 0.0
    for model, (given, made) in usage.items():
        # Providers add a date: "gpt-5-mini-2026-01-01" is "gpt-5-mini".
        known = [name for name in prices if model == name or model.startswith(f"{name}-")]
        if not known:
            raise DatasetError(
                f"the model {model!r} has no price: prices={{{model!r}: (input, output)}} per million tokens"
            )
        of_input, of_output = prices[max(known, key=len)]
        cost += (given * of_input + made * of_output) / _MILLION
    return cost
