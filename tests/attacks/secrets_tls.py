"""Where a token shows, which tokens and certificates are taken, and what one caller can do with another's threads."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import socket
import ssl
import stat
import traceback
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import trustme
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from agentmatrix import Host, RemoteAgent
from tests.attacks.hosted import State, one
from tests.attacks.internals import with_secrets
from tests.attacks.kit import Attacks, Figures, brief, in_background, workplace

attacks = Attacks(__doc__)
TOKEN = "s3cr3t-t0ken-of-the-lab"
ELSEWHERE = "192.0.2.1:5"
"""An address of no machine (RFC 5737): nothing is sent there."""


def _quick(state: State) -> State:
    return {"text": "ok"}


def _fail(state: State) -> State:
    raise ValueError("no")


def _host(**options: Any) -> Host:
    return Host({"quick": one(_quick), "fail": one(_fail)}, **options)


def _tried(call: Callable[[], object]) -> str:
    """The value of a call, or its error."""
    try:
        return brief(call(), 110)
    except Exception as error:
        return brief(error, 170)


def _traceback(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:
        return "".join(traceback.format_exception(error))
    raise AssertionError("no error came")


@attacks.add("the token in texts", short={})
def token_in_texts() -> Figures:
    texts, log = {}, io.StringIO()
    handler, root = logging.StreamHandler(log), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with _host(token=TOKEN) as host:
            secret: dict[str, Any] = {"api_key": TOKEN, "headers": {"x-api-key": f"another-{TOKEN}"}}
            remote = RemoteAgent(f"{host.address}/quick", **secret)
            remote.invoke({})
            graph = StateGraph(State).add_node("far", remote).add_edge(START, "far").compile().get_graph(xray=True)
            texts.update({name: repr(value) for name, value in with_secrets(remote, host).items()})
            texts["caller"], texts["host"], texts["card"] = repr(remote), repr(host), repr(remote.card)
            texts["drawing"], texts["json"] = graph.draw_mermaid(), repr(graph.to_json())
            texts["error of a node"] = _traceback(lambda: RemoteAgent(f"{host.address}/fail", **secret).invoke({}))
            wrong = RemoteAgent(f"{host.address}/quick", api_key=f"wrong-{TOKEN}")
            texts["wrong token"] = _traceback(lambda: wrong.invoke({}))
        texts["no host"] = _traceback(lambda: remote.invoke({}))
        texts["bad characters"] = _traceback(lambda: RemoteAgent("127.0.0.1:5/x", api_key=f"{TOKEN}\n").invoke({}))
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
    texts["log"] = log.getvalue()
    shown = [name for name, text in texts.items() if TOKEN in text]
    return {"holds": not shown, "shown_in": shown, "looked_at": list(texts)}


@attacks.add("the token in a pickle", short={})
def token_in_pickle() -> Figures:
    data = pickle.dumps(RemoteAgent("127.0.0.1:5/quick", api_key=TOKEN))
    return {"holds": TOKEN.encode() not in data}


@attacks.add("a host with an empty token", short={})
def empty_token() -> Figures:
    outcomes = {}
    for token in ("", " "):
        with contextlib.suppress(Exception), _host(token=token) as host:
            remote = RemoteAgent(f"{host.address}/quick", api_key=token)
            outcomes[repr(token)] = _tried(lambda remote=remote: remote.invoke({}))  # type: ignore[misc]
    return {"holds": not outcomes, "started": outcomes}


@attacks.add("all interfaces without TLS", short={})
def exposed() -> Figures:
    refusals = [_tried(lambda options=options: _host(address="0.0.0.0:0", **options).start()) for options in _OPEN]  # type: ignore[misc]
    return {"holds": all("AddressError" in refusal for refusal in refusals), "refusals": refusals}


_OPEN: list[dict[str, Any]] = [{}, {"token": TOKEN}]


@attacks.add("a token to another machine in plain text", short={})
def plain_token() -> Figures:
    refusal = _tried(lambda: RemoteAgent(f"{ELSEWHERE}/x", api_key=TOKEN, connect_timeout=0.1).card)
    return {"holds": "token" in refusal and "HostUnreachable" not in refusal, "refusal": refusal}


@attacks.add("a secret header to another machine in plain text")
def plain_header() -> Figures:
    headers = {"authorization": f"Bearer {TOKEN}"}
    refusal = _tried(lambda: RemoteAgent(f"{ELSEWHERE}/x", headers=headers, connect_timeout=0.1).card)
    return {"holds": "HostUnreachable" not in refusal, "refusal": refusal}


# TLS


class Certificates:
    """What two authorities have issued."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        past: dict[str, Any] = {"not_before": now - timedelta(days=30), "not_after": now - timedelta(days=1)}
        self.authority, self.other_authority = trustme.CA(), trustme.CA()
        self.host = self.authority.issue_cert("127.0.0.1")
        self.elsewhere = self.authority.issue_cert("elsewhere.example")
        self.expired_host = self.authority.issue_cert("127.0.0.1", **past)
        self.alice = self.authority.issue_cert("alice@example.org", common_name="alice")
        self.bob = self.authority.issue_cert("bob@example.org", common_name="bob")
        self.eve = self.other_authority.issue_cert("alice@example.org", common_name="alice")
        self.expired = self.authority.issue_cert("old@example.org", common_name="old", **past)

    @property
    def trusted(self) -> dict[str, Any]:
        """For a caller that trusts the first authority."""
        return {"ssl_ca": self.authority.cert_pem.bytes()}


def _served(certificate: trustme.LeafCert, **more: Any) -> dict[str, Any]:
    return {"certificate": _chain(certificate), "private_key": certificate.private_key_pem.bytes(), **more}


def _shown(certificate: trustme.LeafCert) -> dict[str, Any]:
    return {"ssl_certfile": _chain(certificate), "ssl_keyfile": certificate.private_key_pem.bytes()}


def _chain(certificate: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in certificate.cert_chain_pems)


def _called(host_options: dict[str, Any], **options: Any) -> str:
    with _host(**host_options) as host:
        return _tried(lambda: RemoteAgent(f"grpcs://{host.address}/quick", connect_timeout=20, **options).invoke({}))


def _is_ok(said: str) -> bool:
    return "'text': 'ok'" in said


@attacks.add("certificates of hosts", short={})
def host_certificates() -> Figures:
    issued = Certificates()
    other = {"ssl_ca": issued.other_authority.cert_pem.bytes()}
    right = _called(_served(issued.host), **issued.trusted)
    refused = {
        "wrong authority": _called(_served(issued.host), **other),
        "roots of the system": _called(_served(issued.host)),
        "wrong name": _called(_served(issued.elsewhere), **issued.trusted),
        "expired": _called(_served(issued.expired_host), **issued.trusted),
    }
    return {"holds": _is_ok(right) and not any(map(_is_ok, refused.values())), "right": right, "refused": refused}


@attacks.add("an expired certificate is called expired", short={})
def words_for_expired() -> Figures:
    issued = Certificates()
    said = _called(_served(issued.expired_host), **issued.trusted)
    return {"holds": "expired" in said, "said": said}


@attacks.add("certificates of callers", short={})
def caller_certificates() -> Figures:
    issued = Certificates()
    mutual = _served(issued.host, client_ca=issued.authority.cert_pem.bytes())
    right = _called(mutual, **issued.trusted, **_shown(issued.alice))
    refused = {
        "none": _called(mutual, **issued.trusted),
        "of another authority": _called(mutual, **issued.trusted, **_shown(issued.eve)),
        "expired": _called(mutual, **issued.trusted, **_shown(issued.expired)),
    }
    return {"holds": _is_ok(right) and not any(map(_is_ok, refused.values())), "right": right, "refused": refused}


@attacks.add("old versions of TLS", short={})
def tls_versions() -> Figures:
    taken = {}
    with _host(**_served(Certificates().host)) as host:
        port = int(host.address.rsplit(":", 1)[1])
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            taken[version.name] = _handshake(port, version)
    return {"holds": taken == {"TLSv1": False, "TLSv1_1": False, "TLSv1_2": True, "TLSv1_3": True}, "taken": taken}


def _handshake(port: int, version: ssl.TLSVersion) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        with socket.create_connection(("127.0.0.1", port), 20) as plain, context.wrap_socket(plain):
            return True
    except (OSError, ValueError):
        return False


# Several users of one host


@attacks.add("the mode of a unix socket", short={})
def unix_socket() -> Figures:
    path = workplace() / "host.sock"
    with _without_mask(), _host(address=f"unix:{path}"):
        modes = [stat.S_IMODE(file.stat().st_mode) for file in (path, path.with_name("host.sock.lock"))]
        answer = RemoteAgent(f"unix:{path}/quick").invoke({})["text"]
    return {"holds": modes == [0o600, 0o600] and answer == "ok", "modes": [*map(oct, modes)]}


@attacks.add("the mode of a unix socket while it is bound")
def unix_socket_at_first(times: int = 50) -> Figures:
    """The moment is short: not every time does somebody see it."""
    path, modes = workplace() / "first.sock", set[int]()

    def look() -> None:
        with contextlib.suppress(OSError):
            modes.add(stat.S_IMODE(path.stat().st_mode))

    with _without_mask(), in_background(look, 0.0):
        for _ in range(times):
            with _host(address=f"unix:{path}"):
                pass
    return {"holds": modes <= {0o600}, "modes": sorted(map(oct, modes))}


@contextlib.contextmanager
def _without_mask() -> Iterator[None]:
    """New files of this process are open to all, unless whoever makes them says otherwise."""
    mask = os.umask(0)
    try:
        yield
    finally:
        os.umask(mask)


@attacks.add("the threads of another caller", short={})
def threads_of_others() -> Figures:
    issued, config = Certificates(), {"configurable": {"thread_id": "alice-1"}}
    mutual = _served(issued.host, client_ca=issued.authority.cert_pem.bytes())
    graph = one(_quick, checkpointer=InMemorySaver())
    with Host({"own": graph}, **mutual) as host:
        url = f"grpcs://{host.address}/own"
        alice = RemoteAgent(url, **issued.trusted, **_shown(issued.alice))
        bob = RemoteAgent(url, **issued.trusted, **_shown(issued.bob))
        bob.card  # noqa: B018
        alice.invoke({"text": "my diagnosis"}, config)  # type: ignore[arg-type]
        before = alice.get_state(config).values  # type: ignore[arg-type]
        done = _done_by_another(bob, config)
        after = _tried(lambda: alice.get_state(config).values)  # type: ignore[arg-type]
    # To update a thread of that id is bob's right: it is another one, and his own.
    saw = [name for name, said in done.items() if "'text'" in said or (name == "list" and "alice-1" in said)]
    return {"holds": not saw and after == brief(before, 110), "saw": saw, "done": done, "alice_afterwards": after}


def _done_by_another(bob: RemoteAgent, config: Any) -> dict[str, str]:
    """What another caller tries with a thread that is not its own."""
    saver: Any = bob.checkpointer
    return {
        "state": _tried(lambda: bob.get_state(config).values),
        "list": _tried(lambda: [found.config["configurable"]["thread_id"] for found in saver.list(None)]),
        "update": _tried(lambda: bob.update_state(config, {"text": "forged"})),
        "delete": _tried(lambda: saver.delete_thread("alice-1")),
    }


if __name__ == "__main__":
    attacks.main()
