"""A telephone desk: it listens while it speaks, and stops speaking when the caller breaks in.

    agentmatrix example voice_desk
    agentmatrix serve graphs.voice_desk:answerer

The line sends signals into a live run: `audio`, a few words as bytes, and `hang_up`. `listen` takes them, and hears too
when an answer was said to its end. What comes first wins: `cancel_rest=True` cuts off an answer that the caller talks
over, also one that is given on another machine, `build(address="gpu-box:50051/answerer")`. Nothing of an answer that
was cut off is in the state. `watch` ends a call that has gone silent. No key and no audio: its model is scripted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage
from langgraph.config import get_stream_writer
from langgraph.graph import END, MessagesState
from langgraph.pregel import Pregel
from langgraph.types import Checkpointer, Command

from agentmatrix import CyclicGraph, RemoteAgent, any_of, as_agent, every, get_activation, signal
from agentmatrix.testing import ScriptedChatModel

__all__ = ["Call", "answerer", "answering", "build", "graph", "main", "play"]

PACE = 0.05
"""Seconds that a word takes."""

Say = Callable[[str], Awaitable[None]]


class Call(MessagesState, total=False):
    """What is known of a call: whole sentences, the beginning of the next one, and how it went."""

    heard: str
    cut_off: int
    quiet_at: str
    report: str


async def speak(word: str) -> None:
    """Says a word on the line."""
    get_stream_writer()(word)
    await asyncio.sleep(PACE)


def answering(model: BaseChatModel, say: Say = speak) -> Any:
    """An agent that says the answer of a model word by word, while it comes.

    Args:
        model: a chat model.
        say: says a word; the next one follows when it is done.
    """

    async def answer(messages: list[AnyMessage]) -> str:
        words = []
        async for chunk in model.astream(messages):
            if chunk.text:
                await say(chunk.text)
                words.append(chunk.text)
        return "".join(words)

    return as_agent(answer, name="answer")


def listen(state: Call) -> Command[Literal["answer", "wrap_up"]]:
    """Writes down what the caller says, and has a sentence answered at its end."""
    items = get_activation().items
    if "hang_up" in items:
        return Command(goto="wrap_up")
    if "audio" not in items:
        return Command()
    before = state.get("heard", "")
    broke_in = int(not before and _owes_an_answer(state))
    heard = f"{before} {items['audio'].decode()}".strip()
    update: dict[str, Any] = {"heard": heard, "cut_off": state.get("cut_off", 0) + broke_in}
    if heard.endswith((".", "?", "!")):
        update |= {"heard": "", "messages": [HumanMessage(heard, name="caller")]}
        return Command(update=update, goto="answer")
    return Command(update=update)


def watch(state: Call) -> Command[Literal["wrap_up"]]:
    """Ends the call when nothing has been said from one tick to the next."""
    now = f"{len(state['messages'])} {state.get('heard', '')}"
    silent = now == state.get("quiet_at") and not _owes_an_answer(state)
    return Command(goto="wrap_up") if silent else Command(update={"quiet_at": now})


def wrap_up(state: Call) -> dict[str, str]:
    """Notes how the call went."""
    questions = sum(message.type == "human" for message in state["messages"])
    answers = len(state["messages"]) - questions
    return {"report": f"asked {questions}, answered {answers}, cut off {state.get('cut_off', 0)}"}


def build(
    address: str | None = None,
    model: BaseChatModel | None = None,
    *,
    say: Say = speak,
    patience: float = 10,
    checkpointer: Checkpointer = None,
) -> Pregel[Any, Any, Any, Any]:
    """The graph.

    Args:
        address: where the answerer is served, `"gpu-box:50051/answerer"`; by default it is here.
        model: the chat model that answers here; by default a scripted one.
        say: says a word of an answer that is given here.
        patience: seconds between two looks whether the caller has gone silent.
        checkpointer: as in LangGraph; with one, a call goes on after a crash.
    """
    desk = CyclicGraph(Call, name="voice_desk")
    desk.add_node("answer", RemoteAgent(address) if address else answering(model or _model(), say))
    desk.add_node("listen", listen)
    desk.add_node("watch", watch)
    desk.add_node("wrap_up", wrap_up)
    desk.add_trigger("listen", any_of(signal("audio"), signal("hang_up"), "answer", cancel_rest=True))
    desk.add_trigger("watch", any_of(every(patience, name="tick"), latest="listen"))
    desk.add_edge("wrap_up", END)
    graph: Pregel[Any, Any, Any, Any] = desk.compile(checkpointer=checkpointer)
    return graph


def _owes_an_answer(state: Call) -> bool:
    return bool(state["messages"]) and state["messages"][-1].type == "human" and not state.get("heard")


def _model() -> ScriptedChatModel:
    return ScriptedChatModel(_reply, cycle=True)


def _reply(messages: list[BaseMessage]) -> str:
    asked = messages[-1].text
    if "Sunday" in asked:
        return "On Sunday we are closed."
    if "open" in asked:
        return "We are open from nine to five on weekdays, from ten to two on Saturdays, and by appointment."
    return "You are welcome. Goodbye!"


CALL: Mapping[str, Sequence[bytes]] = {
    "": [b"Good morning,", b"when do you", b"open?"],
    "weekdays,": [b"And", b"on Sunday?"],
    "On Sunday we are closed.": [b"Thank you."],
}
"""A call: what the caller says, and at which word, or after which whole answer, of the desk."""


async def play(graph: Any, call: Mapping[str, Sequence[bytes]] = CALL) -> list[str]:
    """Plays a call, and returns who said what; `--` marks where an answer was cut off."""
    cues, lines, saying = dict(call), [], ""
    async with graph.live({"messages": []}, stream_mode=["custom", "updates"]) as run:

        async def caller(hears: str) -> bool:
            for chunk in (said := cues.pop(hears, ())):
                await run.signal("audio", chunk)
            return bool(said)

        await caller("")
        async for mode, part in run:
            if mode == "custom":
                saying += part
                await caller(part.strip())
            elif saying and part.keys() & {"answer", "listen"}:
                lines.append(f"desk    {saying.strip()}{'' if 'answer' in part else ' --'}")
                if "answer" in part and not await caller(saying.strip()):
                    await run.signal("hang_up", True)
                saying = ""
            if mode == "updates":
                said = (part.get("listen") or {}).get("messages", ())
                lines.extend(f"caller  {message.text}" for message in said)
        lines.append(f"        {(await run.result())['report']}")
    return lines


def main() -> int:
    """Plays a call and prints who said what; returns an exit code."""
    print(*asyncio.run(play(graph)), sep="\n")
    return 0


answerer = answering(_model())
graph = build()

if __name__ == "__main__":
    main()
