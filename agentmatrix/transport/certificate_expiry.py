"""Until when the certificate of a host counts: its operator is told two weeks before callers refuse it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from agentmatrix.errors import AddressError

__all__ = ["certificate_warning", "watch_certificate"]

_logger = logging.getLogger("agentmatrix.host")

_WARN_BEFORE: Final = timedelta(days=14)
_LOOK_EVERY: Final = timedelta(days=1)
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_CONTEXT, _SEQUENCE, _UTC_TIME = 0xA0, 0x30, 0x17


async def watch_certificate(read: Callable[[], bytes]) -> None:
    """Warns of a certificate that is about to expire, each day until it is cancelled.

    Args:
        read: returns the PEM as it is now.
    """
    while True:
        try:
            if (warning := certificate_warning(read(), datetime.now(UTC))) is not None:
                _logger.warning(warning)
        except (AddressError, ValueError, IndexError) as error:
            _logger.warning("until when the certificate of this host counts cannot be read: %s", error)
        await asyncio.sleep(_LOOK_EVERY.total_seconds())


def certificate_warning(pem: bytes, now: datetime) -> str | None:
    """What is wrong, or soon will be, with the times of a chain of certificates; None where nothing is."""
    times = [_validity(certificate) for certificate in _certificates(pem.decode("ascii", "replace"))]
    if not times:
        return None
    begins, ends = max(begin for begin, _ in times), min(end for _, end in times)
    if now >= ends:
        return f"the certificate of this host has expired on {ends:%Y-%m-%d}: callers refuse it; it needs a new one"
    if now < begins:
        return f"the certificate of this host is not valid before {begins:%Y-%m-%d %H:%M} UTC; is the clock right?"
    if ends - now <= _WARN_BEFORE:
        days = (ends - now).days
        return f"the certificate of this host expires on {ends:%Y-%m-%d}, in {days} days; it needs a new one by then"
    return None


def _certificates(pem: str) -> list[bytes]:
    parts = [part.partition(_END)[0] for part in pem.split(_BEGIN)[1:]]
    return [ssl.PEM_cert_to_DER_cert(f"{_BEGIN}{part}{_END}") for part in parts]


def _validity(certificate: bytes) -> tuple[datetime, datetime]:
    """The times of an X.509 certificate in DER: Certificate, TBSCertificate, then validity as its fifth field."""
    _, signed, _ = _element(_element(certificate, 0)[1], 0)
    at = 0
    tag, _, after = _element(signed, at)
    at = after if tag == _CONTEXT else 0  # the version, which the oldest certificates have not
    for _ in ("serial number", "signature algorithm", "issuer"):
        _, _, at = _element(signed, at)
    tag, validity, _ = _element(signed, at)
    if tag != _SEQUENCE:
        raise ValueError("it is no certificate")
    begin_tag, begin, at = _element(validity, 0)
    end_tag, end, _ = _element(validity, at)
    return _time(begin_tag, begin), _time(end_tag, end)


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """The tag and the content of an element of DER, and where the next one begins."""
    size, start = data[at + 1], at + 2
    if size & 0x80:
        length = size & 0x7F
        size, start = int.from_bytes(data[start : start + length], "big"), start + length
    return data[at], data[start : start + size], start + size


def _time(tag: int, text: bytes) -> datetime:
    year_first = text.decode("ascii")
    if tag == _UTC_TIME:  # of two digits, from 1950 on
        year_first = f"{'20' if int(year_first[:2]) < 50 else '19'}{year_first}"
    return datetime.strptime(year_first, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
