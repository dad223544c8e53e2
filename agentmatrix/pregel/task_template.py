"""The tasks of a run, most of them made like one that LangGraph has made.

LangGraph merges for each task what is the same in the whole run: config, metadata, callbacks, runtime. That is a third
of what an activation costs. A template takes it over from a task of the same run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import Any, NamedTuple, cast

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import (
    CONF,
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_CHECKPOINT_MAP,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_CHECKPOINTER,
    CONFIG_KEY_READ,
    CONFIG_KEY_RUNTIME,
    CONFIG_KEY_SCRATCHPAD,
    CONFIG_KEY_SEND,
    CONFIG_KEY_TASK_ID,
    NS_END,
    NS_SEP,
    PULL,
    PUSH,
    TASKS,
)
from langgraph._internal._scratchpad import PregelScratchpad
from langgraph.pregel._algo import _xxhash_str, prepare_single_task
from langgraph.runtime import ExecutionInfo, Runtime
from langgraph.types import PregelExecutableTask

from agentmatrix.pregel.config_values import merge_configs
from agentmatrix.pregel.task_records import FIELDS, KNOWN_RECORDS

__all__ = ["TaskStart", "TaskTemplates"]

_READ_STATE = "__pregel_read_state"
"""Since langgraph 1.2.24: by which the task of a `Send` reads the state."""

# What LangGraph makes anew for each task.
_OF_CONFIG = frozenset({"metadata", "callbacks", "run_name", CONF})
_OF_CONFIGURABLE = frozenset(
    {
        CONFIG_KEY_CHECKPOINT_MAP,
        CONFIG_KEY_CHECKPOINT_NS,
        CONFIG_KEY_READ,
        CONFIG_KEY_RUNTIME,
        CONFIG_KEY_SCRATCHPAD,
        CONFIG_KEY_SEND,
        CONFIG_KEY_TASK_ID,
        _READ_STATE,
    }
)

# What is known here. Where a release of LangGraph adds to it, or to a record, LangGraph makes all tasks.
_CONFIGURABLE = _OF_CONFIGURABLE | {CONFIG_KEY_CHECKPOINT_ID, CONFIG_KEY_CHECKPOINTER}

Common = Mapping[str, Any]
"""What LangGraph's `prepare_single_task` takes by name that is the same for all tasks of a step."""


class TaskStart(NamedTuple):
    """What one task is made of, besides what is the same for all of its step.

    Attributes:
        path: what starts it: `(PULL, node)`, or `(PUSH, number of the Send)`.
        id_bytes: what its id is made from.
        step: the number of its step.
        channels: what it reads.
    """

    path: tuple[Any, ...]
    id_bytes: bytes
    step: int
    channels: Mapping[str, Any]

    @property
    def send(self) -> Any:
        """The `Send` that starts it, or None."""
        return self.channels[TASKS].get()[self.path[1]] if self.path[0] == PUSH else None


class TaskTemplates:
    """Makes the tasks of one run.

    LangGraph makes the first one of each kind, pulled by a channel or sent, and all that have something of their own:
    an answer to a question, a result in a cache, tags or metadata of their node.
    """

    def __init__(self) -> None:
        self._templates: dict[str, TaskTemplate] = {}

    def prepare(self, start: TaskStart, common: Common) -> PregelExecutableTask | None:
        """The task that LangGraph's `prepare_single_task` would make.

        Args:
            start: what is its own.
            common: what it has in common with all of its step.
        """
        path, template = start.path, self._templates.get(start.path[0])
        plain = _is_plain(start, common)
        fits = plain and template is not None and template.fits(common["config"])
        if fits and template is not None and (task := template.task(start, common)) is not None:
            return task
        made = prepare_single_task(
            path, None, checkpoint_id_bytes=start.id_bytes, step=start.step, channels=start.channels, **common
        )
        assert made is None or isinstance(made, PregelExecutableTask)
        if plain and not fits and made is not None:
            self._templates[path[0]] = TaskTemplate(made, start, common)
        return made


class TaskTemplate:
    """What a task of LangGraph's has in common with the others of its kind and run.

    Args:
        first: the task, before it runs.
        start: what LangGraph has made it of.
        common: what it has in common with all of its step.
    """

    def __init__(self, first: PregelExecutableTask, start: TaskStart, common: Common) -> None:
        # A node may change the metadata of its config.
        self._first: tuple[PregelExecutableTask, dict[str, Any], TaskStart, Common] | None
        self._first = first, {**first.config["metadata"]}, start, common
        self._config: RunnableConfig = common["config"]
        self._is_known = False

    def fits(self, config: RunnableConfig) -> bool:
        """Whether a run with this config is the same run."""
        if config is not self._config:
            if not (_is_same(config, self._config) and _is_same(config[CONF], self._config[CONF])):
                return False
            self._config = config
        return True

    def task(self, start: TaskStart, common: Common) -> PregelExecutableTask | None:
        """A task like the first; None where LangGraph is to make it."""
        if self._first is not None:
            first, self._first = self._first, None
            self._is_known = _is_known(first[0], first[2], first[3]) and self._takes_over(*first)
        return self._like_first(start, common) if self._is_known else None

    def _takes_over(
        self, first: PregelExecutableTask, metadata: Mapping[str, Any], start: TaskStart, common: Common
    ) -> bool:
        """Take over what is the same in all tasks. Returns whether what comes of it is the first task again."""
        run, own = self._config, first.config[CONF]
        self._namespace = run[CONF].get(CONFIG_KEY_CHECKPOINT_NS, "")
        self._checkpoint_map = run[CONF].get(CONFIG_KEY_CHECKPOINT_MAP, {})
        self._metadata: dict[str, Any] = merge_configs({"metadata": run.get("metadata") or {}}).get("metadata", {})
        self._nested = [key for key, value in self._metadata.items() if isinstance(value, dict)]
        theirs = cast(Mapping[str, Any], first.config)
        self._shared = {key: None if key in _OF_CONFIG else value for key, value in theirs.items()}
        self._configurable = {key: None if key in _OF_CONFIGURABLE else value for key, value in own.items()}
        self._callbacks = common["manager"].get_child()
        self._read, self._write = own[CONFIG_KEY_READ].func, type(own[CONFIG_KEY_READ].args[-1])
        self._read_state = getattr(own.get(_READ_STATE), "func", None)
        runtime, info = own[CONFIG_KEY_RUNTIME], own[CONFIG_KEY_RUNTIME].execution_info
        self._runtime = {name: getattr(runtime, name) for name in FIELDS[Runtime] if name != "execution_info"}
        self._thread_id, self._run_id = info.thread_id, info.run_id
        self._null_resume = own[CONFIG_KEY_SCRATCHPAD].get_null_resume
        made = self._like_first(start, common)
        return (
            made is not None
            and (made.id, made.path, made.triggers) == (first.id, first.path, first.triggers)
            and made.config["metadata"] == metadata
        )

    def _like_first(self, start: TaskStart, common: Common) -> PregelExecutableTask | None:
        path, id_bytes, step, channels = start
        send = start.send
        name = path[1] if send is None else send.node
        node, managed = common["processes"][name], common["managed"]
        if send is None:
            triggers = tuple(sorted(node.triggers))
            started_by = PULL + "".join(triggers)
        else:
            triggers, started_by, path = (PUSH,), f"{PUSH}{path[1]}", (*path, False)
        above = f"{self._namespace}{NS_SEP}{name}" if self._namespace else name
        id = _xxhash_str(id_bytes, f"{above}{step}{name}{started_by}")
        namespace, checkpoint_id = f"{above}{NS_END}{id}", common["checkpoint"]["id"]
        scratchpad = PregelScratchpad(
            step=step,
            stop=common["stop"],
            call_counter=count().__next__,
            interrupt_counter=count().__next__,
            get_null_resume=self._null_resume,
            resume=[],
            subgraph_counter=count().__next__,
        )
        try:
            value = _input_of(node, channels, managed, scratchpad) if send is None else send.arg
        except Exception:
            # The state does not fit the node: LangGraph says so, and where.
            return None
        writes: deque[tuple[str, Any]] = deque()
        info = ExecutionInfo(checkpoint_id, namespace, id, self._thread_id, self._run_id)
        written = self._write(path, name, writes, triggers)
        configurable = {
            **self._configurable,
            CONFIG_KEY_TASK_ID: id,
            CONFIG_KEY_SEND: writes.extend,
            CONFIG_KEY_READ: partial(self._read, scratchpad, channels, managed, written),
            CONFIG_KEY_CHECKPOINT_MAP: {**self._checkpoint_map, self._namespace: checkpoint_id},
            CONFIG_KEY_CHECKPOINT_NS: namespace,
            CONFIG_KEY_SCRATCHPAD: scratchpad,
            CONFIG_KEY_RUNTIME: Runtime(execution_info=info, **self._runtime),
        }
        if self._read_state is not None:
            configurable[_READ_STATE] = partial(
                self._read_state,
                node,
                managed,
                channels,
                for_execution=True,
                scratchpad=scratchpad,
                input_cache=None,
            )
        metadata = {
            **self._metadata,
            "langgraph_step": step,
            "langgraph_node": name,
            "langgraph_triggers": triggers,
            "langgraph_path": path,
            "langgraph_checkpoint_ns": namespace,
        }
        for key in self._nested:
            metadata[key] = {**metadata[key]}
        callbacks = self._callbacks.copy()
        callbacks.tags.append(f"graph:step:{step}")
        config = {**self._shared, "metadata": metadata, "callbacks": callbacks, "run_name": name, CONF: configurable}
        return PregelExecutableTask(
            name,
            value,
            node.node,
            writes,
            cast(RunnableConfig, config),
            triggers,
            node.retry_policy or common["retry_policy"],
            None,
            id,
            path,
            node.flat_writers,
            node.subgraphs,
            node.timeout if send is None or send.timeout is None else send.timeout,
        )


def _is_plain(start: TaskStart, common: Common) -> bool:
    """Whether a task has nothing of its own but what every task has."""
    send = start.send
    node = common["processes"].get(start.path[1] if send is None else send.node)
    return (
        node is not None
        and node.node is not None
        and not (
            node.tags or node.metadata or node.cache_policy or common.get("cache_policy") or common["pending_writes"]
        )
        and isinstance(node.channels, list)
        and common["checkpoint"]["v"] > 1
        and bool(common["manager"])
    )


def _is_known(first: PregelExecutableTask, start: TaskStart, common: Common) -> bool:
    """Whether nothing is in a task of LangGraph's but what this module knows and what its run has in its config."""
    own, run = first.config, common["config"]
    runtime, scratchpad = own[CONF].get(CONFIG_KEY_RUNTIME), own[CONF].get(CONFIG_KEY_SCRATCHPAD)
    for record in (first, runtime, getattr(runtime, "execution_info", None), scratchpad):
        if type(record) not in KNOWN_RECORDS:
            return False
    read = own[CONF][CONFIG_KEY_READ]
    if len(read.args) != 4 or read.args[0] is not scratchpad or read.args[1] is not start.channels:
        return False
    return all(
        key in ours or (key in theirs and value is theirs[key])
        for one, theirs, ours in ((own, run, _OF_CONFIG), (own[CONF], run[CONF], _CONFIGURABLE))
        for key, value in cast(Mapping[str, Any], one).items()
    )


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(value is other[key] for key, value in one.items() if key != CONF)


def _input_of(node: Any, channels: Mapping[str, Any], managed: Mapping[str, Any], scratchpad: PregelScratchpad) -> Any:
    """What a node reads, as LangGraph gives it to the node."""
    values: dict[str, Any] = {}
    for name in node.channels:
        channel = channels.get(name)
        if channel is None:
            values[name] = managed[name].get(scratchpad)
        elif channel.is_available():
            values[name] = channel.get()
    return values if node.mapper is None else node.mapper(values)
