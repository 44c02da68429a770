"""Gives prices a date: every price that a model ever had is a row. Those that are there hold from the epoch on.

Prices are decimal text: SQLite's NUMERIC is a float, and a price has to come back digit for digit.
Running it again, or on a database where a part of it is done, changes nothing.
"""

from datetime import UTC, datetime
from decimal import Decimal

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns import UUID, Integer, Numeric, Timestamptz, Varchar
from piccolo.columns.defaults.uuid import UUID4
from piccolo.table import Table

ID = "2026-11-22T23:50:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "effective-dated prices"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ModelPricing(Table, tablename="model_pricing"):
    """The table as it was when this migration was written."""

    id = UUID(default=UUID4(), primary_key=True)
    model_name = Varchar(length=255, unique=True)
    provider_name = Varchar(length=255)
    input_cost_per_1m_tokens = Numeric(digits=(18, 12))
    output_cost_per_1m_tokens = Numeric(digits=(18, 12))
    max_context_tokens = Integer()
    updated_at = Timestamptz()


class ModelPriceHistory(Table, tablename="model_price_history"):
    """The table as this migration makes it."""

    id = UUID(default=UUID4(), primary_key=True)
    model_name = Varchar(length=255)
    provider_name = Varchar(length=255)
    valid_from = Timestamptz()
    source = Varchar(length=64)
    input_cost_per_1m_tokens = Varchar(length=64)
    output_cost_per_1m_tokens = Varchar(length=64)
    cached_input_cost_per_1m_tokens = Varchar(length=64, null=True, default=None)
    cache_write_cost_per_1m_tokens = Varchar(length=64, null=True, default=None)
    audio_input_cost_per_1m_tokens = Varchar(length=64, null=True, default=None)
    image_input_cost_per_1m_tokens = Varchar(length=64, null=True, default=None)
    reasoning_cost_per_1m_tokens = Varchar(length=64, null=True, default=None)
    request_fee_usd = Varchar(length=64, null=True, default=None)
    max_context_tokens = Integer(null=True, default=None)
    recorded_at = Timestamptz()


def text(price: Decimal) -> str:
    return f"{Decimal(price).normalize():f}"


async def upgrade() -> None:
    for table in (ModelPricing, ModelPriceHistory):
        table._meta.refresh_db()  # noqa: SLF001  # the only way to ask for today's engine
    await ModelPriceHistory.create_table(if_not_exists=True)
    await ModelPriceHistory.raw(
        "CREATE UNIQUE INDEX IF NOT EXISTS model_price_history_model_name_valid_from"
        " ON model_price_history (model_name, valid_from)"
    )
    rows = [
        ModelPriceHistory(
            model_name=price["model_name"],
            provider_name=price["provider_name"],
            valid_from=EPOCH,
            source="seed",
            input_cost_per_1m_tokens=text(price["input_cost_per_1m_tokens"]),
            output_cost_per_1m_tokens=text(price["output_cost_per_1m_tokens"]),
            max_context_tokens=price["max_context_tokens"],
            recorded_at=price["updated_at"],
        )
        for price in await ModelPricing.select()
    ]
    for row in rows:
        await ModelPriceHistory.insert(row).on_conflict(
            target=(ModelPriceHistory.model_name, ModelPriceHistory.valid_from), action="DO NOTHING"
        )


async def downgrade() -> None:
    ModelPriceHistory._meta.refresh_db()  # noqa: SLF001
    await ModelPriceHistory.alter().drop_table(if_exists=True)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="proxy", description=DESCRIPTION)
    manager.add_raw(upgrade)
    manager.add_raw_backwards(downgrade)
    return manager
