"""Whose rows are read: what a reach lets through, and what people name."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from proxy.domain.access.keys import generate_key
from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.access.tenants import Organisation, Team, VirtualKey
from proxy.domain.errors import ObjectNotFound
from proxy.domain.request_log import RequestLog
from proxy.domain.usage_report import Dimension, UsageQuery
from proxy.domain.values import ModelName
from proxy.infrastructure.persistence.access_rows import (
    KEY_COLUMNS,
    ORGANISATION_COLUMNS,
    TEAM_COLUMNS,
    key_row,
    organisation_row,
    team_row,
)
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.request_archive import LedgerRequestArchive
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from proxy.infrastructure.persistence.sessions import session
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports
from tests.persistence.booked_rows import HOUR, KEYS, ORGANISATION, START, TEAMS, book, requests_of, some_rows, sum_up

KEY, OTHER_KEY = UUID(int=1), UUID(int=2)


def owner_of(row: RequestLog, scope: Scope) -> UUID | None:
    return {Scope.KEY: row.key_id, Scope.TEAM: row.team_id, Scope.ORGANISATION: row.organisation_id}[scope]


async def insert(database: Database, table: str, columns: tuple[str, ...], row: tuple[object, ...]) -> None:
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    async with session(database) as work:
        await work.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", *row)


async def name_owners(database: Database) -> None:
    """Two of the keys have the same name, and one of the teams has none any more."""
    await insert(
        database,
        "organisations",
        ORGANISATION_COLUMNS,
        organisation_row(Organisation(id=ORGANISATION, name="acme", created_at=START)),
    )
    await insert(database, "teams", TEAM_COLUMNS, team_row(Team(id=TEAMS[0], name="it's; research", created_at=START)))
    for key_id in filter(None, KEYS):
        new = generate_key()
        key = VirtualKey(
            id=key_id,
            hash=new.hash,
            hint=new.hint,
            name="bot" if key_id in (KEY, OTHER_KEY) else "other",
            created_at=START,
            created_by="test",
        )
        await insert(database, "virtual_keys", KEY_COLUMNS, key_row(key))


@pytest.mark.parametrize("by", [Dimension.MODEL, Dimension.DAY, Dimension.KEY])
async def test_a_reach_lets_its_own_through_from_rows_and_from_sums(database: Database, by: Dimension) -> None:
    rows = some_rows(400)
    await book(database, rows[:300])
    reaches = [
        Subject(Scope.KEY, str(KEY)),
        Subject(Scope.TEAM, str(TEAMS[1])),
        Subject(Scope.ORGANISATION, str(ORGANISATION)),
    ]
    for late in (False, True):
        if late:
            await sum_up(database)
            await book(database, rows[300:])
        for reach in reaches:
            inside = [row for row in rows[: 400 if late else 300] if str(owner_of(row, reach.scope)) == reach.id]
            total = (await LedgerUsageReports(database).report(UsageQuery(by, START + HOUR, within=reach))).total()
            since = [row for row in inside if row.timestamp >= START + HOUR]
            assert total.requests == len(requests_of(since)) > 0
            assert total.response_times.total() == len(requests_of(since))
            assert total.input_tokens == sum(row.input_tokens.value for row in since)


@pytest.mark.parametrize(
    "reach",
    [
        Subject(Scope.KEY, ""),
        Subject(Scope.KEY, "bot"),
        Subject(Scope.TEAM, "*"),
        Subject(Scope.KEY, str(UUID(int=0))),
        Subject(Scope.END_USER, "zoë"),
        Subject(Scope.MODEL, "a/one"),
        Subject(Scope.GATEWAY, "x"),
        Subject(Scope.TEAM, "9f0a1c7e-2b3d-4e5f-8a9b-0c1d2e3f4a5b"),
    ],
    ids=str,
)
async def test_what_is_no_reach_lets_nothing_through(database: Database, reach: Subject) -> None:
    await name_owners(database)
    rows = [replace(row, request_id="r") for row in some_rows(40)]
    await book(database, rows)
    for _ in range(2):
        for by in (Dimension.KEY, Dimension.STATUS):
            assert (await LedgerUsageReports(database).report(UsageQuery(by, within=reach))).rows == {}
        assert await LedgerRequestArchive(database).find("r", reach) is None
        assert await LedgerRequestArchive(database).find(str(rows[0].id), reach) is None
        await sum_up(database)


async def test_owners_are_found_by_id_and_by_name_within_the_reach(database: Database) -> None:
    await name_owners(database)
    rows = requests_of(some_rows(300))
    await book(database, rows)

    async def requests(*of: Subject, within: Subject = GATEWAY) -> int:
        query = UsageQuery(Dimension.STATUS, of=of, within=within)
        return (await LedgerUsageReports(database).report(query)).total().requests

    bots = [row for row in rows if row.key_id in (KEY, OTHER_KEY)]
    research, bot = Subject(Scope.TEAM, "it's; research"), Subject(Scope.KEY, "bot")
    assert await requests(bot) == len(bots)
    assert await requests(research) == await requests(Subject(Scope.TEAM, str(TEAMS[0]))) > 0
    assert await requests(bot, research) == len([row for row in bots if row.team_id == TEAMS[0]])
    assert await requests(bot, within=Subject(Scope.TEAM, str(TEAMS[1]))) == sum(
        row.team_id == TEAMS[1] for row in bots
    )
    assert await requests(Subject(Scope.ORGANISATION, "acme"), within=Subject(Scope.KEY, str(KEY))) > 0


async def test_who_is_not_there_or_not_within_the_reach_is_told_where_there_is_nothing_to_tell(
    database: Database,
) -> None:
    await name_owners(database)
    reports, logs = LedgerUsageReports(database), PiccoloRequestLogs(database)

    async def is_there(of: Subject, within: Subject = GATEWAY) -> bool:
        try:
            report = await reports.report(UsageQuery(Dimension.DAY, of=(of,), within=within))
        except ObjectNotFound:
            return False
        return report.rows == {}

    acme, research = Subject(Scope.ORGANISATION, "acme"), Subject(Scope.TEAM, "it's; research")
    bot, none = Subject(Scope.KEY, "bot"), UUID(int=99)
    for owner in (acme, research, bot):
        assert await is_there(owner)
        assert await logs.get_recent(10, [owner]) == []
        for named in ("", "' OR 1=1 --", "Bot", str(none)):
            unknown = Subject(owner.scope, named)
            assert not await is_there(unknown)
            with pytest.raises(ObjectNotFound):
                await logs.get_recent(10, [owner, unknown])
    for scope in (Scope.KEY, Scope.TEAM, Scope.ORGANISATION):
        beyond = Subject(scope, str(none))
        assert not await is_there(bot, beyond)
        assert not await is_there(research, beyond)
        # To a key nothing of organisations is told but its own rows: neither that there is one nor that there is not.
        assert await is_there(acme, beyond) is (scope is Scope.KEY)
    assert await is_there(bot, Subject(Scope.KEY, str(KEY)))
    assert await is_there(research, Subject(Scope.TEAM, str(TEAMS[0])))
    assert await is_there(acme, Subject(Scope.ORGANISATION, str(ORGANISATION)))
    assert not await is_there(bot, Subject(Scope.KEY, str(UUID(int=3))))

    await book(database, [RequestLog(model=ModelName("m"), provider_name="p", key_id=none, timestamp=START)])
    gone = Subject(Scope.KEY, str(none))
    assert len(await logs.get_recent(10, [gone])) == 1
    assert (await reports.report(UsageQuery(Dimension.DAY, of=(gone,)))).total().requests == 1


async def namesakes(database: Database, name: str, count: int) -> list[UUID]:
    """So many keys of one name, made by the database itself."""
    async with session(database) as work:
        await work.execute(
            f"""INSERT INTO virtual_keys (id, hash, hint, name, role, created_at, created_by)
            WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
            SELECT CAST('00000000-0000-0000-0000-' || substr(CAST(1000000000000 + n AS TEXT), 2)
                AS {"UUID" if work.is_postgres else "TEXT"}), 'hash ' || n, '…', $1, 'member', $2, 'test'
            FROM numbers""",
            name,
            START,
        )
    return [UUID(f"00000000-0000-0000-0000-{number:012}") for number in range(1, count + 1)]


async def test_of_more_keys_with_one_name_than_a_statement_takes_arguments_all_are_counted(database: Database) -> None:
    """As where each deployment makes its own key, for years: a sum over some of them would be paid for, and be wrong.

    PostgreSQL's protocol counts arguments with 16 bits.
    """
    ids = await namesakes(database, "ci", 33_000)
    booked, of_another = [ids[0], *ids[16_000:16_300], ids[-1]], UUID(int=2**100)
    await book(
        database,
        [
            RequestLog(model=ModelName("m"), provider_name="p", key_id=key_id, timestamp=START)
            for key_id in (*booked, of_another)
        ],
    )
    ci = Subject(Scope.KEY, "ci")
    rows = await PiccoloRequestLogs(database).get_recent(1000, [ci])
    assert {row.key_id for row in rows} == set(booked)
    for _ in range(2):
        for by in (Dimension.STATUS, Dimension.KEY):
            report = await LedgerUsageReports(database).report(UsageQuery(by, of=(ci,)))
            assert report.total().requests == len(booked)
        await sum_up(database)


@pytest.mark.parametrize("name", ["\x00", "bot\x00", "\ud800"], ids=ascii)
async def test_what_no_database_takes_is_nobodys_name(database: Database, name: str) -> None:
    await name_owners(database)
    await book(database, some_rows(40))
    for scope in (Scope.KEY, Scope.TEAM, Scope.ORGANISATION):
        of = Subject(scope, name)
        with pytest.raises(ObjectNotFound):
            await LedgerUsageReports(database).report(UsageQuery(Dimension.STATUS, of=(of,)))
        with pytest.raises(ObjectNotFound):
            await PiccoloRequestLogs(database).get_recent(10, [of])


async def test_reports_and_logs_name_the_owners_that_there_still_are(database: Database) -> None:
    await name_owners(database)
    rows = some_rows(100)
    await book(database, rows)
    report = (await LedgerUsageReports(database).report(UsageQuery(Dimension.TEAM))).as_dict()
    shown = {row["team"]: row["team_name"] for row in report["data"]}  # type: ignore[attr-defined]
    assert shown == {None: None, str(TEAMS[0]): "it's; research", str(TEAMS[1]): None}
    logs = PiccoloRequestLogs(database)
    assert await logs.key_names(rows) == {KEY: "bot", OTHER_KEY: "bot", UUID(int=3): "other"}
    assert await logs.key_names([]) == {}
    for named in ("it's; research", str(TEAMS[0])):
        found = await logs.get_recent(100, [Subject(Scope.TEAM, named)])
        assert {row.id for row in found} == {row.id for row in rows if row.team_id == TEAMS[0]}


async def test_rows_of_others_with_the_same_request_id_are_not_told(database: Database) -> None:
    """Clients choose request ids; others' rows must neither be seen nor crowd out one's own."""
    mine = RequestLog(model=ModelName("m"), provider_name="p", request_id="r", key_id=KEY, timestamp=START)
    others = [
        RequestLog(model=ModelName("m"), provider_name="p", request_id="r", key_id=OTHER_KEY, timestamp=START + HOUR)
        for _ in range(60)
    ]
    await book(database, [mine, *others])
    archive, reach = LedgerRequestArchive(database), Subject(Scope.KEY, str(KEY))
    for asked in ("r", str(mine.id)):
        found = await archive.find(asked, reach)
        assert found is not None
        assert (found.row, list(found.others)) == (mine, [])
    assert await archive.find(str(others[0].id), reach) is None
    everything = await archive.find(str(mine.id))
    assert everything is not None
    assert everything.others
