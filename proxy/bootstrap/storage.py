"""Composing the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.application.payloads import PayloadArchive
from proxy.application.ports import RequestLogRepository, UsageReports
from proxy.application.traces import RequestArchive
from proxy.domain.errors import InvalidValue
from proxy.infrastructure.payloads.rows import PayloadRows
from proxy.infrastructure.persistence.arrival import Arrival, arriving
from proxy.infrastructure.persistence.database import Database, bind, open_database
from proxy.infrastructure.persistence.engine import default_url, missing_file
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, advice_on
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.request_archive import LedgerRequestArchive
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports
from proxy.settings import Settings

__all__ = [
    "DATABASE_ERRORS",
    "advice_on",
    "arriving_database",
    "database_description",
    "existing_database",
    "migrate_database",
    "migrated_database",
    "payload_archive",
    "request_archive",
    "request_logs",
    "usage_reports",
]


def database_url(settings: Settings) -> str:
    """DATABASE_URL, or the SQLite file in the data directory."""
    return settings.database_url or default_url(settings.llmgateway_data_dir)


def database_description(settings: Settings) -> str:
    """The database for people, without its password. Raises InvalidValue for a URL of no known kind."""
    return bind(database_url(settings)).description


async def migrate_database(settings: Settings) -> list[str]:
    """Bring the schema up to date; returns what was applied. Raises InvalidValue or DATABASE_ERRORS."""
    async with open_database(database_url(settings)) as database:
        return await migrate(database)


@asynccontextmanager
async def migrated_database(settings: Settings) -> AsyncIterator[Database]:
    """The open database, its schema up to date. Raises InvalidValue or DATABASE_ERRORS."""
    async with open_database(database_url(settings)) as database:
        await migrate(database)
        yield database


@asynccontextmanager
async def existing_database(settings: Settings) -> AsyncIterator[Database]:
    """The same for who has nothing to write: a SQLite file that is not there is not made, but InvalidValue."""
    missing = missing_file(database_url(settings))
    if missing is not None:
        raise InvalidValue(
            f"There is no database {missing}. Run this where the gateway runs, or set LLMGATEWAY_DATA_DIR or "
            "DATABASE_URL as it has them; `llmgateway serve` or `llmgateway migrate` makes a new one."
        )
    async with migrated_database(settings) as database:
        yield database


@asynccontextmanager
async def arriving_database(settings: Settings) -> AsyncIterator[Arrival]:
    """The database as the gateway serves with it: a PostgreSQL server that cannot be reached is waited for.

    Raises InvalidValue or DATABASE_ERRORS for all other trouble.
    """
    async with arriving(bind(database_url(settings))) as arrival:
        yield arrival


@asynccontextmanager
async def request_logs(settings: Settings) -> AsyncIterator[RequestLogRepository]:
    """The booked requests. Raises InvalidValue or DATABASE_ERRORS."""
    async with existing_database(settings) as database:
        yield PiccoloRequestLogs(database)


@asynccontextmanager
async def usage_reports(settings: Settings) -> AsyncIterator[UsageReports]:
    """Reports of usage. Raises InvalidValue or DATABASE_ERRORS."""
    async with existing_database(settings) as database:
        yield LedgerUsageReports(database)


@asynccontextmanager
async def payload_archive(settings: Settings) -> AsyncIterator[PayloadArchive]:
    """The stored payloads. Raises InvalidValue or DATABASE_ERRORS."""
    async with existing_database(settings) as database:
        yield PayloadRows(database)


@asynccontextmanager
async def request_archive(settings: Settings) -> AsyncIterator[RequestArchive]:
    """The booked requests with their traces. Raises InvalidValue or DATABASE_ERRORS."""
    async with existing_database(settings) as database:
        yield LedgerRequestArchive(database)
