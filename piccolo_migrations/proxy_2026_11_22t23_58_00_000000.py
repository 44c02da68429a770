"""Remembers which rows the provider was asked about, and what it said; finds the rows to ask about without a scan.

Running it again, or on a database where a part of it is done, changes nothing.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns import UUID
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

ID = "2026-11-22T23:58:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "cost reconciliations"


class RequestLogs(Table, tablename="request_logs"):
    """Only a way to today's engine."""

    id = UUID(primary_key=True)


# Money is decimal text: SQLite's NUMERIC is a float.
TABLE = """CREATE TABLE IF NOT EXISTS cost_reconciliations (
    row_id {uuid} PRIMARY KEY,
    row_timestamp {time} NOT NULL,
    outcome {text} NOT NULL,
    attempts INTEGER NOT NULL,
    checked_at {time} NOT NULL,
    ask_again_at {time},
    missing_since {time},
    provider_total_cost_usd {text},
    previous_cost_usd {text},
    previous_cost_source {text}
)"""
INDEX = """CREATE INDEX IF NOT EXISTS request_logs_unsettled ON request_logs (timestamp)
    WHERE generation_id IS NOT NULL AND (
        cost_source <> 'reported' OR usage_source = 'estimated' OR status IN ('interrupted', 'client_disconnected')
    )"""
POSTGRES_TYPES = {"time": "TIMESTAMPTZ", "text": "VARCHAR(64)", "uuid": "UUID"}
SQLITE_TYPES = {"time": "TEXT", "text": "TEXT", "uuid": "UUID"}


async def upgrade() -> None:
    RequestLogs._meta.refresh_db()  # noqa: SLF001  # the only way to ask for today's engine
    is_postgres = isinstance(RequestLogs._meta.db, PostgresEngine)  # noqa: SLF001
    await RequestLogs.raw(TABLE.format(**(POSTGRES_TYPES if is_postgres else SQLITE_TYPES)))
    await RequestLogs.raw(INDEX)


async def downgrade() -> None:
    RequestLogs._meta.refresh_db()  # noqa: SLF001
    await RequestLogs.raw("DROP INDEX IF EXISTS request_logs_unsettled")
    await RequestLogs.raw("DROP TABLE IF EXISTS cost_reconciliations")


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="proxy", description=DESCRIPTION)
    manager.add_raw(upgrade)
    manager.add_raw_backwards(downgrade)
    return manager
