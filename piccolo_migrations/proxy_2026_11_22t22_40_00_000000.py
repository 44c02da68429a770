"""Seeds the three prices that the gateway ships with. A price that is there already is left alone."""

from datetime import UTC, datetime
from decimal import Decimal

from piccolo.apps.migrations.auto.migration_manager import MigrationManager
from piccolo.columns import UUID, Integer, Numeric, Timestamptz, Varchar
from piccolo.columns.defaults.uuid import UUID4
from piccolo.table import Table

ID = "2026-11-22T22:40:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "seed model pricing"

SEEDED_AT = datetime(2026, 11, 22, tzinfo=UTC)
PRICES = (
    ("z-ai/glm-4.6", "0.0001", "0.0002", 128_000),
    ("deepseek-ai/DeepSeek-V3.1-Terminus", "0.0003", "0.0005", 64_000),
    ("moonshotai/Kimi-K2-Instruct-0905", "0.0005", "0.0010", 200_000),
)


class ModelPricing(Table, tablename="model_pricing"):
    """The table as it was when this migration was written; later changes to it must not change what is seeded."""

    id = UUID(default=UUID4(), primary_key=True)
    model_name = Varchar(length=255, unique=True)
    provider_name = Varchar(length=255)
    input_cost_per_1m_tokens = Numeric(digits=(18, 12))
    output_cost_per_1m_tokens = Numeric(digits=(18, 12))
    max_context_tokens = Integer()
    updated_at = Timestamptz()


async def seed() -> None:
    rows = [
        ModelPricing(
            model_name=model,
            provider_name=model.split("/")[0],
            input_cost_per_1m_tokens=Decimal(input_cost),
            output_cost_per_1m_tokens=Decimal(output_cost),
            max_context_tokens=context,
            updated_at=SEEDED_AT,
        )
        for model, input_cost, output_cost, context in PRICES
    ]
    ModelPricing._meta.refresh_db()  # noqa: SLF001  # the only way to ask for today's engine
    await ModelPricing.insert(*rows).on_conflict(target=ModelPricing.model_name, action="DO NOTHING")


async def unseed() -> None:
    ModelPricing._meta.refresh_db()  # noqa: SLF001
    await ModelPricing.delete().where(ModelPricing.model_name.is_in([price[0] for price in PRICES]))


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="proxy", description=DESCRIPTION)
    manager.add_raw(seed)
    manager.add_raw_backwards(unseed)
    return manager
