"""The times of a host's certificate are told to its operator before callers refuse it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from agentmatrix.transport import ServerOptions, listen
from agentmatrix.transport.certificate_expiry import certificate_warning
from tests.attacks.kit import eventually
from tests.transport.echo import EchoHost

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
AUTHORITY = trustme.CA()


def chain(begins: timedelta, ends: timedelta) -> bytes:
    issued = AUTHORITY.issue_cert("gpu-box", not_before=NOW + begins, not_after=NOW + ends)
    return b"".join(pem.bytes() for pem in issued.cert_chain_pems)


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        (timedelta(days=-30), timedelta(days=15), None),
        (timedelta(days=-30), timedelta(days=13, hours=1), "expires on 2026-12-10, in 13 days"),
        (timedelta(days=-30), timedelta(hours=-1), "has expired on 2026-11-27"),
        (timedelta(hours=2), timedelta(days=30), "not valid before 2026-11-27 14:00 UTC; is the clock right"),
        (timedelta(days=-30), timedelta(days=365 * 60), None),
    ],
)
def test_what_is_said_of_it(begins: timedelta, ends: timedelta, words: str | None) -> None:
    said = certificate_warning(chain(begins, ends), NOW)
    assert said is None if words is None else said is not None and words in said


def test_a_host_warns_at_its_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    issued = AUTHORITY.issue_cert("gpu-box", not_after=datetime.now(UTC) + timedelta(days=3, hours=1))
    certificate = tmp_path / "cert.pem"
    certificate.write_bytes(issued.cert_chain_pems[0].bytes())
    options = ServerOptions(certificate=certificate, private_key=issued.private_key_pem.bytes())
    with caplog.at_level(logging.WARNING, "agentmatrix"):
        server = listen("127.0.0.1:0", EchoHost(), options)
        server.start()
        try:
            assert eventually(lambda: "in 3 days" in caplog.text)
        finally:
            server.stop(0)
