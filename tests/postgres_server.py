"""A PostgreSQL server for tests: of its own, in a temporary folder, on a Unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["postgres_missing", "postgres_server"]


def _programs() -> Path | None:
    """The folder of `initdb` and `postgres`; Debian keeps it off the path."""
    found = shutil.which("initdb")
    folders = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        *([Path(found).parent] if found else []),
    ]
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def postgres_missing() -> str:
    """Why there can be no server here; empty where there can."""
    try:
        import psycopg  # noqa: F401
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # noqa: F401
    except ImportError as error:
        return f"the extra postgres is not installed: {error}"
    if _programs() is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    return "" if _user() is not None or os.getuid() else "PostgreSQL does not run as root, and there is no other user"


def _user() -> str | None:
    """Who runs the server: it refuses to be root."""
    if os.getuid():
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a new server, which is gone at the end."""
    programs, user = _programs(), _user()
    assert programs is not None
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        initdb = [programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, user=user, cwd="/", check=True, capture_output=True)
        settings = {"listen_addresses": "", "unix_socket_directories": name, "fsync": "off"}
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen([programs / "postgres", "-D", data, *options], user=user, cwd="/", stderr=log)
        try:
            _wait_until_ready(programs, name, server)
            yield f"postgresql://tester@/postgres?host={name}"
        finally:
            server.terminate()
            server.wait(60)


def _wait_until_ready(programs: Path, folder: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(1000):
        if subprocess.run([programs / "pg_isready", "-h", folder], capture_output=True).returncode == 0:
            return
        try:
            server.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError((Path(folder) / "log").read_text())
    raise AssertionError("PostgreSQL did not get ready")
