"""What the webhook was told of budgets, so that of several processes one tells it.

Running it again, or on a database where the table is there, changes nothing.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns import UUID
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

ID = "2026-11-23T05:20:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "notices of budgets"

POSTGRES_TYPES = {"time": "TIMESTAMPTZ", "uuid": "UUID"}
SQLITE_TYPES = {"time": "TEXT", "uuid": "TEXT"}
CREATE = """CREATE TABLE IF NOT EXISTS budget_notices (
    budget_id {uuid} NOT NULL,
    subject_id VARCHAR(255) NOT NULL,
    period_start {time} NOT NULL,
    threshold_picodollars BIGINT NOT NULL,
    claimed_at {time} NOT NULL,
    delivered_at {time},
    PRIMARY KEY (budget_id, subject_id, period_start, threshold_picodollars))"""


class BudgetNotices(Table, tablename="budget_notices"):
    """Only a way to today's engine."""

    id = UUID(primary_key=True)


async def upgrade() -> None:
    BudgetNotices._meta.refresh_db()  # noqa: SLF001  # the only way to ask for today's engine
    is_postgres = isinstance(BudgetNotices._meta.db, PostgresEngine)  # noqa: SLF001
    await BudgetNotices.raw(CREATE.format_map(POSTGRES_TYPES if is_postgres else SQLITE_TYPES))


async def downgrade() -> None:
    BudgetNotices._meta.refresh_db()  # noqa: SLF001
    await BudgetNotices.raw("DROP TABLE IF EXISTS budget_notices")


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="proxy", description=DESCRIPTION)
    manager.add_raw(upgrade)
    manager.add_raw_backwards(downgrade)
    return manager
