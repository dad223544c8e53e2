"""The target of a remote agent, as a user writes it: parsed."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal, cast

from agentmatrix.errors import AddressError

__all__ = ["Scheme", "Target", "check_agent_name", "is_loopback", "parse_target", "split_port"]

Scheme = Literal["grpc", "grpcs", "inproc", "unix"]

_FORM = "write it as host:port/agent, for example gpu-box:50051/research"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")


@dataclass(frozen=True)
class Target:
    """Where an agent is.

    Attributes:
        scheme: `"grpc"` (plaintext), `"grpcs"` (TLS), `"unix"` (a socket file) or `"inproc"` (this process).
        address: `"gpu-box:50051"`, a path, or a name.
        agent: the agent's name on the host; may be empty.
    """

    scheme: Scheme
    address: str
    agent: str = ""

    @property
    def url(self) -> str:
        """The host alone, as a URL."""
        return f"unix:{self.address}" if self.scheme == "unix" else f"{self.scheme}://{self.address}"

    def __str__(self) -> str:
        return f"{self.url}/{self.agent}" if self.agent else self.url


def parse_target(text: str, url: str | None = None) -> Target:
    """Parse `"gpu-box:50051/research"`, or an agent's name with the host's URL beside it.

    The schemes are `grpc://` (also without a scheme), `grpcs://`, `inproc://name/agent` and `unix:/run/x.sock/agent`.
    A socket file that stands without an agent must end with `.sock`.

    Raises:
        AddressError: in one sentence what is wrong and how it is written.
    """
    if url is None:
        return _parse(text)
    host = _parse(url, whole_path=True)
    if host.agent:
        raise AddressError(f"the URL {url!r} already names an agent; leave it out of the URL or pass no url")
    return Target(host.scheme, host.address, _agent(text, text))


def _parse(text: str, whole_path: bool = False) -> Target:
    if not text.strip() or any(c.isspace() for c in text):
        raise AddressError(f"the address {text!r} is empty or has blanks; {_FORM}")
    if text.startswith("unix:"):
        return _parse_unix(text, whole_path)
    match = _SCHEME.fullmatch(text)
    scheme, rest = (match[1].lower(), match[2]) if match else ("grpc", text)
    if scheme not in ("grpc", "grpcs", "inproc"):
        raise AddressError(f"{text!r}: {scheme}:// is not spoken here; use grpc://, grpcs://, unix: or inproc://")
    address, _, agent = rest.partition("/")
    if scheme == "inproc":
        if not address:
            raise AddressError(f"{text!r} names no host of this process; write it as inproc://name/agent")
    elif match or "/" in rest or ":" in rest:
        split_port(address, text)
    else:
        raise AddressError(f"{text!r} names no host; {_FORM}, or pass url='grpc://host:port'")
    return Target(cast(Scheme, scheme), address, _agent(agent, text) if agent else "")


def _parse_unix(text: str, whole_path: bool) -> Target:
    path = "/" + text.removeprefix("unix:").lstrip("/") if text.startswith("unix:/") else text.removeprefix("unix:")
    if not path.strip("/"):
        raise AddressError(f"{text!r} names no socket; write it as unix:/run/x.sock/agent")
    head, _, tail = path.rpartition("/")
    if whole_path or tail.endswith(".sock") or not head:
        return Target("unix", path)
    return Target("unix", head, _agent(tail, text) if tail else "")


def _agent(name: str, text: str) -> str:
    try:
        check_agent_name(name)
    except AddressError as error:
        raise AddressError(f"{text!r}: {error}") from None
    return name


def check_agent_name(name: str) -> None:
    """Raise an AddressError for a name by which no caller could reach an agent."""
    if not name or "/" in name or any(c.isspace() or not c.isprintable() for c in name):
        raise AddressError(f"{name!r} is not the name of an agent, which has no blanks and no slashes")


def split_port(address: str, text: str, lowest: int = 1) -> tuple[str, int]:
    """Host (an IPv6 address without its brackets) and port of `"host:port"`.

    Raises:
        AddressError: there is no port, or no host; names `text`.
    """
    host, colon, port = address.rpartition(":")
    if not colon:
        raise AddressError(f"{text!r} has no port; {_FORM}")
    if not (port.isascii() and port.isdecimal() and lowest <= int(port) <= 65535):
        raise AddressError(f"{text!r}: {port!r} is not a port; {_FORM}")
    if host.startswith("[") and host.endswith("]") and _is_ipv6(host[1:-1]):
        return host[1:-1], int(port)
    if ":" in host:
        raise AddressError(f"{text!r}: an IPv6 address stands in brackets, as in [::1]:50051/research")
    if not _HOST.fullmatch(host):
        raise AddressError(f"{text!r}: {host!r} is not the name of a machine; {_FORM}")
    return host, int(port)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether this name or address of a machine can only mean this one."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
