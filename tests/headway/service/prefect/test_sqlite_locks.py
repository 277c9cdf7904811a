"""Two transactions of Prefect's server on SQLite that read, wait and write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy
from prefect.server.database.configurations import AioSqliteConfiguration

from headway.service.prefect.server import ImmediateTransactions

WRITERS = 10


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[AioSqliteConfiguration]:
    made = ImmediateTransactions(connection_url=f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    engine = await made.engine()
    async with engine.begin() as connection:
        await connection.execute(sqlalchemy.text("CREATE TABLE counter (value INTEGER)"))
        await connection.execute(sqlalchemy.text("INSERT INTO counter VALUES (0)"))
    yield made
    await engine.dispose()


async def add_one(database: AioSqliteConfiguration) -> None:
    session = await database.session(await database.engine())
    async with session, database.begin_transaction(session):
        value = await session.scalar(sqlalchemy.text("SELECT value FROM counter"))
        await asyncio.sleep(0.01)
        await session.execute(sqlalchemy.text("UPDATE counter SET value = :value"), {"value": value + 1})


async def test_transactions_that_read_before_they_write_wait_for_each_other(database: AioSqliteConfiguration) -> None:
    await asyncio.gather(*(add_one(database) for _ in range(WRITERS)))
    session = await database.session(await database.engine())
    async with session:
        assert await session.scalar(sqlalchemy.text("SELECT value FROM counter")) == WRITERS
