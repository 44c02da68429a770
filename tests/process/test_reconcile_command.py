"""`llmgateway reconcile`, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.domain.request_log import RequestStatus, UsageSource
from proxy.domain.values import ModelName
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from tests.generations import KEY, Generations, estimated_row, remembering
from tests.process.conftest import clean_environment


class Command:
    """The command on one database and one provider."""

    def __init__(self, provider: Generations, database_url: str) -> None:
        self.provider = provider
        self.database_url = database_url
        self.environment = clean_environment(
            DATABASE_URL=database_url, OPENROUTER_BASE_URL=provider.url, OPENROUTER_API_KEY=KEY
        )

    async def start(self, *arguments: str, **how: Any) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "reconcile", *arguments),
            **{
                "env": self.environment,
                "stdout": asyncio.subprocess.PIPE,
                "stderr": asyncio.subprocess.PIPE,
                **how,
            },
        )

    async def run(self, *arguments: str) -> tuple[int | None, str, str]:
        """Exit code, standard output, standard error."""
        process = await self.start(*arguments, "--rate", "100")
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert b"Traceback" not in err, err.decode()
        return process.returncode, out.decode(), err.decode()

    async def json(self, *arguments: str) -> Any:
        code, out, err = await self.run("--json", *arguments)
        assert code == 0, err
        return json.loads(out)

    async def book(self, *rows: Any) -> None:
        async with open_database(self.database_url) as database:
            await PiccoloRequestLogs(database).save_all(rows)

    async def billed(self) -> dict[str | None, str | None]:
        async with open_database(self.database_url) as database:
            rows = await PiccoloRequestLogs(database).get_recent(1000)
        return {
            row.generation_id: f"{row.reported_cost.usd.normalize():f}" if row.reported_cost else None for row in rows
        }


@pytest.fixture
async def provider() -> AsyncIterator[Generations]:
    async with remembering() as generations:
        yield generations


@pytest.fixture
def command(provider: Generations, database_url: str) -> Command:
    return Command(provider, database_url)


@pytest.fixture
def sqlite_command(provider: Generations, sqlite_url: str) -> Command:
    return Command(provider, sqlite_url)


async def test_costs_are_booked_and_told_by_model(command: Command) -> None:
    await command.book(
        estimated_row("gen-1", "0.002"),
        estimated_row("gen-2", "0.002"),
        estimated_row("gen-3", None, model=ModelName("b/[two]")),
        estimated_row("gen-4", model=ModelName("b/[two]")),
        estimated_row(None, None, status=RequestStatus.INTERRUPTED, usage_source=UsageSource.NONE),
    )
    command.provider.bill("gen-1", "0.003")
    command.provider.bill("gen-2", "0.00199")
    command.provider.bill("gen-3", "0.5")

    tried = await command.json("--dry-run")
    assert (tried["dry_run"], tried["total"]["billed_usd"]) == (True, "0.50499")
    assert set((await command.billed()).values()) == {None}

    told = await command.json()
    assert [row["model"] for row in told["data"]] == ["a/one", "b/[two]"]
    assert told["data"][0] == {
        "model": "a/one",
        "asked": 2,
        "billed": 2,
        "not_found": 0,
        "given_up": 0,
        "no_answer": 0,
        "unanswered": 0,
        "estimated_usd": "0.004",
        "billed_usd": "0.00499",
        "billed_without_estimate_usd": "0",
        "drift_percent": "24.75",
    }
    second = told["data"][1]
    assert (second["asked"], second["unanswered"], second["drift_percent"]) == (2, 1, None)
    assert (told["cannot_be_asked"], told["stopped"], told["left_to_ask"]) == ({"interrupted": 1}, None, 0)
    costs = await command.billed()
    assert (costs["gen-1"], costs["gen-2"], costs["gen-3"], costs["gen-4"]) == ("0.003", "0.00199", "0.5", None)

    asked = len(command.provider.asked)
    code, out, _ = await command.run()
    assert (code, len(command.provider.asked)) == (0, asked)
    for whole in ("nothing to ask", "1 without an answer yet", "1 interrupted"):
        assert whole in out


async def test_the_table_has_all_that_is_needed_to_compare(sqlite_command: Command) -> None:
    command = sqlite_command
    await command.book(estimated_row("gen-1"), estimated_row("gen-2", None), estimated_row("gen-3"))
    command.provider.bill("gen-1", "0.001")
    command.provider.bill("gen-2", "0.25")
    code, out, err = await command.run()
    assert (code, err) == (0, "")
    line = next(line for line in out.splitlines() if line.startswith("a/one"))
    assert line.split() == ["a/one", "3", "0.002", "0.001", "(+", "0.25)", "-50.00", "1"]
    assert next(line for line in out.splitlines() if line.startswith("total")).split()[1:] == line.split()[1:]


async def test_since_and_limit_choose_the_rows(sqlite_command: Command) -> None:
    command = sqlite_command
    await command.book(
        *(
            estimated_row(f"gen-{day}", timestamp=estimated_row(None).timestamp.replace(day=day), usage_source=used)
            for day, used in ((10, UsageSource.ESTIMATED), (11, UsageSource.NONE), (12, UsageSource.ESTIMATED))
        )
    )
    assert (await command.json("--since", "2026-11-11T13:00+01:00", "--limit", "1"))["total"]["asked"] == 1
    assert command.provider.asked == ["gen-11"]
    code, _, err = await command.run("--since", "yesterday")
    assert code == 2
    assert "is not a time like" in err


@pytest.mark.parametrize(("status", "why"), [(402, "no credits left"), (401, "OPENROUTER_API_KEY")])
async def test_a_refusal_is_told_and_what_was_booked_stays(sqlite_command: Command, status: int, why: str) -> None:
    command = sqlite_command
    start = estimated_row(None).timestamp
    await command.book(
        *(
            estimated_row(f"gen-{hour}", timestamp=start.replace(hour=hour), status=RequestStatus.SUCCESS)
            for hour in (1, 2)
        )
    )
    command.provider.bill("gen-1", "0.001")
    command.provider.fail("gen-2", status)
    process = await command.start("--json", "--rate", "1")
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert why in err.decode()
    assert "Traceback" not in err.decode()
    told = json.loads(out)
    assert (told["total"]["billed"], told["left_to_ask"]) == (1, 1)
    assert why in told["stopped"]
    assert (await command.billed())["gen-1"] == "0.001"
    command.provider.bill("gen-2", "0.004")
    assert (await command.json())["total"]["asked"] == 1


async def test_it_can_be_stopped_and_goes_on_where_it_was(sqlite_command: Command) -> None:
    command = sqlite_command
    await command.book(*(estimated_row(f"gen-{number}") for number in range(30)))
    for number in range(30):
        command.provider.bill(f"gen-{number}", "0.001")
    process = await command.start("--rate", "4")
    async with asyncio.timeout(60):
        while len(command.provider.asked) < 3:
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert b"run it again to go on" in err
    assert b"Traceback" not in err
    assert b"a/one" in out
    booked = sum(cost is not None for cost in (await command.billed()).values())
    assert 1 <= booked < 30
    assert (await command.json())["total"]["billed"] == 30 - booked
    assert set((await command.billed()).values()) == {"0.001"}


async def test_two_at_once_book_the_same(command: Command) -> None:
    await command.book(*(estimated_row(f"gen-{number}") for number in range(40)))
    for number in range(40):
        command.provider.bill(f"gen-{number}", "0.001")
    results = await asyncio.gather(command.run(), command.run())
    assert [code for code, _, _ in results] == [0, 0], results
    assert list((await command.billed()).values()) == ["0.001"] * 40
    assert (await command.json())["total"]["asked"] == 0


async def test_a_terminal_shows_a_bar(sqlite_command: Command) -> None:
    command = sqlite_command
    await command.book(*(estimated_row(f"gen-{number}") for number in range(4)))
    terminal, end = pty.openpty()
    process = await command.start("--rate", "4", stderr=end, env={**command.environment, "TERM": "xterm"})
    os.close(end)
    shown = b""
    async with asyncio.timeout(60):
        while chunk := await asyncio.to_thread(_read, terminal):
            shown += chunk
        await process.communicate()
    os.close(terminal)
    assert b"asking the provider" in shown
    assert b"/4" in shown


def _read(terminal: int) -> bytes:
    """Empty at the end, which Linux tells as an error."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


async def test_of_several_providers_each_is_asked_and_all_are_told_together(
    sqlite_command: Command, tmp_path: Path
) -> None:
    there = {"kind": "openrouter", "base_url": sqlite_command.provider.url}
    providers = {"shut": {**there, "api_key": "${SHUT_KEY}"}, "open": {**there, "api_key": "${OPENROUTER_API_KEY}"}}
    config = {"providers": providers, "models": {"m": {"deployments": [{"provider": "open", "model": "m"}]}}}
    (tmp_path / "gateway.yaml").write_text(json.dumps(config), "utf-8")
    sqlite_command.environment |= {"LLMGATEWAY_CONFIG": str(tmp_path / "gateway.yaml"), "SHUT_KEY": "sk-or-of-another"}
    del sqlite_command.environment["OPENROUTER_BASE_URL"]
    interrupted = {"status": RequestStatus.INTERRUPTED, "usage_source": UsageSource.NONE}
    for provider in providers:
        await sqlite_command.book(
            *(estimated_row(f"gen-{provider}-{number}", provider_name=provider) for number in range(3)),
            estimated_row(None, None, provider_name=provider, **interrupted),
        )
    for number in range(3):
        sqlite_command.provider.bill(f"gen-open-{number}", "0.001")

    code, out, err = await sqlite_command.run("--json", "--limit", "2")
    told = json.loads(out)
    assert (code, told["total"]["billed"], told["left_to_ask"], told["cannot_be_asked"]) == (
        1,
        2,
        2,
        {"interrupted": 2},
    )
    assert told["stopped"].startswith("shut: it does not accept the key (HTTP 401)")
    assert "shut: it does not" in err
    code, out, _ = await sqlite_command.run("--json")
    told = json.loads(out)
    assert (code, told["total"]["billed"], told["left_to_ask"]) == (1, 1, 3)


async def test_the_demo_upstream_cannot_be_asked(tmp_path: Path, sqlite_command: Command) -> None:
    sqlite_command.environment = clean_environment(LLMGATEWAY_DATA_DIR=str(tmp_path / "data"))
    code, _, err = await sqlite_command.run()
    assert code == 1
    assert "demo upstream" in err
    assert not (tmp_path / "data").exists()
