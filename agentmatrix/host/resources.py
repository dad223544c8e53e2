"""What a host opens before it serves, and closes after its last run: its checkpointer, its store, its lifespan.

All of it belongs to one task of the loop for async code, so that async savers and clients work on the loop that they
were made on.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import BaseStore

from agentmatrix.errors import AddressError, MissingExtra

__all__ = ["Checkpointer", "Lifespan", "Resources", "Store", "open_checkpointer"]

Checkpointer = BaseCheckpointSaver[Any] | str | Callable[[], Any]
"""A checkpointer, a URL (`sqlite:///runs.db`, `postgresql://...`), or a function that makes one: sync, async, or a
context manager of either kind."""
Store = BaseStore | Callable[[], Any]
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
"""Takes the host; what comes before its `yield` is done before the host serves, the rest after its last run."""

_POOL = 20
"""Connections to Postgres."""


class Resources:
    """What a host has opened.

    Args:
        host: for the lifespan.
        checkpointer: for the graphs that were compiled without one.
        store: likewise.
        lifespan: see `Lifespan`.
        ready: called when the checkpointer and the store are there, before the lifespan.
    """

    def __init__(
        self, host: Any, checkpointer: Checkpointer | None, store: Store | None, lifespan: Lifespan | None
    ) -> None:
        self._host, self._lifespan = host, lifespan
        self._sources = checkpointer, store
        self.checkpointer: BaseCheckpointSaver[Any] | None = None
        self.store: BaseStore | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Opens everything, and closes it at the end in the reverse order."""
        checkpointer, store = self._sources
        async with AsyncExitStack() as stack:
            if isinstance(checkpointer, str):
                self.checkpointer = await stack.enter_async_context(open_checkpointer(checkpointer))
            elif checkpointer is not None:
                with _at_start("checkpointer", checkpointer):
                    self.checkpointer = await _made(stack, checkpointer, BaseCheckpointSaver, "checkpointer")
            if store is not None:
                with _at_start("store", store):
                    self.store = await _made(stack, store, BaseStore, "store")
            if self._lifespan is not None:
                with _at_start("lifespan", self._lifespan):
                    await stack.enter_async_context(self._lifespan(self._host))
            yield


@contextmanager
def _at_start(step: str, function: Any) -> Iterator[None]:
    """A note on what is raised in here: in which step of the start, in which function, at which line."""
    try:
        yield
    except Exception as error:
        if (code := getattr(inspect.unwrap(function), "__code__", None)) is not None:
            lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code is code]
            line = lines[-1] if lines else code.co_firstlineno
            where = f"line {line} of {code.co_filename}"
            error.add_note(f"At the start of the host, in its {step} {code.co_name!r} ({where})")
        raise


async def _made(stack: AsyncExitStack, source: Any, kind: type[Any], what: str) -> Any:
    """The object that a function makes, or the object itself. A context manager is left with the stack."""
    value = source() if inspect.isroutine(source) else source
    if inspect.isawaitable(value):
        value = await value
    if not isinstance(value, kind):
        if hasattr(value, "__aenter__"):
            value = await stack.enter_async_context(value)
        elif hasattr(value, "__enter__"):
            value = stack.enter_context(value)
    if not isinstance(value, kind):
        raise TypeError(f"{what}= takes a {kind.__name__} or a function that makes one, not a {type(value).__name__}")
    return value


@asynccontextmanager
async def open_checkpointer(url: str) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """A checkpointer of a URL, with its tables.

    Raises:
        AddressError: the URL is of no database that is known here, or it cannot be opened.
        MissingExtra: the package for it is not installed.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        async with _sqlite(rest, url) as saver:
            yield saver
    elif scheme in ("postgresql", "postgres"):
        async with _postgres(url) as saver:
            yield saver
    else:
        raise AddressError(
            f"{_shown(url)} names no checkpointer: write sqlite:///runs.db or postgresql://host/database"
        )


@asynccontextmanager
async def _sqlite(rest: str, url: str) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    try:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    except ImportError:
        raise MissingExtra("a checkpointer in SQLite: pip install langgraph-checkpoint-sqlite") from None
    path = Path(rest.removeprefix("/"))
    if not rest.startswith("/") or not path.name or rest.endswith(":memory:"):
        raise AddressError(f"{url} names no file: write sqlite:///runs.db, or sqlite:////var/lib/runs.db from the root")
    if not path.parent.is_dir():
        raise AddressError(f"{url} is in no folder: {path.parent} does not exist")
    import sqlite3

    async with AsyncExitStack() as stack:
        try:
            saver = await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(str(path)))
            await saver.setup()
        except sqlite3.Error as error:
            raise AddressError(f"the checkpointer {url} cannot be opened: {error}") from error
        yield saver


@asynccontextmanager
async def _postgres(url: str) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    try:
        import psycopg
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg.rows import dict_row
        from psycopg_pool import AsyncConnectionPool
    except ImportError:
        raise MissingExtra(
            "a checkpointer in PostgreSQL: pip install langgraph-checkpoint-postgres 'psycopg[binary]'"
        ) from None
    try:
        # By one plain connection first: a pool tries for ever, and says why in the log alone.
        connection = await psycopg.AsyncConnection[Any].connect(url, connect_timeout=10)
        await connection.close()
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        raise AddressError(f"the checkpointer {_shown(url)} cannot be opened: {said}") from error
    settings: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(url, max_size=_POOL, kwargs=settings, open=False)
    async with pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        yield saver


def _shown(url: str) -> str:
    """A URL without the password in it."""
    scheme, separator, rest = url.partition("://")
    login, at, where = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}{separator}{user}{colon and ':***'}{at}{where.partition('?')[0]}"
