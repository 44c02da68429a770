"""llmgateway logs: costs that are not known, and those that there are none of."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from uuid import UUID

from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.cli.logs import totals
from proxy.cli.plain import plain
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus
from proxy.domain.values import CostAmount, ModelName
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from tests.access.tenancy import Tenancy


def row(**members: object) -> RequestLog:
    return RequestLog(model=ModelName("a/one"), provider_name="p", **members)  # type: ignore[arg-type]


BILLED = row(reported_cost=CostAmount(Decimal("0.5")), cost_source=CostSource.REPORTED)
UNKNOWN = row(status=RequestStatus.INTERRUPTED)
REFUSED = row(status=RequestStatus.REFUSED, cost_source=CostSource.NONE)


def test_a_cost_of_nothing_is_not_an_unknown_cost() -> None:
    total = totals([BILLED, UNKNOWN, REFUSED])
    assert (total["requests"], total["cost_usd"], total["requests_without_known_cost"]) == (3, "0.5", 1)
    assert totals([REFUSED])["requests_without_known_cost"] == 0


def test_a_call_that_lost_against_another_costs_and_is_no_request() -> None:
    """As in `llmgateway usage`."""
    paid = row(status=RequestStatus.HEDGED, estimated_cost=CostAmount(Decimal("0.25")), cost_source=CostSource.COMPUTED)
    total = totals([BILLED, paid, row(status=RequestStatus.HEDGED)])
    assert (total["requests"], total["cost_usd"], total["requests_without_known_cost"]) == (1, "0.75", 1)


async def _book(url: str, *more: RequestLog) -> None:
    async with open_database(url) as database:
        await PiccoloRequestLogs(database).save_all([BILLED, UNKNOWN, REFUSED, *more])


def test_the_table_shows_a_dash_where_nothing_was_billed(sqlite_url: str) -> None:
    asyncio.run(_book(sqlite_url))
    shown = CliRunner().invoke(main, ["logs"], env={"DATABASE_URL": sqlite_url}).stdout
    refused, unknown = (
        next(line for line in shown.splitlines() if word in line) for word in ("refused", "interrupted")
    )
    assert "unknown" in unknown
    assert "unknown" not in refused
    assert "(1 of unknown cost)" in shown


def test_service_tiers_are_shown_where_there_are_any(sqlite_url: str) -> None:
    asyncio.run(_book(sqlite_url))
    variables = {"DATABASE_URL": sqlite_url}
    assert "tier" not in CliRunner().invoke(main, ["logs"], env=variables).stdout
    asyncio.run(_book(sqlite_url, row(service_tier="flex", request_id="cheap")))
    shown = CliRunner().invoke(main, ["logs"], env=variables).stdout.splitlines()
    assert shown[0].split()[-1] == "tier"
    assert next(line for line in shown if "cheap" in line).split()[-1] == "flex"
    told = json.loads(CliRunner().invoke(main, ["logs", "--json"], env=variables).stdout)["rows"]
    assert {each["service_tier"] for each in told} == {None, "flex"}


def test_rows_of_a_key_or_team_are_shown_with_the_keys_name(sqlite_url: str) -> None:
    tenancy = Tenancy(sqlite_url)
    team = asyncio.run(tenancy.team())
    _, key = asyncio.run(tenancy.key(name="[red]bot", team_id=team.id))
    gone = UUID(int=7)
    asyncio.run(_book(sqlite_url, row(key_id=key.id, team_id=team.id), row(key_id=gone)))

    def logs(*arguments: str) -> str:
        return CliRunner().invoke(main, ["logs", *arguments], env={"DATABASE_URL": sqlite_url}).stdout

    assert "[red]bot" in logs()
    for arguments in (("--key", "[red]bot"), ("--key", str(key.id)), ("--team", team.name), ("--team", str(team.id))):
        shown = json.loads(logs(*arguments, "--json"))
        assert [(one["key_name"], one["key_id"]) for one in shown["rows"]] == [("[red]bot", str(key.id))]
    assert "1 requests" in logs("--key", str(gone))


def test_a_key_or_team_that_there_is_not_is_told_with_its_option(sqlite_url: str) -> None:
    tenancy = Tenancy(sqlite_url)
    team = asyncio.run(tenancy.team())
    asyncio.run(tenancy.key(name="revoked", disabled=True))
    asyncio.run(_book(sqlite_url))

    def logs(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["logs", *arguments], env={"DATABASE_URL": sqlite_url})

    for arguments in (("--key", "revoked"), ("--team", team.name), ("--team", str(team.id))):
        shown = logs(*arguments)
        assert (shown.exit_code, "0 requests" in shown.stdout) == (0, True)
    for option in ("key", "team"):
        for named in ("typo\x1b[31m", str(UUID(int=7)), "\udcff"):
            refused = logs(f"--{option}", named, "--json")
            assert (refused.exit_code, refused.stdout) == (2, "")
            assert f"--{option}" in refused.stderr
            assert f"There is no {option} '{plain(named)}'" in refused.stderr
            assert f"llmgateway {option}s list" in refused.stderr


def test_more_rows_than_a_database_can_count_are_refused(sqlite_url: str) -> None:
    asyncio.run(_book(sqlite_url))
    for rows, exit_code in (("1000000", 0), ("99999999999999999999", 2)):
        assert CliRunner().invoke(main, ["logs", "-n", rows], env={"DATABASE_URL": sqlite_url}).exit_code == exit_code
