"""The ledger's database: SQLite or PostgreSQL, migrated when it is opened."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from headway.domain.errors import HeadwayError, ServiceUnavailable
from headway.ledger.schema import REVISION

__all__ = ["connect", "serialize", "writing"]

BUSY = 10_000  # milliseconds that a writer waits for another; well below the lease of a lock
ADVISORY = 0x48656164  # "Head": key of the advisory lock during a migration of PostgreSQL
MIGRATIONS = Path(__file__).with_name("migrations")


def connect(url: str) -> sa.Engine:
    """Open a database and migrate it to the newest schema. Raises ServiceUnavailable."""
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _use_wal(parsed.database)
        engine = sa.create_engine(parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite")
        if engine.dialect.name == "sqlite":
            _configure_sqlite(engine)
        _migrate(engine)
    except (sa.exc.SQLAlchemyError, sqlite3.Error, OSError, ModuleNotFoundError) as error:
        shown = sa.make_url(url).render_as_string() if "://" in url else url
        raise ServiceUnavailable(
            f"the ledger {shown} cannot be opened: {_reason(error)}",
            "is HEADWAY_LEDGER_URL right, is the server up, is the disk writable and not full?",
        ) from error
    return engine


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One write transaction. SQLite takes its write lock at once. Raises HeadwayError when the write fails."""
    try:
        with engine.connect().execution_options(writing=True) as connection, connection.begin():
            yield connection
    except sa.exc.OperationalError as error:
        raise HeadwayError(
            f"the ledger cannot be written: {_reason(error)}",
            "free space on its disk, or check that its server is up; the next run continues what was started",
        ) from error


def _use_wal(file: str) -> None:
    """Switch to WAL, which the file remembers.

    SQLite does not wait when the mode changes: two processes that open a new file must not do it at once.
    """
    if file == ":memory:":
        return
    with _locked(file):
        _make_private(file)
        with closing(sqlite3.connect(file, timeout=BUSY / 1000)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")


def _make_private(file: str) -> None:
    """Make the file if it is not there, for this user only. SQLite gives its -wal and -shm files the same mode.

    A file that is there must not be opened: closing it would cancel all locks that SQLite has on it in this process
    (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


@contextmanager
def _locked(file: str) -> Iterator[None]:
    with Path(f"{file}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _configure_sqlite(engine: sa.Engine) -> None:
    """Wait for locks, and take the write lock when a write transaction begins: two deferred ones can deadlock."""

    @sa.event.listens_for(engine, "connect")
    def pragmas(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in (f"busy_timeout = {BUSY}", "synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writing")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(engine: sa.Engine) -> None:
    if _current(engine) == REVISION:
        return
    with _migration_lock(engine):
        if _current(engine) == REVISION:
            return
        # A slow import that only a new database needs.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        # A transaction that begins to read and then wants to write fails at once while another has the write lock: a
        # reader that meets a commit takes it for a moment, too.
        with engine.connect().execution_options(writing=True) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()


def _current(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        version: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return version


def serialize(db: sa.Connection, key: str) -> None:
    """Block other transactions with the same key until this one ends.

    For inserts that have no row to lock yet. SQLite has one writer at a time anyway.
    """
    if db.dialect.name == "postgresql":
        db.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext(:key))"), {"key": key})


@contextmanager
def _migration_lock(engine: sa.Engine) -> Iterator[None]:
    """Let one process migrate while others that open the ledger wait."""
    if engine.dialect.name == "sqlite":
        if not engine.url.database or engine.url.database == ":memory:":
            yield
            return
        with _locked(engine.url.database):
            yield
        return
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY})
        try:
            yield
        finally:
            connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY})


def _reason(error: BaseException) -> str:
    inner = getattr(error, "orig", None) or error
    return str(inner).strip().splitlines()[0] if str(inner).strip() else type(inner).__name__
