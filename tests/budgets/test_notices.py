"""When there is something to tell of a budget."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from proxy.domain.budgets import Budget, Period, Window
from proxy.infrastructure.budgets.notices import Notice, notices_of
from proxy.infrastructure.budgets.upkeep import Upkeep
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.sessions import session
from proxy.settings import Settings, explain
from tests.budgets.conftest import USD, Start, a_budget, put

NOW = datetime(2026, 11, 23, 5, 20, tzinfo=UTC)


def notices(budget: Budget, spent_usd: str, moment: datetime = NOW, subject: str = "") -> Sequence[Notice]:
    return notices_of(budget, subject, int(Decimal(spent_usd) * USD), moment)


@pytest.mark.parametrize(
    ("spent_usd", "thresholds_usd"),
    [("0", []), ("0.79", []), ("0.8", ["0.8"]), ("0.99", ["0.8"]), ("1", ["0.8", "1"]), ("7", ["0.8", "1"])],
)
def test_thresholds_that_are_passed(spent_usd: str, thresholds_usd: list[str]) -> None:
    found = notices(a_budget("1"), spent_usd)
    assert [notice.message()["threshold_usd"] for notice in found] == thresholds_usd


def test_one_notice_where_the_warning_is_the_amount() -> None:
    (notice,) = notices(a_budget("1", warn_percent=100), "1")
    assert notice.message()["event"] == "budget.exceeded"


def test_nothing_is_told_of_a_budget_of_nothing_that_is_not_used() -> None:
    assert notices(a_budget("0"), "0") == []


def test_a_rolling_window_has_one_period_in_its_length() -> None:
    budget = a_budget("1", window=Window(Period.ROLLING, 3600))
    starts = {notices(budget, "1", NOW + timedelta(minutes=at))[0].key.period_start for at in range(120)}
    assert len(starts) in (2, 3)
    assert notices(budget, "1")[0].key.period_start <= NOW


async def test_the_books_offer_what_is_spent(database: Database, start: Start) -> None:
    budget, process = await put(database, a_budget("1")), start("p")
    offered: list[Notice] = []
    upkeep = Upkeep(process.book, offered.append)
    process.end(await process.begin("0.7", budget), "0.7")
    await upkeep.look()
    await upkeep.notify()
    assert offered == []
    process.end(await process.begin("0.2", budget), "0.2")
    await upkeep.notify()
    assert [(one.threshold_picodollars, one.spent_picodollars) for one in offered] == [(USD * 8 // 10, USD * 9 // 10)]


async def test_nothing_is_offered_of_a_period_that_nobody_has_looked_at(database: Database, start: Start) -> None:
    budget, process = await put(database, a_budget("1")), start("p")
    offered: list[Notice] = []
    upkeep = Upkeep(process.book, offered.append)
    process.end(await process.begin("1", budget), "1")
    account = next(iter(process.book.accounts.values()))
    account.bucket(datetime(2020, 1, 1, tzinfo=UTC))
    await upkeep.notify()
    assert offered == []
    await upkeep.look()
    await upkeep.notify()
    assert len(offered) == 2


async def test_a_rolling_window_is_warned_of_in_each_of_its_parts(database: Database, start: Start) -> None:
    """A part is a second long: what was spent in those before it counts, also before the next look."""
    budget = await put(database, a_budget("1", is_hard=False, window=Window(Period.ROLLING, 60)))
    process, offered = start("p"), list[Notice]()
    upkeep = Upkeep(process.book, offered.append)
    process.end(await process.begin("0.9", budget), "0.9")
    await process.drain()
    await upkeep.look()
    account = next(iter(process.book.accounts.values()))
    for seconds in range(1, 5):
        account.bucket(datetime.now(UTC) + timedelta(seconds=seconds))
        assert account.is_warned_of
        await upkeep.notify()
    assert len(offered) == 4


async def test_what_has_left_a_rolling_window_warns_no_more(database: Database, start: Start) -> None:
    """Also if nobody has used the budget meanwhile."""
    budget = await put(database, a_budget("1", is_hard=False, window=Window(Period.ROLLING, 60)))
    now = [1000.0]
    process = start("p", now)
    process.end(await process.begin("0.9", budget), "0.9")
    await process.drain()
    await process.upkeep.look()
    account = next(iter(process.book.accounts.values()))
    assert account.is_warned_of
    now[0] += 50
    async with session(database) as to:
        await to.execute("UPDATE budget_spend SET bucket = $1", NOW - timedelta(days=365))
    await process.upkeep.look()
    assert not account.is_warned_of


@pytest.mark.parametrize("url", ["ftp://example.com/hook", "https://", "example.com"])
def test_a_webhook_is_an_http_url(url: str) -> None:
    given: dict[str, Any] = {"budget_webhook_url": url}
    with pytest.raises(ValidationError) as refused:
        Settings(**given)
    assert explain(refused.value) == ["BUDGET_WEBHOOK_URL: must begin with https:// or http://"]


def test_the_url_is_a_secret() -> None:
    given: dict[str, Any] = {"budget_webhook_url": "https://hooks.example.com/very-secret"}
    assert "very-secret" not in repr(Settings(**given))
