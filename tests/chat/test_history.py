"""How much of the transcript a member is given, what it contributes, and what it remembers by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage, trim_messages
from langchain_core.messages.utils import count_tokens_approximately
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from agentmatrix.chat import ChatGroup
from agentmatrix.chat.authorship import without_inline_name
from agentmatrix.chat.history import History
from agentmatrix.chat.transcript import BEGIN, GO_ON
from agentmatrix.errors import BuildError, SpeakerError
from agentmatrix.speakers import broadcast, free, round_robin, selector
from agentmatrix.stops import max_turns
from agentmatrix.testing import ScriptedChatModel, loopback

THREAD: Any = {"configurable": {"thread_id": "1"}}
INPUT = {"messages": [SystemMessage("rules", id="s"), HumanMessage("begin", id="u")]}


def model(*answers: Any) -> ScriptedChatModel:
    return ScriptedChatModel(list(answers), cycle=True)


def numbered(name: str) -> ScriptedChatModel:
    return model(*[f"{name}{number}" for number in range(1, 10)])


def texts(prompt: list[BaseMessage]) -> list[str]:
    """The texts of a prompt, without what it says of authors, and without what is there for providers only."""
    return [without_inline_name(message.text) for message in prompt if message.text not in (BEGIN, GO_ON)]


def said(*prompts: list[BaseMessage]) -> str:
    return " ".join(text for prompt in prompts for text in texts(prompt))


@pytest.mark.parametrize("rule", [2, ("messages", 2)])
def test_the_last_messages_behind_the_rules_and_the_first_words(rule: Any) -> None:
    ann, bob = numbered("a"), numbered("b")
    ChatGroup({"ann": ann, "bob": bob}, include_agent_name=None, stop=max_turns(6), history=rule).compile().invoke(
        INPUT
    )
    assert texts(ann.prompts[-1]) == ["rules", "begin", "a2", "b2"]
    assert texts(bob.prompts[-1]) == ["rules", "begin", "b2", "a3"]


def test_the_last_words_of_a_user_are_kept_as_the_first_are() -> None:
    ann = numbered("a")
    group = ChatGroup({"ann": ann}, stop=max_turns(4), history=1, reply="transcript").compile(InMemorySaver())
    group.invoke({"messages": "first"}, THREAD)
    group.invoke({"messages": "second"}, THREAD)
    group.invoke({"messages": "third"}, THREAD)
    assert texts(ann.prompts[-1])[:2] == ["first", "third"] and len(texts(ann.prompts[-1])) == 3


async def test_a_member_has_a_rule_of_its_own() -> None:
    ann, bob, eve = numbered("a"), numbered("b"), numbered("e")
    group = ChatGroup({"ann": ann}, include_agent_name=None, stop=max_turns(6), history=1)
    group.add_node("bob", bob, history=("messages", 3)).add_node("eve", eve, history=lambda messages: messages[:1])
    await group.compile().ainvoke({"messages": "begin"})
    assert texts(ann.prompts[-1]) == ["begin", "e1"]
    assert texts(bob.prompts[-1]) == ["begin", "b1", "e1", "a2"]
    assert texts(eve.prompts[-1]) == ["begin"]


@pytest.mark.parametrize("speaker", [round_robin(), broadcast()], ids=lambda speaker: speaker.label)
async def test_an_async_function_a_runnable_and_a_token_limit(speaker: Any) -> None:
    async def last(messages: list[BaseMessage]) -> list[BaseMessage]:
        await asyncio.sleep(0)
        return messages[-1:]

    rules = {"fun": last, "run": trim_messages(max_tokens=1, token_counter=len), "tok": ("tokens", 40)}
    for name, rule in rules.items():
        members = {name: numbered("a"), "bob": numbered("b")}
        group = ChatGroup(members, speaker=speaker, stop=max_turns(8), history=rule)  # type: ignore[arg-type]
        await group.compile().ainvoke({"messages": "begin"})
        longest = max(members[name].prompts, key=len)
        assert len(texts(longest)) == 1 if name != "tok" else texts(longest)[0] == "begin"
        if name == "tok":
            assert count_tokens_approximately(longest) <= 40 and 3 <= len(longest) < 9
    group = ChatGroup({"ann": model("x")}, stop=max_turns(1), history=last)
    with pytest.raises(TypeError, match="history= is an async function.*ainvoke"):
        group.compile().invoke({"messages": "begin"})


def test_a_history_that_leaves_nothing_leaves_the_last_message() -> None:
    ann = numbered("a")
    ChatGroup({"ann": ann}, stop=max_turns(1), history=lambda messages: []).compile().invoke({"messages": "begin"})
    assert texts(ann.prompts[0]) == ["begin"]


@pytest.mark.parametrize("rule", [0, -1, True, ("words", 3), ("messages", 0), "all", ("messages",), 1.5])
def test_what_is_no_history_is_refused(rule: Any) -> None:
    for build in (
        lambda: ChatGroup({"a": model("x")}, history=rule),
        lambda: ChatGroup({"a": model("x")}).add_node("b", model("y"), history=rule),
    ):
        with pytest.raises(
            BuildError, match=r"history=.*is unknown: give a number of messages.*SummarizationMiddleware"
        ):
            build()


@pytest.mark.parametrize("wrong", ["text", [1], {"messages": []}, None])
def test_a_function_that_gives_no_messages_is_named(wrong: Any) -> None:
    group = ChatGroup({"ann": model("x")}, stop=max_turns(1), history=lambda messages: wrong)
    with pytest.raises(SpeakerError, match="history= gives .*return a list of messages"):
        group.compile().invoke({"messages": "begin"})


messages = st.lists(
    st.one_of(
        st.builds(lambda name, text: HumanMessage(text, name=name), st.sampled_from([None, "ann", "joe"]), st.text()),
        st.builds(lambda text: AIMessage(text, name="ann"), st.text()),
        st.builds(lambda text: SystemMessage(text), st.text()),
        st.builds(lambda text: ToolMessage(text, tool_call_id="1"), st.text()),
    ),
    min_size=1,
    max_size=12,
).map(lambda found: [message.model_copy(update={"id": str(i)}) for i, message in enumerate(found)])


@settings(max_examples=300, deadline=None)
@given(messages, st.tuples(st.sampled_from(["messages", "tokens"]), st.integers(1, 40)))
def test_a_limit_keeps_order_the_front_and_the_end(seen: list[BaseMessage], rule: Any) -> None:
    left = History(rule, ("ann", "bob")).shorten(seen, None, None, {}).messages
    ids = [int(str(message.id)) for message in left]
    assert ids == sorted(set(ids)) and ids[-1] == len(seen) - 1
    users = [m for m in seen if isinstance(m, HumanMessage) and m.name != "ann"]
    assert all(message in left for message in (*users[:1], *users[-1:]))
    if rule[0] == "messages":
        kept = 3 + sum(isinstance(message, SystemMessage) for message in seen)
        assert len(left) <= rule[1] + kept


# summaries


def summary(*answers: str) -> tuple[ScriptedChatModel, SummarizationMiddleware]:
    writer = model(*answers)
    return writer, SummarizationMiddleware(writer, trigger=("messages", 5), keep=("messages", 2))


@pytest.mark.parametrize("sync", [True, False])
async def test_a_summary_for_all_is_made_once_and_stands_for_what_it_sums_up(sync: bool) -> None:
    ann, bob = numbered("a"), numbered("b")
    writer, rule = summary("FIRST", "SECOND", "THIRD")
    group = ChatGroup({"ann": ann, "bob": bob}, include_agent_name=None, stop=max_turns(9), history=rule).compile()
    await (asyncio.to_thread(group.invoke, INPUT) if sync else group.ainvoke(INPUT))
    heard = texts(ann.prompts[3])  # the seventh turn: a1 .. b3 have been said
    assert heard[:2] == ["rules", "begin"] and "FIRST" in heard[2] and heard[3:] == ["b2", "a3", "b3"]
    assert texts(bob.prompts[2])[2] == heard[2]
    assert writer.calls == 2
    # The second one is made of the first, not of all that has been said.
    assert "FIRST" in said(writer.prompts[1]) and "a1" not in said(writer.prompts[1])


@pytest.mark.parametrize(
    ("place", "sync"),
    # In a thread, those who begin later in free conversation hear what was said meanwhile.
    [("one task", True), ("one task", False), ("own tasks", True), ("own tasks", False), ("free", False)],
)
async def test_of_members_who_speak_at_once_one_sums_up_for_all(place: str, sync: bool) -> None:
    writer = model("FIRST", "SECOND", "THIRD")
    rule = SummarizationMiddleware(writer, trigger=("messages", 2), keep=("messages", 1))
    heard = {name: ScriptedChatModel(name, cycle=True) for name in ("ann", "bob", "eve", "joe")}
    members: dict[str, Any] = dict(heard)
    if place == "own tasks":
        members |= {"ann": create_agent(heard["ann"], [], name="ann")}
    group = ChatGroup(members, speaker=free() if place == "free" else broadcast(), stop=max_turns(1), history=rule)
    given: Any = {"messages": ["begin", "more", "and more"]}
    graph = group.compile()
    await (asyncio.to_thread(graph.invoke, given) if sync else graph.ainvoke(given))
    assert writer.calls == 1
    assert all("FIRST" in said(member.prompts[0]) for member in heard.values())


def test_a_member_sums_up_for_itself_and_hears_what_was_for_its_ears() -> None:
    ann, bob = numbered("a"), numbered("b")
    writer, rule = summary("SUMMARY")
    group = ChatGroup({"ann": ann}, include_agent_name=None, stop=max_turns(7), visible_to={"ann": "bob"})
    group.add_node("bob", bob, history=rule).compile().invoke({"messages": "begin"})
    assert "a1" in said(writer.prompts[0]) and "SUMMARY" in said(bob.prompts[-1])
    assert "SUMMARY" not in said(*ann.prompts)


def test_a_summary_outlives_a_pause_and_a_run() -> None:
    ann = numbered("a")
    writer, rule = summary("FIRST", "SECOND", "THIRD", "FOURTH")
    group = ChatGroup({"ann": ann}, stop=max_turns(6), history=rule, reply="transcript")
    compiled = group.compile(InMemorySaver(), interrupt_before=["ann"])
    compiled.invoke({"messages": "begin"}, THREAD)
    while compiled.get_state(THREAD).next:
        compiled.invoke(None, THREAD)
    made = writer.calls
    assert made and "SECOND" not in said(ann.prompts[-1]) and "FIRST" in said(ann.prompts[-1])
    compiled.invoke({"messages": "more"}, THREAD)
    compiled.invoke(None, THREAD)
    assert "FIRST" in said(writer.prompts[-1]) or "FIRST" in said(ann.prompts[-1])
    assert "a1" not in said(ann.prompts[-1])


async def test_a_history_is_the_same_on_a_host() -> None:
    def run(member: Any) -> Any:
        group = ChatGroup(
            {"ann": numbered("a"), "bob": member},
            include_agent_name=None,
            stop=max_turns(6),
            history=2,
            reply="transcript",
        )
        return texts(group.compile().invoke({"messages": "begin"})["messages"])

    def count(messages: list[BaseMessage]) -> str:
        return f"heard {' '.join(texts(messages))}"

    graph = StateGraph(MessagesState).add_node("b", lambda s: {"messages": [AIMessage(count(s["messages"]))]})
    bob = graph.add_edge(START, "b").compile()
    with loopback(bob) as remote:
        assert run(remote) == run(bob)
    assert "heard begin" in run(bob)[2]


# what a member contributes


def supervisor() -> Any:
    """A team that talks before it answers, as a supervisor's does."""

    def team(state: Any) -> Any:
        said = [AIMessage("I searched.", name="searcher"), AIMessage("I wrote.", name="writer")]
        return {"messages": [*said, AIMessage("The answer.", name="supervisor")]}

    return StateGraph(MessagesState).add_node("team", team).add_edge(START, "team").compile(name="supervisor")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("last", ["The answer."]),
        ("transcript", ["I searched.", "I wrote.", "The answer."]),
        (None, ["I searched.", "I wrote.", "The answer."]),
        (lambda messages: f"{len(messages)} messages", ["3 messages"]),
        (lambda messages: messages[1:], ["I wrote.", "The answer."]),
        (lambda messages: [], []),
    ],
)
def test_a_member_contributes_its_reply_here_and_on_a_host(reply: Any, said: list[str]) -> None:
    team = supervisor()
    with loopback(team) as remote:
        for member in (team, remote):
            group = ChatGroup({"ann": model("ok")}, stop=max_turns(2), reply="transcript")
            group.add_node("team", member, reply=reply)
            result = group.compile().invoke({"messages": "?"})
            assert [(m.name, m.text) for m in result["messages"][2:]] == [("team", text) for text in said]
    with pytest.raises(BuildError, match="reply='all' is unknown"):
        ChatGroup({"a": model("x")}).add_node("b", model("y"), reply="all")  # type: ignore[arg-type]


# what it remembers by itself


@pytest.mark.parametrize("hosted", [False, True])
def test_an_agent_with_tools_remembers_what_it_did(hosted: bool) -> None:
    def look(what: str) -> str:
        """Look something up."""
        return f"{what} have six legs"

    call = AIMessage("I look.", tool_calls=[{"name": "look", "args": {"what": "bees"}, "id": "1"}])
    ann = model(call, "Six.", "As I said: six.")
    agent = create_agent(ann, [look], checkpointer=True, name="ann")
    with loopback(agent) as remote:
        group = ChatGroup(
            {"ann": remote if hosted else agent, "bob": model("And?")}, include_agent_name=None, stop=max_turns(3)
        )
        group.compile(InMemorySaver()).invoke({"messages": "How many legs?"}, THREAD)
    kinds = [(type(m).__name__, without_inline_name(m.text)) for m in ann.prompts[-1]]
    assert ("ToolMessage", "bees have six legs") in kinds and kinds[-1] == ("HumanMessage", "And?")
    calls = [m for m in ann.prompts[-1] if isinstance(m, AIMessage) and m.tool_calls]
    assert [c.text for c in calls] == ["I look."]


# what a selector is given


@pytest.mark.parametrize("rule", [2, lambda messages: messages[-2:]], ids=["limit", "function"])
async def test_a_selector_has_a_history(rule: Any) -> None:
    for sync in (True, False):
        chooser = model("ann", "bob")
        members = {"ann": numbered("a"), "bob": numbered("b")}
        group = ChatGroup(members, speaker=selector(chooser, history=rule), stop=max_turns(5)).compile()
        result = group.invoke({"messages": "begin"}) if sync else await group.ainvoke({"messages": "begin"})
        assert result["stop_reason"] == "max_turns(5)"
        asked = chooser.prompts[-1][-1].text
        assert "a2" in asked and "b2" in asked and "a1" not in asked and ("begin" in asked) is isinstance(rule, int)
    with pytest.raises(BuildError, match="makes no summaries"):
        selector(chooser, history=summary("x")[1])
