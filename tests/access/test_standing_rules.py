"""Rules for everyone: read at the start, and again when they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.domain.access.scopes import EACH, GATEWAY, Scope, Subject
from proxy.infrastructure.access.changes import ChangeFeed, following_changes
from proxy.infrastructure.access.rules import StandingRules, keeping_rules
from proxy.infrastructure.persistence.database import Database, open_database
from tests.access.tenancy import Tenancy, budget, limit

STALE_SECONDS = 100.0


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        yield database


async def test_rules_for_everyone_are_read_and_no_others(database: Database, tenancy: Tenancy) -> None:
    subjects = [GATEWAY, Subject(Scope.MODEL, "gpt-5"), Subject(Scope.MODEL, EACH), Subject(Scope.END_USER, EACH)]
    others = [Subject(Scope.TEAM, "x"), Subject(Scope.KEY, "x"), Subject(Scope.ORGANISATION, "x")]
    rules = [(budget(subject), limit(subject, tokens_per_minute=1)) for subject in (*subjects, *others)]
    for each in rules:
        for rule in each:
            await tenancy.add(rule)
    standing = StandingRules(database, ChangeFeed(database), STALE_SECONDS)
    await standing.load()
    groups = {"cheap": ["mini"]}
    rulebook = standing.rulebook(groups)
    assert set(rulebook.budgets) == {money for money, _ in rules[: len(subjects)]}
    assert set(rulebook.limits) == {rate for _, rate in rules[: len(subjects)]}
    assert rulebook.model_groups is groups
    assert standing.rulebook(groups) is rulebook


async def test_changes_are_heeded(database: Database, tenancy: Tenancy) -> None:
    feed = ChangeFeed(database)
    standing = StandingRules(database, feed, STALE_SECONDS)
    feed.subscribe(standing.heed)
    async with keeping_rules(standing), following_changes(feed), asyncio.timeout(10):
        while standing.has_keys() is None:
            await asyncio.sleep(0.01)
        assert standing.has_keys() is False
        assert standing.rulebook({}).budgets == []
        rule = budget(GATEWAY)
        await tenancy.add(rule)
        while not standing.rulebook({}).budgets:
            await asyncio.sleep(0.01)
        await tenancy.change("budgets", rule.id, amount_usd="0.5")
        while standing.rulebook({}).budgets == [rule]:
            await asyncio.sleep(0.01)
        await tenancy.delete("budgets", rule.id)
        while standing.rulebook({}).budgets:
            await asyncio.sleep(0.01)
        await tenancy.key()
        while not standing.has_keys():
            await asyncio.sleep(0.01)


async def test_a_row_that_cannot_be_read_spoils_no_other(
    database: Database, tenancy: Tenancy, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = budget(GATEWAY), budget(GATEWAY)
    await tenancy.add(good)
    await tenancy.add(bad)
    await tenancy.change("budgets", bad.id, amount_usd="-1")
    standing = StandingRules(database, ChangeFeed(database), STALE_SECONDS)
    await standing.load()
    assert standing.rulebook({}).budgets == [good]
    assert str(bad.id) in str([record.__dict__ for record in caplog.records])


class Feed:
    """A Confirmation at any time."""

    confirmed_at = 0.0


async def test_that_there_are_no_keys_is_believed_for_so_long(database: Database, tenancy: Tenancy) -> None:
    """That there are some is believed for ever: it lets nobody in."""
    now, feed = [0.0], Feed()
    standing = StandingRules(database, feed, STALE_SECONDS, clock=lambda: now[0])
    assert standing.has_keys() is None
    await standing.load()
    now[0] = STALE_SECONDS
    assert standing.has_keys() is False
    now[0] = STALE_SECONDS + 1
    assert standing.has_keys() is None
    feed.confirmed_at = 1.0
    assert standing.has_keys() is False
    await tenancy.key()
    await standing.load()
    now[0] = 10 * STALE_SECONDS
    assert standing.has_keys() is True
