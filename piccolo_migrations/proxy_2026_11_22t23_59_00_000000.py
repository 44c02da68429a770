"""A table for the bodies of requests and answers, apart from the ledger's narrow rows; empty unless it is asked for.

Running it again, or on a database where a part of it is done, changes nothing.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns import UUID, BigInt, Boolean, Bytea, Timestamptz, Varchar
from piccolo.columns.defaults.uuid import UUID4
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

ID = "2026-11-22T23:59:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "request payloads"


class RequestPayloads(Table, tablename="request_payloads"):
    """The table as this migration makes it."""

    id = UUID(default=UUID4(), primary_key=True)
    request_id = Varchar(length=128)
    timestamp = Timestamptz()
    request_body = Bytea(null=True, default=None)
    request_bytes = BigInt(null=True, default=None)
    request_truncated = Boolean(default=False)
    response_body = Bytea(null=True, default=None)
    response_bytes = BigInt(null=True, default=None)
    response_truncated = Boolean(default=False)
    content_type = Varchar(length=255, null=True, default=None)


async def upgrade() -> None:
    RequestPayloads._meta.refresh_db()  # noqa: SLF001  # the only way to ask for today's engine
    await RequestPayloads.create_table(if_not_exists=True)
    for column in ("request_id", "timestamp"):
        await RequestPayloads.raw(
            f"CREATE INDEX IF NOT EXISTS request_payloads_{column} ON request_payloads ({column})"
        )
    if isinstance(RequestPayloads._meta.db, PostgresEngine):  # noqa: SLF001
        for column in ("request_body", "response_body"):  # compressed already: PostgreSQL need not try
            await RequestPayloads.raw(f"ALTER TABLE request_payloads ALTER COLUMN {column} SET STORAGE EXTERNAL")


async def downgrade() -> None:
    RequestPayloads._meta.refresh_db()  # noqa: SLF001
    await RequestPayloads.alter().drop_table(if_exists=True)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="proxy", description=DESCRIPTION)
    manager.add_raw(upgrade)
    manager.add_raw_backwards(downgrade)
    return manager
