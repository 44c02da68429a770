"""Prices with dates, on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from proxy.domain.errors import InvalidValue
from proxy.domain.price_tiers import PriceTier
from proxy.domain.pricing import EPOCH, PRICES, ModelPricing, PriceSource
from proxy.domain.values import ModelName
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.model_pricing import PiccoloModelPricing
from proxy.infrastructure.persistence.tables import ModelPriceHistoryTable
from proxy.infrastructure.price_book import RefreshingPriceBook

GLM = "z-ai/glm-4.6"
NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def price(model: str = GLM, input_cost: str = "1", output_cost: str = "2") -> ModelPricing:
    name = ModelName(model)
    return ModelPricing(name, name.provider, Decimal(input_cost), Decimal(output_cost), 1000, NOON)


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def prices(database: Database, clock: Clock) -> PiccoloModelPricing:
    return PiccoloModelPricing(database, clock)


async def input_cost(prices: PiccoloModelPricing, model: str = GLM) -> Decimal | None:
    """In force now; both ways of asking must agree."""
    found = await prices.get_by_model(model)
    among_all = {row.model.value: row for row in await prices.get_all()}.get(model)
    assert found == among_all
    return None if found is None else found.input_cost_per_1m_tokens


# The migration


async def test_what_was_there_holds_from_the_epoch_on(empty_url: str) -> None:
    async with open_database(empty_url) as database:
        await migrate(database)
        prices = PiccoloModelPricing(database)
        rows = [row for seeded in await prices.get_all() for row in await prices.history(seeded.model.value)]
        assert [(row.model.value, row.valid_from, row.source) for row in rows] == [
            (model, EPOCH, PriceSource.SEED)
            for model in ("deepseek-ai/DeepSeek-V3.1-Terminus", "moonshotai/Kimi-K2-Instruct-0905", GLM)
        ]
        assert rows[2].input_cost_per_1m_tokens == Decimal("0.0001")
        assert rows[2].updated_at == datetime(2026, 11, 22, tzinfo=UTC)
        assert rows[2].cached_input_cost_per_1m_tokens is None


async def test_running_the_migration_again_changes_nothing(empty_url: str) -> None:
    async with open_database(empty_url) as database:
        await migrate(database)
        prices = PiccoloModelPricing(database)
        await prices.set(price(), NOON)
        before = await prices.history(GLM)
        await database.model_pricing.update({"input_cost_per_1m_tokens": Decimal(7)}, force=True)
        await database.request_logs.raw("DELETE FROM migration WHERE name LIKE '%23:50%'")
        assert len(await migrate(database)) == 1
        assert await prices.history(GLM) == before
        assert len(await database.model_price_history.select()) == 4


async def test_prices_from_before_the_migration_are_copied_digit_for_digit(empty_url: str) -> None:
    async with open_database(empty_url) as database:
        await migrate(database)
        table = database.model_pricing
        usd = ["0.000000000001", "123456.123456789", "0.1", "100", "0"]
        await table.insert(
            *(
                table(
                    model_name=f"own/{place}",
                    provider_name="own",
                    input_cost_per_1m_tokens=Decimal(text),
                    output_cost_per_1m_tokens=Decimal(1),
                    max_context_tokens=5,
                )
                for place, text in enumerate(usd)
            )
        )
        await database.request_logs.raw("DROP TABLE model_price_history")
        await database.request_logs.raw("DELETE FROM migration WHERE name LIKE '%23:50%' OR name LIKE '%-30T1%'")
        await migrate(database)
        prices = PiccoloModelPricing(database)
        assert [await input_cost(prices, f"own/{place}") for place in range(len(usd))] == [Decimal(x) for x in usd]
        stored = await database.model_price_history.select().where(
            database.model_price_history.model_name.like("own/%")
        )
        assert sorted(row["input_cost_per_1m_tokens"] for row in stored) == sorted(usd)


async def test_the_table_has_the_columns_that_the_code_knows(database: Database) -> None:
    row = (await database.model_price_history.raw("SELECT * FROM model_price_history"))[0]
    assert list(row) == [column._meta.db_column_name for column in ModelPriceHistoryTable._meta.columns]


async def test_a_model_that_only_the_seed_table_has_is_priced_by_it(
    database: Database, prices: PiccoloModelPricing
) -> None:
    table = database.model_pricing
    await table.insert(
        table(
            model_name="own/model",
            provider_name="own",
            input_cost_per_1m_tokens=Decimal("0.5"),
            output_cost_per_1m_tokens=Decimal(1),
            max_context_tokens=5,
        )
    )
    assert await input_cost(prices, "own/model") == Decimal("0.5")
    assert [row.valid_from for row in await prices.history("own/model")] == [EPOCH]
    await prices.set(price("own/model", "3"), NOON)
    assert await input_cost(prices, "own/model") == 3


# In force


async def test_a_price_is_in_force_from_its_very_moment_on(prices: PiccoloModelPricing, clock: Clock) -> None:
    assert await prices.set(price(input_cost="5"), NOON + TICK)
    assert await input_cost(prices) == Decimal("0.0001")
    clock.now = NOON + TICK
    assert await input_cost(prices) == 5
    clock.now = NOON + timedelta(days=400)
    assert await input_cost(prices) == 5


async def test_moments_are_compared_as_moments_whatever_their_zone_and_digits(
    prices: PiccoloModelPricing, clock: Clock
) -> None:
    """Whole seconds beside microseconds: SQLite keeps moments as text."""
    east = timezone(timedelta(hours=9))
    await prices.set(price(input_cost="1"), (NOON - timedelta(seconds=1)).astimezone(east))
    await prices.set(price(input_cost="2"), NOON.astimezone(east))
    await prices.set(price(input_cost="3"), (NOON + TICK).astimezone(east))
    for now, expected in ((NOON - TICK, 1), (NOON, 2), (NOON + TICK, 3)):
        clock.now = now.astimezone(timezone(timedelta(hours=-5)))
        assert await input_cost(prices) == expected


async def test_a_price_from_the_past_is_superseded_by_a_later_one(prices: PiccoloModelPricing) -> None:
    await prices.set(price(input_cost="5"), NOON - timedelta(days=1))
    await prices.set(price(input_cost="4"), NOON - timedelta(days=2))
    assert await input_cost(prices) == 5


async def test_a_model_has_no_price_before_its_first(prices: PiccoloModelPricing, clock: Clock) -> None:
    await prices.set(price("new/model"), NOON + TICK)
    assert await input_cost(prices, "new/model") is None
    assert [row.valid_from for row in await prices.upcoming()] == [NOON + TICK]
    clock.now = NOON + TICK
    assert await input_cost(prices, "new/model") == 1
    assert await prices.upcoming() == []


async def test_the_history_tells_all_the_latest_first(prices: PiccoloModelPricing) -> None:
    await prices.set(price(input_cost="5"), NOON)
    await prices.set(price(input_cost="6"), NOON + timedelta(days=9))
    rows = await prices.history(GLM)
    assert [(row.input_cost_per_1m_tokens, row.source) for row in rows] == [
        (Decimal(6), PriceSource.SET),
        (Decimal(5), PriceSource.SET),
        (Decimal("0.0001"), PriceSource.SEED),
    ]
    assert await prices.history("nobody/knows") == []


async def test_a_second_price_for_the_same_moment_is_refused_and_the_first_stays(prices: PiccoloModelPricing) -> None:
    assert await prices.set(price(input_cost="5"), NOON)
    assert not await prices.set(price(input_cost="6"), NOON.astimezone(timezone(timedelta(hours=2))))
    assert await input_cost(prices) == 5


async def test_every_price_comes_back_digit_for_digit(prices: PiccoloModelPricing) -> None:
    """More digits than a float has, and as many as a price may have."""
    usd: dict[str, Any] = {
        name: Decimal(f"123456{place:02}.123456789012345678901234567891") for place, name in enumerate(PRICES)
    }
    full = replace(
        price("exact/model"),
        **usd,
        valid_from=NOON,
        source=PriceSource.SET,
        tiers=(PriceTier(usd, 200_000, "flex"), PriceTier({"request_fee_usd": Decimal(0)}, service_tier="priority")),
    )
    await prices.set(full, NOON)
    assert await prices.get_by_model("exact/model") == full
    assert full in await prices.get_all()


async def test_an_unknown_context_window_stays_unknown(prices: PiccoloModelPricing) -> None:
    await prices.set(replace(price("a/b"), max_context_tokens=None), NOON)
    found = await prices.get_by_model("a/b")
    assert found is not None
    assert found.max_context_tokens is None


@pytest.mark.parametrize("moment", [datetime(2026, 1, 1), EPOCH - TICK])  # noqa: DTZ001  # the point of it
async def test_a_moment_that_cannot_be_is_refused(prices: PiccoloModelPricing, moment: datetime) -> None:
    with pytest.raises(InvalidValue, match="moment"):
        await prices.set(price(), moment)


async def test_a_name_that_no_column_takes_is_refused(prices: PiccoloModelPricing) -> None:
    with pytest.raises(InvalidValue, match="longer than 255"):
        await prices.set(price("x" * 256), NOON)
    assert await prices.set(price("x" * 255), NOON)
    for name in ("\x00", "a\x00b", "\ud800"):
        with pytest.raises(InvalidValue, match="without NUL"):
            await prices.set(price(name), NOON)
        assert (await prices.get_by_model(name), await prices.history(name)) == (None, [])


# The upstream's prices


async def test_only_prices_that_differ_get_a_row(prices: PiccoloModelPricing) -> None:
    same = price(input_cost="0.00010", output_cost="0.0002")
    listed = [same, price("moonshotai/Kimi-K2-Instruct-0905", "1", "2"), price("new/model")]
    changes = await prices.supersede(listed, NOON)
    assert changes.added == ("new/model",)
    assert changes.changed == ("moonshotai/Kimi-K2-Instruct-0905",)
    assert changes.unchanged == (GLM,)
    assert [row.source for row in await prices.history(GLM)] == [PriceSource.SEED]
    assert [row.source for row in await prices.history("moonshotai/Kimi-K2-Instruct-0905")] == ["sync", "seed"]
    again = await prices.supersede(listed, NOON + TICK)
    assert (again.added, again.changed, len(again.unchanged)) == ((), (), 3)


async def test_a_dry_run_tells_the_same_and_writes_nothing(database: Database, prices: PiccoloModelPricing) -> None:
    listed = [price(), price("new/model")]
    would = await prices.supersede(listed, NOON, dry_run=True)
    assert len(await database.model_price_history.select()) == 3
    assert await prices.supersede(listed, NOON) == would


async def test_many_prices_are_taken_in_at_once(database: Database, prices: PiccoloModelPricing) -> None:
    changes = await prices.supersede([price(f"many/{number}") for number in range(173)], NOON)
    assert len(changes.added) == 173
    assert len(await database.model_price_history.select()) == 176


async def test_of_two_syncs_at_once_one_writes(database: Database, clock: Clock) -> None:
    """Each with a moment of its own, so that the unique index alone would let both in."""
    listed = [price(f"many/{number}") for number in range(60)]
    clock.now = NOON + timedelta(minutes=1)
    syncs = [PiccoloModelPricing(database, clock).supersede(listed, NOON + place * TICK) for place in range(4)]
    results = await asyncio.gather(*syncs)
    assert sorted(len(changes.added) for changes in results) == [0, 0, 0, 60]
    assert len(await database.model_price_history.select()) == 63


async def test_a_list_that_is_older_than_a_price_does_not_supersede_it(prices: PiccoloModelPricing) -> None:
    """Somebody has set a price, or another gateway has synced, while this one was reading the list."""
    await prices.set(price(input_cost="9"), NOON)
    changes = await prices.supersede([price(input_cost="5")], NOON - timedelta(seconds=1))
    assert changes.unchanged == (GLM,)
    assert len(await prices.history(GLM)) == 2
    assert await input_cost(prices) == 9


async def test_a_sync_that_fails_halfway_leaves_nothing(database: Database, prices: PiccoloModelPricing) -> None:
    listed = [price(f"many/{number}") for number in range(60)] + [price("x" * 256)]
    with pytest.raises(InvalidValue):
        await prices.supersede(listed, NOON)
    assert len(await database.model_price_history.select()) == 3


# The copy in memory


async def test_the_price_book_takes_a_price_up_at_its_moment_without_reading_again(
    prices: PiccoloModelPricing, clock: Clock
) -> None:
    await prices.set(price(input_cost="5"), NOON + timedelta(minutes=1))
    await prices.set(price(input_cost="6"), NOON + timedelta(minutes=2))
    book = RefreshingPriceBook(prices, clock)
    await book.load()
    for minute, expected in ((0, "0.0001"), (1, "5"), (2, "6"), (3, "6")):
        clock.now = NOON + timedelta(minutes=minute) - TICK * (minute == 0)
        assert book.current()[GLM].input_cost_per_1m_tokens == Decimal(expected)
    assert len(book.current()) == 3


class Counting(PiccoloModelPricing):
    """The price table, which notes how often all of it was read."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.readings = 0

    async def get_all(self) -> Sequence[ModelPricing]:
        self.readings += 1
        return await super().get_all()


async def test_the_price_book_reads_again_when_somebody_has_added_a_price(database: Database) -> None:
    prices, seconds = Counting(database), 0.0
    book = RefreshingPriceBook(prices, clock=lambda: seconds)
    for expected in ("0.0001", "5"):
        for _ in range(3):
            seconds += 1
            await book.keep_up()
            assert book.current()[GLM].input_cost_per_1m_tokens == Decimal(expected)
        await PiccoloModelPricing(database).set(price(input_cost="5"), NOON - timedelta(days=365 * 20))
    assert prices.readings == 2
    seconds += 60
    await book.keep_up()
    assert prices.readings == 3


async def test_a_database_that_gives_no_prices_is_asked_until_it_does(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Which is told once."""
    book = RefreshingPriceBook(PiccoloModelPricing(database))
    table = database.model_price_history
    await table.raw("ALTER TABLE model_price_history RENAME TO away")
    for _ in range(3):
        await book.keep_up()
    assert book.current() == {}
    await table.raw("ALTER TABLE away RENAME TO model_price_history")
    await book.keep_up()
    assert len(book.current()) == 3
    assert [record.message for record in caplog.records] == ["prices not refreshed"]


async def test_the_price_book_keeps_its_prices_when_a_row_cannot_be_read(
    database: Database, prices: PiccoloModelPricing, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    book = RefreshingPriceBook(prices, clock)
    await book.load()
    await database.model_price_history.update({"input_cost_per_1m_tokens": "a lot"}, force=True)
    await book.refresh()
    assert book.current()[GLM].input_cost_per_1m_tokens == Decimal("0.0001")
    assert "cannot be read" in caplog.records[-1].__dict__["reason"]
    with pytest.raises(InvalidValue, match="model_price_history cannot be read"):
        await book.load()
