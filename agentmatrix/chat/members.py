"""Many members of a chat group that one node stands for, each by its key."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from langchain_core.runnables import Runnable

from agentmatrix.agent import AgentSpec
from agentmatrix.agent.agent_kinds import AgentKinds
from agentmatrix.agent.agent_spec import Models, Tools
from agentmatrix.chat.human import addressed, is_person
from agentmatrix.chat.member import Member
from agentmatrix.chat.member_options import MemberOptions
from agentmatrix.chat.turn import GroupSettings
from agentmatrix.errors import BuildError, NotAnAgentError
from agentmatrix.pregel.compiled_graph import PregelProtocol

__all__ = ["GroupMembers", "Members", "members"]

_NO_OPTIONS = MemberOptions()


class Members:
    """Members of a `ChatGroup` that one node stands for; what `members` returns.

    Attributes:
        keys: the names of the members, in order.
        make: gives the agent of a key.
    """

    name = "members"

    def __init__(self, keys: tuple[str, ...], make: Callable[[str], Any]) -> None:
        self.keys, self.make = keys, make

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"members({len(self.keys):,} keys)"


def members(keys: int | Iterable[str], make: Any) -> Members:
    """Many members for a `ChatGroup`, in place of an agent: `ChatGroup(members(590, make))`, or
    `ChatGroup({"chair": chair, "staff": members(["ann", "bob"], make)})`.

    Each key is a member with that name, which speakers, stops, handoffs, streams and interrupts know it by. The graph
    has one node for all of them, and an agent is made when it has its first turn: so many of them cost little.

    Args:
        keys: the names of the members; or how many, who then are `"1"`, `"2"` and so on.
        make: is given a key and returns the agent: whatever `as_agent` takes, a person, or an `AgentSpec`, which is
            compiled once for all that differ in their name and instructions only. Or one agent for all of them, which
            is no plain function.

    Raises:
        BuildError: no keys, or a key twice.
        NotAnAgentError: `make` is neither a function of a key nor an agent.
    """
    if isinstance(keys, bool) or (isinstance(keys, int) and keys < 1):
        raise BuildError(f"members({keys!r}, ...) are nobody: give a positive number, or the names")
    if isinstance(keys, str):
        raise BuildError(f"members({keys!r}, ...) takes names, not one text: members([{keys!r}], ...)")
    names = tuple(map(str, range(1, keys + 1))) if isinstance(keys, int) else tuple(keys)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise BuildError(f"the key {wrong[0]!r} of members is no text: the names of members are texts")
    if not names:
        raise BuildError("members([], ...) are nobody: give at least one key")
    if len({*names}) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise BuildError(f"members(...) has the key {twice!r} twice: give each member a key of its own")
    if isinstance(make, Runnable | PregelProtocol | AgentSpec):
        return Members(names, _SharedAgent(make))
    if not callable(make) or isinstance(make, type):
        raise NotAnAgentError(f"{make!r} makes no members: pass a function of a key that returns an agent, or an agent")
    if inspect.iscoroutinefunction(make):
        raise BuildError("make= of members(...) is a function of a key, and not async: it is asked where a turn begins")
    return Members(names, make)


class _SharedAgent:
    """Gives one agent for all keys; unlike a local function it can be pickled."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent

    def __call__(self, key: str) -> Any:
        return self.agent


class GroupMembers(Mapping[str, Member]):
    """The members of a compiled group, by name. One that shares its node is made when it is asked for.

    Args:
        given: by node, the agent of the member, or `Members`.
        nodes: by member, its node, in the order of the members.
        options: by node, the options of its members.
        settings: the settings of the group.
        models: the chat models that an `AgentSpec` may name.
        tools: the tools that it may name.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        nodes: Mapping[str, str],
        options: Mapping[str, MemberOptions],
        settings: GroupSettings,
        models: Models | None,
        tools: Tools | None,
    ) -> None:
        self._given, self._nodes, self._options, self._settings = given, nodes, options, settings
        self._kinds: AgentKinds[Any] = AgentKinds(_itself, models, tools)
        self._lock = threading.RLock()
        self._made: dict[str, Member] = {}
        single = {
            node: agent.compile(models, tools) if isinstance(agent, AgentSpec) else agent
            for node, agent in given.items()
            if not isinstance(agent, Members)
        }
        # Questions say whom they ask where there may be several persons.
        self._addresses = len(single) < len(given) or sum(map(is_person, single.values())) > 1
        for node, agent in single.items():
            self._made[node] = self._member(node, agent, node)
        for shared in given.values():
            if isinstance(shared, Members):
                # A make that makes no agents is known now, and not in the first turn.
                self[shared.keys[0]]

    def __getitem__(self, name: str) -> Member:
        if (member := self._made.get(name)) is None:
            with self._lock:
                if (member := self._made.get(name)) is None:
                    node = self._nodes[name]
                    member = self._made[name] = self._member(name, self._make(node, name), node)
        return member

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def _make(self, node: str, key: str) -> Any:
        try:
            agent = self._given[node].make(key)
        except Exception as error:
            raise BuildError(
                f"the member {key!r} was not made: make({key!r}) has raised {type(error).__name__}: {error}"
            ) from error
        if agent is None:
            raise BuildError(f"the member {key!r} was not made: make({key!r}) returned None, and not an agent")
        return agent

    def _member(self, name: str, agent: Any, node: str) -> Member:
        prompt = None
        if isinstance(agent, AgentSpec):
            prompt, agent = agent.system_prompt, self._kinds.of(agent)
        if self._addresses and is_person(agent):
            agent = addressed(agent, name)
        options = self._options.get(node, _NO_OPTIONS)
        try:
            return Member(name, agent, self._settings, options, prompt)
        except NotAnAgentError as error:
            raise NotAnAgentError(f"the member {name!r}: {error}") from None

    @property
    def shared(self) -> dict[str, str]:
        """By member that shares its node with others, that node."""
        return {name: node for name, node in self._nodes.items() if name != node}

    def shared_node(self, name: str) -> str | None:
        """The node of a member that shares it with others; None where there is no such member."""
        node = self._nodes.get(name)
        return node if node != name else None

    def make(self, names: Iterable[str]) -> None:
        """Make those of these members that were not made yet."""
        for name in names:
            if name in self:
                self[name]

    @property
    def shared_graphs(self) -> list[tuple[str, Any]]:
        """By member, the graph inside, of all members that share a node and were made."""
        made = list(self._made.items())
        return [(n, m.known_graphs[0]) for n, m in made if self._nodes[n] != n and m.known_graphs]


def _itself(agent: Any) -> Any:
    return agent
