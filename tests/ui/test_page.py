"""The page in a browser: a nested run with a member in a second process and a person, from its start to its end."""

from __future__ import annotations

import contextlib
import http.server
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forked import Forked
from tests.ui.bridge_desk import desk, serve
from tests.ui.browser import Browser, browser
from tests.ui.page_client import PageClient, entry, page
from tests.ui.test_actions import clerk_graph, order_graph

TRANSCRIPT = [
    "Shall we build it?",
    "First the facts, then a verdict.",
    "It will be quick.",
    "The bridge is 40 years old.",
]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("first")) as first:
        yield first


def opened(browser: Browser, client: PageClient) -> None:
    browser.open(client.server.url)
    browser.find("#graphs button")


def start(browser: Browser, text: str = "Shall we build it?") -> None:
    browser.type(".composer textarea", text)
    browser.press(".composer button.primary")


def test_a_nested_run_is_seen_answered_and_found_again(first: Browser, tmp_path: Path) -> None:
    with Forked(serve, str(tmp_path)) as process:
        address = process.stdout.readline().strip()
        with page(entry("desk", desk(address))) as client:
            opened(first, client)
            assert "token" not in first.driver.current_url
            start(first)
            # The expert is on a host of another process, and what is inside of it is in the picture.
            first.state("panel|expert|estimate", "running")
            first.state("panel|person", "waiting")
            assert address in first.text("#picture")
            first.says("#now", "panel / expert / estimate is at work")
            first.says("#now", f"on {address}; expert, panel and report wait for it")
            for line in TRANSCRIPT:
                first.says("#transcript", line)
            (tmp_path / "go").touch()
            first.says(".question", "panel / person asks; panel and report wait for the answer")
            first.says(".question", "expert: 300 euros.")
            first.state("panel|person", "asking")
            assert first.text("#state") == "waits for an answer"
            # A reload loses nothing.
            said = first.text("#transcript")
            first.driver.refresh()
            first.state("panel|person", "asking")
            first.says(".question", "expert: 300 euros.")
            assert first.text("#transcript") == said
            with browser(tmp_path / "second") as second:
                opened(second, client)
                second.type(".question textarea", "Then build it.")
                second.press(".question button.primary")
                second.says("#state", "done")
                # Who had it open too is told, and sees the same.
                first.says("#notice", "The question was answered elsewhere: Then build it.")
                assert not first.all(".question")
                first.says("#state", "done")
                first.state("panel|expert|estimate", "done")
                assert first.text("#transcript") == second.text("#transcript")
                assert "person panel / person\nThen build it." in first.text("#transcript")
            first.press("#tab-nodes")
            rows = [row.text for row in first.all("#nodes tbody tr")]
            assert any(row.startswith("panel / expert / estimate done 1") for row in rows)
            first.press("#tab-history")
            first.says("#history", "Go on from here")
            # The browser's own pages are of its program.
            own = (client.server.base_url, "data:", "chrome", "about:", "devtools:")
            off = [url for url in first.requests if not url.startswith(own)]
            assert off == [], "a request has left the machine"
            assert first.errors == []


def test_a_host_that_is_killed_shows_failed_and_the_run_goes_on_elsewhere(first: Browser, tmp_path: Path) -> None:
    with Forked(serve, str(tmp_path)) as process:
        address = process.stdout.readline().strip()
        with page(entry("desk", desk(address))) as client:
            opened(first, client)
            start(first)
            first.state("panel|expert|estimate", "running")
            process.send_signal(signal.SIGKILL)
            first.says("#state", "failed")
            first.state("panel|expert", "failed")
            first.state("panel|expert|estimate", "cut off")
            first.says("#failure", "HostLost")
            (tmp_path / "go").touch()
            process.wait(60)
            with Forked(serve, str(tmp_path), address) as other:
                assert other.stdout.readline().strip() == address
                first.press("#actions button.primary")
                first.says(".question", "expert: 300 euros.")
                first.type(".question textarea", "Then build it.")
                first.press(".question button.primary")
                first.says("#state", "done")
                first.state("panel|expert", "done")
                run = next(iter(client.server.runs))
                assert run.watched.nodes["plan"].count == 1, "what had finished does not run again"
            assert first.errors == []


class _EvilSite(http.server.BaseHTTPRequestHandler):
    """A page of another site, which tries what such pages try."""

    target = ""

    def do_GET(self) -> None:
        script = f"""
          const tries = [
            fetch("{self.target}/api/runs", {{method: "POST", mode: "no-cors", credentials: "include",
              headers: {{"content-type": "text/plain"}}, body: '{{"graph": "desk", "text": "evil"}}'}}),
            fetch("{self.target}/api/runs", {{method: "POST", credentials: "include",
              headers: {{"content-type": "application/json"}}, body: '{{"graph": "desk", "text": "evil"}}'}}),
            fetch("{self.target}/api/events?run=x", {{credentials: "include"}}),
          ];
          const form = Object.assign(document.createElement("form"),
            {{action: "{self.target}/api/runs", method: "post", enctype: "text/plain", target: "frame"}});
          const input = {{name: '{{"graph":"desk","text":"evil","x":"', value: '"}}'}};
          form.append(Object.assign(document.createElement("input"), input));
          document.body.append(form);
          form.submit();
          Promise.allSettled(tries).then((all) => {{
            document.title = all.map((one) => one.status + (one.value?.type ?? "")).join();
          }});
        """
        body = f"<!doctype html><title>evil</title><body><iframe name=frame></iframe><script>{script}</script>".encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


def test_another_site_in_the_same_browser_can_do_nothing(first: Browser, tmp_path: Path) -> None:
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _EvilSite)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    try:
        with page(entry("desk", desk("127.0.0.1:1"))) as client:
            opened(first, client)  # The browser has the cookie now.
            _EvilSite.target = client.server.base_url
            # Another port of the same machine is the same site to cookies: only the Origin tells them apart.
            for name in ("127.0.0.1", "localhost"):
                first.driver.get(f"http://{name}:{site.server_address[1]}/")
                first.wait(lambda: first.driver.title.startswith(("fulfilled", "rejected")), "the end of the attack")
                assert first.driver.title == "rejected,rejected,rejected"
            assert list(client.server.runs) == []
            assert first.errors, "the browser has refused what the page has"
    finally:
        site.shutdown()


def test_a_stopped_server_is_told_and_the_page_is_used_by_keys(first: Browser, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    (tmp_path / "go").touch()
    with Forked(serve, str(tmp_path)) as process:
        with page(entry("desk", desk(process.stdout.readline().strip()))) as client:
            opened(first, client)
            first.find(".composer textarea").send_keys("Shall we?", Keys.CONTROL, Keys.ENTER)
            first.find(".question textarea").send_keys("Yes.", Keys.CONTROL, Keys.ENTER)
            first.says("#state", "done")
            first.state("panel|expert|estimate", "done")
            box = first.find('#picture [data-node="panel|expert"]')
            assert "panel / expert, done" in box.get_attribute("aria-label")
            first.run("document.querySelector('#picture [data-node=\"panel|expert\"]').focus()")
            assert (
                first.run("return getComputedStyle(document.activeElement.querySelector('rect')).strokeWidth")
                == "3.5px"
            )
            first.driver.switch_to.active_element.send_keys("-")
            first.wait(lambda: not first.all('#picture [data-node="panel|expert|look"]'), "the closed box")
            first.says('#picture [data-node="panel|expert"]', "2 done")
            first.driver.switch_to.active_element.send_keys("+")
            first.state("panel|expert|look", "done")
            first.driver.switch_to.active_element.send_keys(Keys.ENTER)
            first.says("#node", "panel / expert")
            first.find("#tab-node").send_keys(Keys.ARROW_RIGHT)
            first.says("#history", "Go on from here")
        first.says("#connection", "reconnecting")


def test_tool_calls_are_approved_by_buttons_and_json_is_given(first: Browser) -> None:
    with page(entry("clerk", clerk_graph()), entry("order", order_graph())) as client:
        opened(first, client)
        start(first, "pay them")
        first.says(".question", "act asks; clerk waits for the answer")
        first.says(".question", '"amount": 5')
        first.press('.question [data-kind="edit"]')
        first.type(".question .action textarea", '{"amount": 3}')
        first.press(".question button.primary")
        first.says("#transcript", "decided edit")
        first.says("#state", "done")
        first.run("location.hash = 'graph=order'")
        first.says("#facts", "desk:order")
        first.find(".composer textarea.code")
        first.type(".composer textarea", '{"sise": 1}')
        first.press(".composer button.primary")
        first.says("#notice", "the state of order has no key 'sise'; did you mean 'size'?")
        first.type(".composer textarea", '{"size": 1}')
        first.press(".composer button.primary")
        first.says(".question", "pay 1 euros?")


def test_a_page_at_twice_the_size_needs_no_scrolling_to_the_side(first: Browser) -> None:
    with page(entry("clerk", clerk_graph())) as client:
        first.driver.set_window_size(700, 900)
        try:
            opened(first, client)
            start(first, "pay them")
            first.find(".question")
            assert first.run("return document.documentElement.scrollWidth <= window.innerWidth")
        finally:
            first.driver.set_window_size(1400, 1000)
