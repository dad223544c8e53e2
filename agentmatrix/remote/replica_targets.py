"""Where the replicas of a remote agent are, as its user has said it: targets, a name in the DNS, or a function."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from agentmatrix.errors import AddressError, HostUnreachable
from agentmatrix.transport.environment import token_for
from agentmatrix.transport.options import ClientOptions
from agentmatrix.transport.target import Target, parse_target, split_port

__all__ = ["Resolver", "ReplicaTargets", "parse_targets"]

Resolver = Callable[[], "Iterable[str] | Awaitable[Iterable[str]]"]
"""Returns targets, `"host:port/agent"`. Called on a thread of its own; an async one has an event loop of its own."""

_DNS: Final = "dns:///"


@dataclass(frozen=True)
class ReplicaTargets:
    """The targets of one agent.

    Attributes:
        known: that are known from the beginning; of a name in the DNS, the name.
        resolver: asked for the targets, again and again.
        is_name: whether the only known target has a name all of whose addresses are replicas.
    """

    known: tuple[Target, ...] = ()
    resolver: Resolver | None = None
    is_name: bool = False

    @property
    def are_fixed(self) -> bool:
        """Whether nobody has to be asked for them."""
        return self.resolver is None and not self.is_name

    @property
    def agent(self) -> str:
        """The agent's name on the hosts; that of the resolver until it was asked."""
        return self.known[0].agent if self.known else getattr(self.resolver, "__name__", "agent")

    @property
    def url(self) -> str:
        """The hosts, as URLs."""
        if self.resolver is not None:
            return f"{self.resolver.__module__}:{getattr(self.resolver, '__qualname__', type(self.resolver).__name__)}"
        if self.is_name:
            return f"{_DNS}{self.known[0].address}"
        return ",".join(target.url for target in self.known)

    def __str__(self) -> str:
        if self.resolver is not None:
            return self.url
        return f"{self.url}/{self.agent}" if self.agent else self.url

    def options_for(self, target: Target, options: ClientOptions) -> ClientOptions:
        """The options for one of the targets.

        Args:
            target: the target.
            options: as the user has given them, for all.
        """
        named = self.known[0] if self.is_name else target
        if self.is_name and options.server_name is None and (options.secure or target.scheme == "grpcs"):
            # The certificate has the name, not the address that stands behind it today.
            options = replace(options, server_name=split_port(named.address, named.address)[0])
        return options if options.token is not None else replace(options, token=token_for(named))

    async def resolve(self) -> list[Target]:
        """The targets of this moment. On the I/O thread.

        Raises:
            HostUnreachable: there are none, or nobody could tell.
            AddressError: the resolver returns something else than targets of one agent.
        """
        if self.resolver is not None:
            try:
                found = await asyncio.to_thread(_asked, self.resolver)
            except Exception as error:
                raise HostUnreachable(f"the resolver {self.url} failed: {type(error).__name__}: {error}") from error
            targets = [_target(each, f"the resolver {self.url}") for each in _several(found, self.url)]
            _check_one_agent(targets)
        elif self.is_name:
            targets = await _addresses_of(self.known[0])
        else:
            return list(self.known)
        if not targets:
            raise HostUnreachable(f"there is no host of the agent: {self} has named none")
        return targets


def parse_targets(agent: object, url: str | None = None) -> ReplicaTargets:
    """The targets of an agent.

    Args:
        agent: a target, several targets, or a resolver.
        url: see `parse_target`; with a single agent only.

    Raises:
        AddressError: in one sentence what is wrong and how it is written.
    """
    if isinstance(agent, str):
        if url is None and agent.startswith(_DNS):
            return _named(agent, agent.removeprefix(_DNS))
        if url is not None and url.startswith(_DNS):
            return _named(url, f"{url.removeprefix(_DNS).rstrip('/')}/{agent}")
        return ReplicaTargets((parse_target(agent, url),))
    if url is not None:
        raise AddressError("url= goes with the name of one agent; several targets are written host:port/agent each")
    if callable(agent):
        return ReplicaTargets(resolver=agent)
    targets = [_target(each, "the list") for each in _several(agent, "RemoteAgent")]
    if not targets:
        raise AddressError("the list of targets is empty; write it as ['a:50051/research', 'b:50051/research']")
    _check_one_agent(targets)
    return ReplicaTargets(tuple(dict.fromkeys(targets)))


def _named(text: str, rest: str) -> ReplicaTargets:
    target = parse_target(f"grpc://{rest}")
    return ReplicaTargets((_target(str(target), text),), is_name=True)


def _several(found: object, asked: str) -> Sequence[object]:
    if isinstance(found, str | bytes) or not isinstance(found, Iterable):
        raise AddressError(f"{asked} takes targets, as in ['a:50051/research', 'b:50051/research'], not {found!r}")
    return list(found)


def _target(text: object, source: str) -> Target:
    if not isinstance(text, str):
        raise AddressError(f"{source} has {text!r}, which is no target; write it as host:port/agent")
    if text.startswith(_DNS):
        raise AddressError(f"{source} has {text!r} in a list; give a name of the DNS alone, or return its addresses")
    target = parse_target(text)
    if not target.agent:
        raise AddressError(f"{text!r} names no agent; write it as host:port/agent, for example gpu-box:50051/research")
    return target


def _check_one_agent(targets: Sequence[Target]) -> None:
    for target in targets:
        if target.agent != targets[0].agent:
            raise AddressError(
                f"{targets[0]} and {target} are two agents; the replicas of one have the same name at each host"
            )


def _asked(resolver: Resolver) -> object:
    """What a resolver returns. On a thread of its own."""
    found: Any = resolver()
    if inspect.isawaitable(found):

        async def awaited() -> object:
            return await found

        return asyncio.run(awaited())
    return found


async def _addresses_of(named: Target) -> list[Target]:
    host, port = split_port(named.address, named.address)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise HostUnreachable(f"the name {host!r} has no address: {error}") from None
    addresses = dict.fromkeys(str(address[0]) for *_, address in found)
    return [
        replace(named, address=f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
        for address in addresses
    ]
