"""`agentmatrix certs`: an authority of one's own, and certificates of it for hosts and callers (extra `certs`).

For a laboratory or a home, where nobody runs a public key infrastructure. The key of the authority signs everything:
it stays where this was run.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentmatrix.cli.error_report import CommandError
from agentmatrix.errors import MissingExtra

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = ["certs"]

_HERE: Final = ("localhost", "127.0.0.1")
_AUTHORITY_DAYS: Final = 3650
_CLOCK_SKEW: Final = timedelta(hours=1)
"""How long before now a certificate counts already, for machines whose clocks are slow."""


def certs(
    names: Annotated[
        list[str], typer.Argument(help="Names and addresses by which callers reach the host; or a caller's name.")
    ],
    folder: Annotated[Path, typer.Option(help="Where the files are, and come to be.")] = Path("certs"),
    client: Annotated[
        bool, typer.Option("--client", help="Certificates of callers, one for each name, for mutual TLS.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=_AUTHORITY_DAYS, help="How long the certificate counts.")] = 365,
    renew: Annotated[bool, typer.Option("--renew", help="Replace certificates that are there already.")] = False,
) -> None:
    """Make an authority for a lab, with certificates for hosts and callers, and a token.

    Callers need ca.pem, and the token where the host asks for one. Keys are readable for their owner alone.
    """
    try:
        from cryptography import x509  # noqa: F401
    except ImportError:
        raise MissingExtra("certificates: pip install cryptography") from None
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@:-]*", name):
            raise CommandError(f"{name!r} is no name for a certificate: use letters, digits and . _ - @ :")
    groups = [[name] for name in names] if client else [names]
    for group in groups:
        if not renew and (folder / f"{group[0]}.pem").exists():
            raise CommandError(f"{folder / f'{group[0]}.pem'} is there already; --renew replaces it")
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = _authority(folder)
    token = folder / "token"
    if not token.exists():
        _write(token, f"{secrets.token_urlsafe(32)}\n".encode(), secret=True)
    for group in groups:
        _issue(folder, certificate, key, group, timedelta(days=days), is_client=client)
    print(_advice(folder, groups, client))


def _authority(folder: Path) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    """The authority of a folder; a new one where there is none.

    Raises:
        CommandError: its files cannot be read, or one of the two is missing.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    files = folder / "ca.pem", folder / "ca-key.pem"
    if not any(file.exists() for file in files):
        return _new_authority(*files)
    try:
        certificate = x509.load_pem_x509_certificate(files[0].read_bytes())
        key = load_pem_private_key(files[1].read_bytes(), None)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CommandError(f"the authority in {folder} cannot be read: {reason}; take another folder") from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CommandError(f"{files[1]} is not the key of {files[0]}; take another folder")
    return certificate, key


def _new_authority(file: Path, key_file: Path) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    key = _new_key(key_file)
    name = _name(f"AgentMatrix authority of {datetime.now(UTC):%Y-%m-%d}")
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _dated(timedelta(days=_AUTHORITY_DAYS))
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    _write(file, _pem(certificate))
    return certificate, key


def _issue(
    folder: Path,
    authority: x509.Certificate,
    authority_key: EllipticCurvePrivateKey,
    names: list[str],
    lifetime: timedelta,
    *,
    is_client: bool,
) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = _new_key(folder / f"{names[0]}-key.pem")
    # A host takes the first alternative name for the identity of a caller.
    alternatives = names if is_client else [*dict.fromkeys([*names, *_HERE])]
    usage = ExtendedKeyUsageOID.CLIENT_AUTH if is_client else ExtendedKeyUsageOID.SERVER_AUTH
    certificate = (
        _dated(min(lifetime, authority.not_valid_after_utc - datetime.now(UTC)))
        .subject_name(_name(names[0]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in alternatives]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, SHA256())
    )
    _write(folder / f"{names[0]}.pem", _pem(certificate) + _pem(authority))


def _dated(lifetime: timedelta) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _CLOCK_SKEW).not_valid_after(now + lifetime)


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _alternative(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _new_key(file: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = generate_private_key(SECP256R1())
    _write(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), secret=True)
    return key


def _write(file: Path, content: bytes, *, secret: bool = False) -> None:
    """Writes a file whole, and a secret one for its owner alone from the first moment on."""
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with open(descriptor, "wb") as opened:
        opened.write(content)
    new.replace(file)


def _advice(folder: Path, groups: list[list[str]], client: bool) -> str:
    if client:
        made = ", ".join(f"{group[0]}.pem" for group in groups)
        return (
            f"{made} in {folder}; a host asks for them with --ssl-ca {folder / 'ca.pem'}, a caller shows one with "
            "--ssl-certfile and --ssl-keyfile"
        )
    name = groups[0][0]
    return (
        f"agentmatrix serve ... --host 0.0.0.0 --ssl-certfile {folder / f'{name}.pem'} "
        f"--ssl-keyfile {folder / f'{name}-key.pem'} --token-file {folder / 'token'}\n"
        f"callers need {folder / 'ca.pem'} (--ssl-ca) and {folder / 'token'} (--token-file)"
    )
