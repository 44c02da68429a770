"""Says in which service tier a request was served, where that is not the usual one: it is what the cost went by.

On PostgreSQL the column is added to the partitioned table, and so to every partition, without rewriting a row.
Running it again, or on a database where the column is there, changes nothing.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns import UUID, Varchar
from piccolo.columns.indexes import IndexMethod
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

ID = "2026-11-30T18:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "service tiers of requests"

POSTGRES_COLUMNS = """SELECT attname AS name FROM pg_attribute
    WHERE attrelid = 'request_logs'::regclass AND attnum > 0 AND NOT attisdropped"""
SQLITE_COLUMNS = "SELECT name FROM pragma_table_info('request_logs')"


class RequestLogs(Table, tablename="request_logs"):
    """Only a way to today's engine."""

    id = UUID(primary_key=True)


class DeclaredColumn(MigrationManager):
    """Has the column for `--auto` to compare with; `upgrade` makes it, and can be run twice."""

    async def _run_add_columns(self, backwards: bool = False) -> None:  # noqa: FBT002  # Piccolo's signature
        pass


async def columns() -> set[str]:
    is_postgres = isinstance(RequestLogs._meta.db, PostgresEngine)  # noqa: SLF001
    rows = await RequestLogs.raw(POSTGRES_COLUMNS if is_postgres else SQLITE_COLUMNS)
    return {row["name"] for row in rows}


async def upgrade() -> None:
    RequestLogs._meta.refresh_db()  # noqa: SLF001  # the only way to ask for today's engine
    if "service_tier" not in await columns():
        await RequestLogs.raw("ALTER TABLE request_logs ADD COLUMN service_tier VARCHAR(64)")


async def downgrade() -> None:
    RequestLogs._meta.refresh_db()  # noqa: SLF001
    if "service_tier" in await columns():
        await RequestLogs.raw("ALTER TABLE request_logs DROP COLUMN service_tier")


async def forwards() -> MigrationManager:
    manager = DeclaredColumn(migration_id=ID, app_name="proxy", description=DESCRIPTION)
    manager.add_column(
        table_class_name="RequestLogTable",
        tablename="request_logs",
        column_name="service_tier",
        db_column_name="service_tier",
        column_class_name="Varchar",
        column_class=Varchar,
        params={
            "length": 64,
            "default": None,
            "null": True,
            "primary_key": False,
            "unique": False,
            "index": False,
            "index_method": IndexMethod.btree,
            "choices": None,
            "db_column_name": None,
            "secret": False,
        },
    )
    manager.add_raw(upgrade)
    manager.add_raw_backwards(downgrade)
    return manager
