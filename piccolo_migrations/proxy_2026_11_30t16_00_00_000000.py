"""Other prices for long requests, and for those of a service tier: a JSON list for each price.

Running it again, or on a database where a part of it is done, changes nothing.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns import UUID
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

ID = "2026-11-30T16:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "price tiers"

POSTGRES_COLUMNS = """SELECT attname AS name FROM pg_attribute
    WHERE attrelid = 'model_price_history'::regclass AND attnum > 0 AND NOT attisdropped"""
SQLITE_COLUMNS = "SELECT name FROM pragma_table_info('model_price_history')"


class ModelPriceHistory(Table, tablename="model_price_history"):
    """Only a way to today's engine."""

    id = UUID(primary_key=True)


async def columns() -> set[str]:
    is_postgres = isinstance(ModelPriceHistory._meta.db, PostgresEngine)  # noqa: SLF001
    rows = await ModelPriceHistory.raw(POSTGRES_COLUMNS if is_postgres else SQLITE_COLUMNS)
    return {row["name"] for row in rows}


async def upgrade() -> None:
    ModelPriceHistory._meta.refresh_db()  # noqa: SLF001  # the only way to ask for today's engine
    if "tiers" not in await columns():
        await ModelPriceHistory.raw("ALTER TABLE model_price_history ADD COLUMN tiers TEXT")


async def downgrade() -> None:
    ModelPriceHistory._meta.refresh_db()  # noqa: SLF001
    if "tiers" in await columns():
        await ModelPriceHistory.raw("ALTER TABLE model_price_history DROP COLUMN tiers")


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="proxy", description=DESCRIPTION)
    manager.add_raw(upgrade)
    manager.add_raw_backwards(downgrade)
    return manager
