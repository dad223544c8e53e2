"""`agentmatrix run` as a person uses it."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Project


def test_plain_text_is_a_users_message(project: Project) -> None:
    outcome = project.cli("run", "greeter:graph", "--input", "world")
    assert (outcome.code, outcome.out, outcome.err) == (0, "greeter: Hello, world!\n", "")


@pytest.mark.parametrize("target", ["greeter:graph", "greeter.py:graph", "./greeter.py:graph", "greeter:builder"])
def test_a_graph_is_found_by_module_file_and_builder(project: Project, target: str) -> None:
    assert project.cli("run", target, "-i", "you").out == "greeter: Hello, you!\n"


def test_a_factory_may_be_sync_async_or_take_the_config(project: Project) -> None:
    project.write(
        "made.py",
        """
        from greeter import builder

        def plain(): return builder
        async def awaited(): return builder.compile()
        def configured(config): return builder.compile()
        """,
    )
    for factory in ("plain", "awaited", "configured"):
        assert project.cli("run", f"made:{factory}", "-i", "you").out == "greeter: Hello, you!\n"


def test_a_function_and_a_chat_model_are_agents_too(project: Project) -> None:
    project.write(
        "plain.py",
        """
        from langchain_core.messages import BaseMessage
        from agentmatrix.testing import ScriptedChatModel
        def shout(messages: list[BaseMessage]) -> str:
            return messages[-1].text.upper()
        model = ScriptedChatModel("I hear you.")
        """,
    )
    assert project.cli("run", "plain:shout", "-i", "hear me").out == "shout: HEAR ME\n"
    assert project.cli("run", "plain:model", "-i", "hear me").out == "model: I hear you.\n"


def test_two_files_of_the_same_name_are_two_modules(project: Project) -> None:
    for folder in ("first", "second"):
        project.write(f"{folder}/agent.py", f"from greeter import builder\ngraph = builder.compile(name={folder!r})")
    for folder in ("first", "second"):
        assert folder in project.cli("describe", f"{folder}/agent.py:graph").out


def test_input_comes_from_json_a_file_or_stdin(project: Project) -> None:
    state = '{"messages": [["user", "Ada"]]}'
    project.write("state.json", state)
    assert project.cli("run", "greeter:graph", "-i", state).out == "greeter: Hello, Ada!\n"
    assert project.cli("run", "greeter:graph", "-i", "state.json").out == "greeter: Hello, Ada!\n"
    assert project.cli("run", "greeter:graph", "-i", "@state.json").out == "greeter: Hello, Ada!\n"
    assert project.cli("run", "greeter:graph", "-i", "-", stdin=state).out == "greeter: Hello, Ada!\n"


def test_a_functional_graph_takes_any_json(project: Project) -> None:
    project.write(
        "squares.py",
        """
        from langgraph.func import entrypoint
        @entrypoint()
        def graph(n: int) -> int:
            return n * n
        """,
    )
    assert project.cli("run", "squares:graph", "-i", "7").out.splitlines()[-1] == "49"


def test_a_file_may_be_a_module_of_a_package(project: Project) -> None:
    project.write("shop/__init__.py", "")
    project.write("shop/words.py", "name = 'shop'\n")
    project.write(
        "shop/desk.py", "from .words import name\nfrom greeter import builder\ngraph = builder.compile(name=name)\n"
    )
    assert "shop" in project.cli("describe", "shop/desk.py:graph").out


WRITERS = """
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

def graph_of(write):
    return StateGraph(MessagesState).add_node("say", write).add_edge(START, "say").compile()

pair = graph_of(lambda state: {"messages": [("ai", "so it is")]})
table = graph_of(lambda state: {"messages": {"role": "assistant", "content": "so it is", "name": "say"}})
text = graph_of(lambda state: {"messages": "so it is"})
command = graph_of(lambda state: Command(update={"messages": [("ai", "so it is")]}))
several = graph_of(lambda state: [{"messages": []}, Command(update={"messages": [("ai", "so it is")]})])
nested = StateGraph(MessagesState).add_node("inner", pair).add_edge(START, "inner").compile()
"""


@pytest.mark.parametrize("graph", ["pair", "table", "text", "command", "several"])
def test_a_message_is_shown_in_whatever_form_a_node_writes_it(project: Project, graph: str) -> None:
    project.write("writers.py", WRITERS)
    outcome = project.cli("run", f"writers:{graph}", "-i", "is it so?")
    assert (outcome.code, outcome.out, outcome.err) == (0, "say: so it is\n", "")


def test_a_message_of_a_nested_graph_is_shown_once_in_whatever_form(project: Project) -> None:
    project.write("writers.py", WRITERS)
    assert project.cli("run", "writers:nested", "-i", "is it so?").out == "inner/say: so it is\n"
    chat = project.cli("chat", "writers:nested", stdin="is it so?\nand now?\n")
    assert chat.out == "inner/say: so it is\n" * 2


def test_a_message_of_a_node_that_the_cache_stands_in_for_is_shown(project: Project) -> None:
    project.write(
        "cached.py",
        """
        from langchain_core.messages import AIMessage
        from langgraph.cache.sqlite import SqliteCache
        from langgraph.graph import MessagesState
        from langgraph.types import CachePolicy
        from agentmatrix import Dag
        def say(state):
            print("asked")
            return {"messages": [AIMessage("so it is")]}
        builder = Dag(MessagesState)
        builder.add_node("say", say, cache_policy=CachePolicy(key_func=lambda state: "one key"))
        graph = builder.compile(cache=SqliteCache(path="cache.db"))
        """,
    )
    assert project.cli("run", "cached.py:graph", "-i", "is it so?").out == "asked\nsay: so it is\n"
    assert project.cli("run", "cached.py:graph", "-i", "is it so?").out == "say: so it is\n"


@pytest.mark.parametrize(("speaker", "turns"), [("round_robin", 2), ("broadcast", 1)])
def test_what_did_not_pass_a_groups_middleware_is_said_to_be_withdrawn(
    project: Project, speaker: str, turns: int
) -> None:
    project.write(
        "panel.py",
        f"""
        from agentmatrix import ChatGroup
        from agentmatrix.speakers import broadcast, round_robin
        from agentmatrix.stops import max_turns
        from agentmatrix.testing import ScriptedChatModel
        def redact(message, sender, hearers, conversation):
            return message.model_copy(update={{"content": message.text.replace("1234", "****")}})
        members = {{"ann": ScriptedChatModel("It is 1234."), "bob": ScriptedChatModel("I see.")}}
        graph = ChatGroup(members, speaker={speaker}(), middleware=[redact], stop=max_turns({turns}))
        """,
    )
    said = project.cli("run", "panel:graph", "-i", "Say it.").out.splitlines()
    first = said.index("ann: It is 1234.")
    assert "(withdrawn)" in said[first:] and said.index("ann: It is ****.") > said.index("(withdrawn)")
    assert said.count("bob: I see.") == 1


def test_machines_read_json_lines(project: Project) -> None:
    lines = [json.loads(line) for line in project.cli("run", "greeter:graph", "-i", "Ada", "--json").out.splitlines()]
    assert lines[-1]["type"] == "result"
    assert lines[-1]["data"]["messages"][-1]["content"] == "Hello, Ada!"
    assert {line["type"] for line in lines} >= {"updates", "messages", "result"}


def test_a_graph_without_messages_shows_its_steps_and_its_state(project: Project) -> None:
    project.write(
        "count.py",
        """
        from typing_extensions import TypedDict
        from langgraph.graph import START, StateGraph
        class State(TypedDict):
            n: int
        inner = StateGraph(State).add_node("double", lambda s: {"n": s["n"] * 2}).add_edge(START, "double").compile()
        graph = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").compile()
        """,
    )
    outcome = project.cli("run", "count:graph", "-i", '{"n": 4}')
    assert outcome.out == 'inner/double: {"n": 8}\n{\n  "n": 8\n}\n'


def test_tokens_of_parallel_speakers_do_not_mix(project: Project) -> None:
    project.write(
        "both.py",
        """
        from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
        from langchain_core.messages import AIMessage
        from langgraph.graph import START, MessagesState, StateGraph
        def speaker(text):
            async def speak(state):
                model = GenericFakeChatModel(messages=iter([AIMessage(text)]))
                return {"messages": [await model.ainvoke(state["messages"])]}
            return speak
        builder = StateGraph(MessagesState)
        for name, text in {"cat": "a b c d e f", "dog": "1 2 3 4 5 6"}.items():
            builder.add_node(name, speaker(text)).add_edge(START, name)
        graph = builder.compile()
        """,
    )
    outcome = project.cli("run", "both:graph", "-i", "speak")
    assert sorted(outcome.out.splitlines()) == ["cat: a b c d e f", "dog: 1 2 3 4 5 6"]


def test_a_pause_is_told_with_its_own_exit_code_and_answered_in_place(project: Project) -> None:
    paused = project.cli("run", "asker:graph", "-i", '{"size": 3}')
    assert paused.code == 3
    assert "pay 3 euros?" in paused.err and "--resume" in paused.err
    answered = project.cli("run", "asker:graph", "-i", '{"size": 3}', "--resume", "yes")
    assert answered.code == 0
    assert '"paid": "yes"' in answered.out


def test_a_paused_thread_goes_on_in_a_later_process(project: Project) -> None:
    project.write(
        "kept.py",
        """
        import sqlite3
        from langgraph.checkpoint.sqlite import SqliteSaver
        from asker import graph as bare
        graph = bare.copy({"checkpointer": SqliteSaver(sqlite3.connect("kept.db", check_same_thread=False))})
        """,
    )
    paused = project.cli("run", "kept:graph", "-i", '{"size": 5}', "--thread", "t1")
    assert paused.code == 3 and "--thread t1" in paused.err
    assert '"paid": "later"' in project.cli("run", "kept:graph", "--thread", "t1", "--resume", "later").out


def test_a_pause_that_a_later_process_cannot_know_is_not_said_to_be_kept(project: Project) -> None:
    project.write(
        "twice.py",
        """
        from langgraph.checkpoint.memory import InMemorySaver
        from langgraph.types import interrupt
        from agentmatrix import Dag
        builder = Dag()
        builder.add_node("ask", lambda messages: interrupt("name?") + interrupt("age?"))
        graph = builder.compile()
        forgetful = builder.compile(checkpointer=InMemorySaver())
        """,
    )
    for graph in ("graph", "forgetful"):
        for answers in ([], ["--resume", "Ada"]):
            paused = project.cli("run", f"twice:{graph}", "-i", "hi", *answers)
            assert paused.code == 3 and "run it again with --input and --resume ANSWER" in paused.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["asker:graph", "--resume", "yes"], "name its --thread"),
        (["asker:graph", "--thread", "t1", "--resume", "yes"], "has no checkpointer"),
        (["forgetful:graph", "--thread", "t1", "--resume", "yes"], "has no checkpointer"),
        (["kept:graph", "--thread", "t1", "--resume", "yes"], "'t1' waits for no answer"),
    ],
)
def test_an_answer_to_no_question_is_refused(project: Project, args: list[str], words: str) -> None:
    project.write(
        "forgetful.py",
        """
        from langgraph.checkpoint.memory import InMemorySaver
        from asker import graph as bare
        graph = bare.copy({"checkpointer": InMemorySaver()})
        """,
    )
    project.write(
        "kept.py",
        """
        import sqlite3
        from langgraph.checkpoint.sqlite import SqliteSaver
        from asker import graph as bare
        graph = bare.copy({"checkpointer": SqliteSaver(sqlite3.connect("kept.db", check_same_thread=False))})
        """,
    )
    outcome = project.cli("run", *args)
    assert (outcome.code, outcome.out) == (2, "")
    assert words in outcome.err and outcome.err.count("\n") == 1


def test_tool_calls_and_several_questions_are_answered_in_a_later_process(project: Project) -> None:
    project.write(
        "office.py",
        """
        import sqlite3
        from langgraph.checkpoint.sqlite import SqliteSaver
        from langgraph.types import interrupt
        from agentmatrix import Dag
        def pay(messages):
            request = {"action_requests": [{"name": "pay", "args": {"amount": 5}}], "review_configs": []}
            return "pay: " + interrupt(request)["decisions"][0]["type"]
        clerk = Dag(name="clerk")
        clerk.add_node("pay", pay)
        desk = Dag(name="desk")
        desk.add_node("boss", lambda messages: "boss: " + interrupt("really?"))
        desk.add_node("clerk", clerk)
        graph = desk.compile(checkpointer=SqliteSaver(sqlite3.connect("office.db", check_same_thread=False)))
        """,
    )
    paused = project.cli("run", "office:graph", "-i", "go", "--thread", "t1")
    assert paused.code == 3 and "--resume ANSWER, 2 times and in this order" in paused.err
    is_boss_first = paused.err.index("really?") < paused.err.index("action_requests")
    answers = ["yes", "approve"] if is_boss_first else ["approve", "yes"]
    one = project.cli("run", "office:graph", "--thread", "t1", "--resume", answers[0])
    assert one.code == 3 and "2 times" in one.err
    both = project.cli("run", "office:graph", "--thread", "t1", "--resume", answers[0], "--resume", answers[1])
    assert both.code == 0
    assert "boss: yes" in both.out and "pay: approve" in both.out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["greeter:grap", "-i", "x"], 2, "did you mean 'graph'"),
        (["greeter:nothing_like_it", "-i", "x"], 2, "it has builder, graph"),
        (["greeter:MessagesState", "-i", "x"], 2, "is a class, not a graph"),
        (["greeter", "-i", "x"], 2, "module:attribute"),
        (["nowhere:graph", "-i", "x"], 2, "no module 'nowhere'"),
        (["nowhere.py:graph", "-i", "x"], 2, "no file nowhere.py"),
        (["greeter:graph", "-i", '{"messages": ]'], 2, "--input is not JSON"),
        (["greeter:graph", "-i", "@gone.json"], 2, "gone.json cannot be read"),
        (["asker:graph", "-i", "hello"], 2, "takes no messages"),
        (["greeter:graph"], 2, "--input"),
        (["-i", "x"], 2, "module:attribute"),
        (["broken:graph", "-i", "x"], 1, "line 3 of"),
        (["broken:graph", "-i", "x"], 1, "ZeroDivisionError"),
        (["unparsable:graph", "-i", "x"], 1, "SyntaxError"),
        (["needy:graph", "-i", "x"], 1, "No module named 'not_installed_here'"),
        (["leaving:graph", "-i", "x"], 1, "SystemExit"),
        (["failing:graph", "-i", "x"], 1, "error: in node 'fail': ValueError: no luck"),
    ],
)
def test_what_goes_wrong_is_one_sentence(project: Project, args: list[str], code: int, words: str) -> None:
    project.write("broken.py", "x = 1\n\ny = x / 0\n")
    project.write("unparsable.py", "def f(:\n")
    project.write("needy.py", "import not_installed_here\n")
    project.write("leaving.py", "raise SystemExit(0)\n")
    project.write(
        "failing.py",
        """
        from langgraph.graph import START, MessagesState, StateGraph
        def fail(state):
            raise ValueError("no luck")
        graph = StateGraph(MessagesState).add_node("fail", fail).add_edge(START, "fail").compile()
        """,
    )
    outcome = project.cli("run", *args)
    assert outcome.code == code
    assert words in outcome.err
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert outcome.out == ""


def test_a_failed_run_tells_machines_too(project: Project) -> None:
    project.write("leaving.py", "from greeter import *\ndef leave(state): raise SystemExit(0)\n")
    outcome = project.cli("run", "leaving:leave", "-i", "x", "--json")
    assert outcome.code == 1
    assert json.loads(outcome.out.splitlines()[-1])["type"] == "error"
    assert "SystemExit" in outcome.err


def test_debug_shows_the_traceback(project: Project) -> None:
    project.write("broken.py", "x = 1\n\ny = x / 0\n")
    process = project.start_as_a_shell_does("--debug", "run", "broken:graph", "-i", "x")
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "Traceback" in err and "ZeroDivisionError" in err


def test_an_ascii_terminal_is_told_what_it_cannot_show(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("french.py", "def graph(messages): return 'é'\n")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    said, err = project.start_as_a_shell_does("run", "french:graph", "-i", "x").communicate(timeout=100)
    assert (said, err) == ("graph: \\xe9\n", "")
    said, err = project.start_as_a_shell_does("run", "french:graph", "-i", "x", "--json").communicate(timeout=100)
    assert json.loads(said.splitlines()[-1])["data"]["messages"][-1]["content"] == "é" and not err


def test_a_reader_that_leaves_ends_a_run_without_a_word(project: Project) -> None:
    """As `| head` does."""
    project.write(
        "endless.py",
        """
        import time
        from langgraph.config import get_stream_writer
        def graph(messages):
            writer = get_stream_writer()
            while True:
                writer("and on")
                time.sleep(0.001)
        """,
    )
    process = project.start_as_a_shell_does("run", "endless:graph", "-i", "x")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "and on\n"
    process.stdout.close()
    assert (process.stderr.read(), process.wait(100)) == ("", 1)
    process.stderr.close()
