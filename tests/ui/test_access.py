"""Who may see the page and act on it: the token, the cookie, and no other site."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agentmatrix.errors import AddressError
from agentmatrix.ui.page_server import PageServer
from tests.ui.page_client import PageClient, entry, page
from tests.watch.watched_graphs import model, one


@pytest.fixture(scope="module")
def client() -> Iterator[PageClient]:
    with page(entry("plain", one("say", model("yes")))) as client:
        yield client


def bare(client: PageClient, method: str, path: str, **headers: str) -> httpx.Response:
    return httpx.request(
        method,
        f"{client.server.base_url}{path}",
        headers=headers,
        content=b"{}" if method == "POST" else None,
        trust_env=False,
    )


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/api/events", "/?token=guessed", "/api/runs/x/picture"])
def test_nothing_is_shown_without_the_token(client: PageClient, path: str) -> None:
    answer = bare(client, "GET", path)
    assert answer.status_code == 401
    assert "?token=" in answer.text and client.server.token not in answer.text


def test_the_first_url_gives_a_cookie_that_other_sites_are_not_sent(client: PageClient) -> None:
    answer = bare(client, "GET", f"/?token={client.server.token}")
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert client.server.token not in cookie
    assert bare(client, "GET", "/static/page.js", cookie=cookie.partition(";")[0]).status_code == 200


def test_the_page_takes_scripts_and_styles_from_itself_only(client: PageClient) -> None:
    for path in ("/", "/static/page.js", "/api/runs/none/picture", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    html = client.get("/").text
    assert "<style" not in html and "onclick" not in html and " style=" not in html
    assert html.count("<script") == 1 and 'src="/static/page.js"' in html


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:8321", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:8321", ""]
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(client: PageClient, name: str) -> None:
    answer = client.get("/", host=name)
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "LOCALHOST"])
def test_names_of_this_machine_are_taken(client: PageClient, name: str) -> None:
    assert client.get("/", host=f"{name}:{client.server.port}").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_request_of_another_site_is_refused_with_the_cookie_too(client: PageClient, headers: dict[str, str]) -> None:
    before = len(list(client.server.runs))
    answer = client.post("/api/runs", {"graph": "plain", "text": "hi"}, **headers)
    assert answer.status_code == 403
    assert len(list(client.server.runs)) == before


def test_a_form_of_another_site_cannot_be_posted(client: PageClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = client.post("/api/runs", {"graph": "plain", "text": "hi"}, **{"content-type": kind})
        assert answer.status_code == 415
    without_origin = client.http.post("/api/runs", json={"graph": "plain", "text": "hi"})
    assert without_origin.status_code == 403
    assert "needs the token" in without_origin.json()["error"]


def test_a_program_with_the_token_may_act_and_a_browser_may_not_use_it(client: PageClient) -> None:
    headers = {"authorization": f"Bearer {client.server.token}", "content-type": "application/json"}
    assert bare(client, "POST", "/api/graphs/plain/reload", **headers).status_code == 200
    assert bare(client, "POST", "/api/graphs/plain/reload", **headers, origin="http://evil.example").status_code == 403
    wrong = {**headers, "authorization": "Bearer guessed"}
    assert bare(client, "POST", "/api/graphs/plain/reload", **wrong).status_code in (401, 403)


def test_too_much_is_refused_before_it_is_read(client: PageClient) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.server.port, timeout=60)
    connection.putrequest("POST", "/api/runs")
    for name, value in {
        "authorization": f"Bearer {client.server.token}",
        "content-type": "application/json",
        "content-length": str(1 << 30),
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_files_outside_of_the_page_are_not_served(client: PageClient) -> None:
    for name in ("..%2fapp.py", "%2e%2e/app.py", "app.py", "..%5capp.py", "/etc/passwd"):
        assert client.get(f"/static/{name}").status_code == 404


def test_an_address_that_others_reach_needs_tls_and_a_token() -> None:
    with pytest.raises(AddressError, match="add TLS .* and a token"):
        PageServer(address="0.0.0.0:0")
    with pytest.raises(AddressError, match="add TLS"):
        PageServer(address="0.0.0.0:0", token="a token of some length")


def test_a_port_that_is_taken_says_so() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(AddressError, match="port .* is in use: choose another one"):
            PageServer(address=f"127.0.0.1:{other.getsockname()[1]}")


def test_with_tls_the_cookie_is_for_tls_only(tmp_path: Path) -> None:
    import ssl

    import trustme

    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in made.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    options = {"certificate": tmp_path / "cert.pem", "private_key": tmp_path / "key.pem"}
    with PageServer(address="127.0.0.1:0", token="a token of some length", **options) as server:
        assert server.url.startswith("https://127.0.0.1:")
        answer = httpx.get(server.url, verify=trusted, trust_env=False)
        assert answer.status_code == 200
        assert "Secure" in answer.headers["set-cookie"]


def test_without_the_extra_it_is_one_line(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['starlette'] = None; from agentmatrix.cli import app; app(prog_name='agentmatrix')"
    command = [sys.executable, "-c", hide, "ui", "desk:graph"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("ui: pip install starlette uvicorn sse-starlette")
    assert len(done.stderr.splitlines()) == 1
