"""An expert for a GPU box: a model that is loaded once, before the host serves, and answers token by token.

    agentmatrix example expert
    agentmatrix serve expert=graphs.expert:graph --lifespan graphs.expert:lifespan

With the extra `local` the model is SmolLM2-135M-Instruct. Without it, it is one of numpy alone, made of Python's own
documentation when it is loaded: it knows which word follows which two, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import re
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix import Host
from agentmatrix.errors import MissingExtra
from agentmatrix.testing import local_model

__all__ = ["INPUT", "TrigramChatModel", "expert", "graph", "lifespan", "model"]

INPUT = "How does a class get its attributes?"
"""What `agentmatrix example` gives it."""

_logger = logging.getLogger("expert")


class TrigramChatModel(BaseChatModel):
    """A language model of numpy: each word is one that follows the two before it somewhere in a text.

    Attributes:
        text: what it is made of.
        most: words of an answer.
    """

    text: str
    most: int = 40
    _words: Any = None
    _numbers: Any = None

    def model_post_init(self, context: Any) -> None:
        words = re.findall(r"\w[\w'-]*|[.,;:!?]", self.text)
        self._words, self._numbers = np.unique(words, return_inverse=True)

    @property
    def _llm_type(self) -> str:
        return "trigrams"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        chunks = [chunk.message for chunk in self._stream(messages, stop, None, **kwargs)]
        whole = sum(chunks[1:], chunks[0])
        message = AIMessage(whole.text, usage_metadata=getattr(whole, "usage_metadata", None))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        question = messages[-1].text if messages else ""
        for number, word in enumerate(self._answer(question)):
            blank = "" if number == 0 or re.fullmatch(r"[.,;:!?]", word) else " "
            usage: UsageMetadata = {"input_tokens": 0, "output_tokens": 1, "total_tokens": 1}
            if number == 0:
                asked = len(question.split())
                usage = {"input_tokens": asked, "output_tokens": 1, "total_tokens": asked + 1}
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=blank + word, usage_metadata=usage))
            if run_manager is not None:
                run_manager.on_llm_new_token(blank + word, chunk=chunk)
            yield chunk

    def _answer(self, question: str) -> Iterator[str]:
        chance = np.random.default_rng(zlib.crc32(question.encode()))  # the same question has the same answer
        numbers, words = self._numbers, self._words
        at = self._begin(question.split(), chance)
        for _ in range(self.most):
            yield str(words[numbers[at]])
            if words[numbers[at]] == ".":
                return
            after = np.flatnonzero((numbers[1:-1] == numbers[at]) & (numbers[:-2] == numbers[at - 1])) + 2
            at = int(chance.choice(after)) if len(after) else 1
        yield "."

    def _begin(self, question: Sequence[str], chance: np.random.Generator) -> int:
        """Where a sentence begins, with a word of the question if there is one."""
        begins = np.flatnonzero(self._numbers[:-2] == np.searchsorted(self._words, ".")) + 1
        begins = begins[np.char.istitle(self._words[self._numbers[begins]])]
        for word in sorted(question, key=len, reverse=True):
            place = np.searchsorted(self._words, word)
            if place < len(self._words) and self._words[place] == word:
                found = np.flatnonzero(self._numbers[2:] == place) + 2
                at = int(chance.choice(found))
                return int(begins[max(0, int(np.searchsorted(begins, at, "right")) - 1)])
        return int(chance.choice(begins))


@cache
def model() -> BaseChatModel:
    """The model; one for all runs."""
    try:
        return local_model(max_tokens=200)
    except MissingExtra:
        _logger.warning("the extra local is not installed: the expert is a model of trigrams")
        return TrigramChatModel(text=" ".join(topics.values()))


@asynccontextmanager
async def lifespan(host: Host) -> AsyncIterator[None]:
    """Loads the model before the host serves, and gives it back after the last run."""
    loaded = await asyncio.to_thread(model)
    await loaded.ainvoke("Good morning.")  # weights are read, and memory is taken, by a first answer
    yield
    model.cache_clear()


async def expert(state: MessagesState) -> dict[str, Any]:
    """Answers the last message."""
    return {"messages": [await model().ainvoke(state["messages"])]}


graph = StateGraph(MessagesState).add_node(expert).add_edge(START, "expert").compile(name="expert")
