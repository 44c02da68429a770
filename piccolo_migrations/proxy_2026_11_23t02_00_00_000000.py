"""A table for the traces of requests, apart from the ledger's narrow rows.

Running it again, or on a database where a part of it is done, changes nothing.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns import UUID, Text, Timestamptz, Varchar
from piccolo.columns.defaults.uuid import UUID4
from piccolo.table import Table

ID = "2026-11-23T02:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "request traces"


class RequestTraces(Table, tablename="request_traces"):
    """The table as this migration makes it."""

    id = UUID(default=UUID4(), primary_key=True)
    request_id = Varchar(length=128)
    timestamp = Timestamptz()
    trace = Text()


async def upgrade() -> None:
    RequestTraces._meta.refresh_db()  # noqa: SLF001  # the only way to ask for today's engine
    await RequestTraces.create_table(if_not_exists=True)
    for column in ("request_id", "timestamp"):
        await RequestTraces.raw(f"CREATE INDEX IF NOT EXISTS request_traces_{column} ON request_traces ({column})")


async def downgrade() -> None:
    RequestTraces._meta.refresh_db()  # noqa: SLF001
    await RequestTraces.alter().drop_table(if_exists=True)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="proxy", description=DESCRIPTION)
    manager.add_raw(upgrade)
    manager.add_raw_backwards(downgrade)
    return manager
