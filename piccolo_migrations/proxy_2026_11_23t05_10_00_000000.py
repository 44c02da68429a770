"""Says for whom a request was made: columns of its row, and dimensions of the sums.

Sums that are there were made before anyone had a key: they get '', which stands for nobody. On PostgreSQL the new
columns are added to the partitioned table, and so to every partition, without rewriting a row.
Running it again, or on a database where a part of it is done, changes nothing.
"""

from typing import Any

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns import UUID, Column, Varchar
from piccolo.columns.indexes import IndexMethod
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

ID = "2026-11-23T05:10:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "keys, teams, organisations and end users of requests"

COLUMNS: dict[str, type[Column]] = {"key_id": UUID, "team_id": UUID, "organisation_id": UUID, "end_user": Varchar}
ROW_COLUMNS = {name: "VARCHAR(255)" if kind is Varchar else "UUID" for name, kind in COLUMNS.items()}
SUM_COLUMNS = dict.fromkeys(("key_id", "team_id", "organisation_id"), "VARCHAR(36) NOT NULL DEFAULT ''")
TABLES = {"request_logs": ROW_COLUMNS, "usage_hourly": SUM_COLUMNS, "usage_daily": SUM_COLUMNS}
# Rows without a key need no entry, so it costs an open gateway nothing.
INDEX = """CREATE INDEX IF NOT EXISTS request_logs_key_id_timestamp ON request_logs (key_id, timestamp)
    WHERE key_id IS NOT NULL"""
DROP_INDEX = "DROP INDEX IF EXISTS request_logs_key_id_timestamp"


class RequestLogs(Table, tablename="request_logs"):
    """Only a way to today's engine."""

    id = UUID(primary_key=True)


class DeclaredColumns(MigrationManager):
    """Has the columns for `--auto` to compare with; `upgrade` makes them, and can be run twice."""

    async def _run_add_columns(self, backwards: bool = False) -> None:  # noqa: FBT002  # Piccolo's signature
        pass


async def columns_of(table: str) -> set[str]:
    if isinstance(RequestLogs._meta.db, PostgresEngine):  # noqa: SLF001
        query = f"""SELECT attname AS name FROM pg_attribute
            WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"""  # noqa: S608
    else:
        query = f"SELECT name FROM pragma_table_info('{table}')"  # noqa: S608
    return {row["name"] for row in await RequestLogs.raw(query)}


async def upgrade() -> None:
    RequestLogs._meta.refresh_db()  # noqa: SLF001  # the only way to ask for today's engine
    for table, columns in TABLES.items():
        there = await columns_of(table)
        for name, kind in columns.items():
            if name not in there:
                await RequestLogs.raw(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
    await RequestLogs.raw(INDEX)


async def downgrade() -> None:
    RequestLogs._meta.refresh_db()  # noqa: SLF001
    await RequestLogs.raw(DROP_INDEX)
    for table, columns in TABLES.items():
        there = await columns_of(table)
        for name in columns:
            if name in there:
                await RequestLogs.raw(f"ALTER TABLE {table} DROP COLUMN {name}")


async def forwards() -> MigrationManager:
    manager = DeclaredColumns(migration_id=ID, app_name="proxy", description=DESCRIPTION)
    for name, kind in COLUMNS.items():
        params: dict[str, Any] = {"length": 255} if kind is Varchar else {}
        manager.add_column(
            table_class_name="RequestLogTable",
            tablename="request_logs",
            column_name=name,
            db_column_name=name,
            column_class_name=kind.__name__,
            column_class=kind,
            params=params
            | {
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
