"""`llmgateway prices`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner

from proxy.cli import main
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.sessions import session
from tests.harness import Upstream
from tests.process.conftest import clean_environment

GLM = "z-ai/glm-4.6"
SEEDED = ("deepseek-ai/DeepSeek-V3.1-Terminus", "moonshotai/Kimi-K2-Instruct-0905", GLM)


class Prices:
    """The command on one database."""

    def __init__(self, **settings: str) -> None:
        self._settings = settings

    async def run(self, *arguments: str) -> tuple[int | None, str, str]:
        """Exit code, standard output, standard error. In this process, since a new one takes a second to start."""
        environment = clean_environment(**self._settings)
        absent: dict[str, str | None] = dict.fromkeys(os.environ.keys() - environment.keys())
        run = partial(CliRunner().invoke, main, ["prices", *arguments], env={**absent, **environment})
        done = await asyncio.wait_for(asyncio.to_thread(run), 60)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return done.exit_code, done.stdout, done.stderr

    async def json(self, *arguments: str) -> Any:
        """What it says to a machine."""
        code, out, err = await self.run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    async def refused(self, *arguments: str) -> str:
        """Why it will not."""
        code, out, err = await self.run(*arguments)
        assert code != 0, out
        return err


class PricesOnTheirOwn(Prices):
    """The same, each time in a process of its own, as it is used."""

    async def run(self, *arguments: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "prices", *arguments),
            env=clean_environment(**self._settings),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert b"Traceback" not in err, err.decode()
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
def prices(database_url: str) -> Prices:
    return Prices(DATABASE_URL=database_url)


@pytest.fixture
def sqlite_prices(tmp_path: Path, sqlite_url: str) -> Prices:
    return Prices(DATABASE_URL=sqlite_url, LLMGATEWAY_DATA_DIR=str(tmp_path))


async def test_prices_are_listed_set_and_remembered(prices: Prices) -> None:
    listed = await prices.json("list")
    assert tuple(row["model"] for row in listed) == SEEDED
    assert {(row["source"], row["valid_from"]) for row in listed} == {("seed", "1970-01-01T00:00:00+00:00")}
    assert listed[2]["input_cost_per_1m_tokens"] == "0.0001"

    options = ("--input", "0.60", "--output", "2.2", "--cached-input", "0.11", "--reasoning", "3")
    row = await prices.json("set", GLM, *options, "--request-fee", "0.001")
    assert (row["source"], row["max_context_tokens"]) == ("set", 128_000)
    assert (await prices.json("list"))[2] == row
    assert row["input_cost_per_1m_tokens"] == "0.6"
    assert row["cached_input_cost_per_1m_tokens"] == "0.11"
    assert row["cache_write_cost_per_1m_tokens"] is None
    assert await prices.json("history", GLM) == [row, listed[2]]

    _, table, _ = await prices.run("list")
    line = next(line for line in table.splitlines() if line.startswith(GLM))
    assert line.split()[1:] == ["0.6", "2.2", "0.11", "3", "0.001", "128000", *line.split()[7:9], "set"]
    assert "the beginning" in table


async def test_what_is_spoken_drawn_or_kept_for_an_hour_has_prices_of_its_own(sqlite_prices: Prices) -> None:
    options = ("--audio-output", "80", "--image-output", "30", "--cache-write-1h", "6")
    row = await sqlite_prices.json("set", GLM, "--input", "2.5", "--output", "10", *options)
    names = ("audio_output", "image_output", "cache_write_1h")
    assert [row[f"{name}_cost_per_1m_tokens"] for name in names] == ["80", "30", "6"]
    _, table, _ = await sqlite_prices.run("history", GLM)
    heading, line, *_ = table.splitlines()
    assert {"audio out", "image out", "for 1 h"} <= set(re.split(r"\s{2,}", heading))
    assert line.split()[1:6] == ["2.5", "10", "6", "80", "30"]


async def test_long_requests_and_service_tiers_have_prices_of_their_own(sqlite_prices: Prices) -> None:
    tiers = ("--tier", "service_tier=flex, input=0.60", "--tier", "above-input-tokens=200000,input=2.5,output=15")
    row = await sqlite_prices.json("set", GLM, "--input", "1.25", "--output", "10", *tiers)
    assert row["tiers"] == [
        {"service_tier": "flex", "input_cost_per_1m_tokens": "0.6"},
        {"above_input_tokens": 200_000, "input_cost_per_1m_tokens": "2.5", "output_cost_per_1m_tokens": "15"},
    ]
    assert (await sqlite_prices.json("history", GLM))[0] == row
    _, table, _ = await sqlite_prices.run("history", GLM)
    cells = [re.split(r"\s{2,}", line.strip())[:4] for line in table.splitlines()]
    assert cells[:4] == [
        ["model", "only for", "input", "output"],
        [GLM, "-", "1.25", "10"],
        [GLM, "flex", "0.6", "10"],
        [GLM, "> 200000 tokens in", "2.5", "15"],
    ]


async def test_a_process_of_its_own_says_the_same(sqlite_prices: Prices, sqlite_url: str) -> None:
    alone = PricesOnTheirOwn(DATABASE_URL=sqlite_url)
    row = await alone.json("set", GLM, "--input", "1", "--output", "2", "--request-fee", "0.001")
    listed, history = await alone.json("list"), await alone.json("history", GLM)
    assert listed == await sqlite_prices.json("list")
    assert history == await sqlite_prices.json("history", GLM)
    assert listed[2] == history[0] == row


async def test_a_price_may_begin_later_or_have_begun_before(sqlite_prices: Prices) -> None:
    prices = sqlite_prices
    later = (
        "set",
        "new/model",
        "--input",
        "1",
        "--output",
        "2",
        "--context",
        "5",
        "--from",
        "2999-01-01T01:00:00+01:00",
    )
    row = await prices.json(*later)
    assert (row["valid_from"], row["provider"], row["max_context_tokens"]) == ("2999-01-01T00:00:00+00:00", "new", 5)
    assert "new/model" not in {row["model"] for row in await prices.json("list")}
    refused = await prices.refused(*later)
    assert "has a price from that very moment on already" in refused
    code, out, _ = await prices.run("set", GLM, "--input", "7", "--output", "8", "--from", "2026-01-01")
    assert code == 0
    assert "from 2026-01-01 00:00:00 on" in out
    assert [row["input_cost_per_1m_tokens"] for row in await prices.json("history", GLM)] == ["7", "0.0001"]


_PLAIN = ("--input", "1", "--output", "1")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--input", "-1", "--output", "1"), ("--input", "negative")),
        (("--input", "1", "--output", "NaN"), ("--output", "finite")),
        (("--input", "1", "--output", "Infinity"), ("--output", "finite")),
        (("--input", "cheap", "--output", "1"), ("--input", "not a number")),
        (("--input", "1", "--output", "1", "--cached-input", "-0.1"), ("--cached-input", "negative")),
        (("--input", "1", "--output", "1", "--request-fee", "1e999999999999999999999"), ("--request-fee",)),
        (("--input", "1"), ("--output", "Missing")),
        ((*_PLAIN, "--tier", "input=1"), ("--tier", "above_input_tokens, service_tier, or both")),
        ((*_PLAIN, "--tier", "service-tier=flex"), ("--tier", "at least one price")),
        ((*_PLAIN, "--tier", "service-tier=default,input=1"), ("--tier", "like flex or priority")),
        ((*_PLAIN, "--tier", "above-input-tokens=many,input=1"), ("--tier", "not a valid integer")),
        ((*_PLAIN, "--tier", "above-input-tokens=0,input=1"), ("--tier", "from 1")),
        ((*_PLAIN, "--tier", "service-tier=flex,input=-1"), ("--tier", "negative")),
        ((*_PLAIN, "--tier", "service-tier=flex,price=1"), ("--tier", "cached-input")),
        ((*_PLAIN, "--tier", "above-input-tokens=5,input=1,input=2"), ("--tier", "input is given twice")),
        ((*_PLAIN, *("--tier", "service-tier=flex,input=1") * 2), ("--tier", "same above_input_tokens")),
        (("--input", "1", "--output", "1", "--context", "0"), ("--context",)),
        (("--input", "1", "--output", "1", "--from", "tomorrow"), ("--from", "2026-12-01")),
        (("--input", "1", "--output", "1", "--from", "1969-12-31"), ("1970",)),
    ],
)
async def test_what_cannot_be_a_price_is_refused_by_name(
    sqlite_prices: Prices, options: tuple[str, ...], named: tuple[str, ...]
) -> None:
    refused = await sqlite_prices.refused("set", GLM, *options)
    for word in named:
        assert word in refused


async def test_a_model_without_a_price_is_said_so(sqlite_prices: Prices) -> None:
    assert "nobody/knows has no price" in await sqlite_prices.refused("history", "nobody/knows")


async def test_the_demo_upstream_has_no_prices_to_sync(sqlite_prices: Prices) -> None:
    code, out, err = await sqlite_prices.run("sync")
    assert (code, out) == (1, "")
    assert "nothing to sync from" in err
    assert "OPENROUTER_API_KEY" in err


async def test_the_upstreams_prices_are_taken_over(database_url: str, upstream: Upstream) -> None:
    prices = Prices(DATABASE_URL=database_url, OPENROUTER_BASE_URL=upstream.url, OPENROUTER_API_KEY="sk-or-secret")
    upstream.models = [
        {"id": GLM, "context_length": 5, "pricing": {"prompt": "0.0000006", "completion": "0.0000022"}},
        {"id": "new/model", "pricing": {"prompt": "0", "completion": "0.00000025", "input_cache_read": "0.00000001"}},
        {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}},
    ]
    before = await prices.json("list")
    dry = await prices.json("sync", "--dry-run")
    counts = {"added": 1, "changed": 1, "unchanged": 0, "ignored": 1}
    assert dry == {"dry_run": True, "added": ["new/model"], "changed": [GLM], "counts": counts}
    assert await prices.json("list") == before

    code, out, _ = await prices.run("sync")
    assert code == 0
    assert out.splitlines()[-1] == "1 added, 1 changed, 0 unchanged; 1 without a fixed price ignored"
    assert "added    new/model" in out
    listed = {row["model"]: row for row in await prices.json("list")}
    assert listed[GLM]["input_cost_per_1m_tokens"] == "0.6"
    assert listed["new/model"]["cached_input_cost_per_1m_tokens"] == "0.01"
    assert listed[SEEDED[0]]["source"] == "seed"
    assert (await prices.json("sync"))["counts"] == {"added": 0, "changed": 0, "unchanged": 2, "ignored": 1}
    async with open_database(database_url) as database, session(database) as reader:
        ((action, after),) = await reader.fetch("SELECT action, after FROM audit_log")  # not for what changed nothing
    assert (action, json.loads(after)) == ("sync", {"added": ["new/model"], "changed": [GLM]})


async def test_an_upstream_without_a_list_is_said_so(sqlite_url: str, upstream: Upstream) -> None:
    upstream.models_status = 401
    settings = {"DATABASE_URL": sqlite_url, "OPENROUTER_BASE_URL": upstream.url, "OPENROUTER_API_KEY": "sk-or-secret"}
    prices = PricesOnTheirOwn(**settings)
    refused = await prices.refused("sync")
    assert "cannot be read: it answered HTTP 401" in refused
    assert "sk-or-secret" not in refused


async def test_a_provider_without_a_list_keeps_nobody_from_the_prices_of_the_others(
    sqlite_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.models = [{"id": "a/one", "pricing": {"prompt": "0.000001", "completion": "0.000002"}}]
    there = {"kind": "openrouter", "api_key": "${OPENROUTER_API_KEY}"}
    urls = {"first": upstream.url, "gone": "http://127.0.0.1:1/api/v1/", "last": upstream.url}
    config = {
        "providers": {name: {**there, "base_url": url} for name, url in urls.items()},
        "models": {"m": {"deployments": [{"provider": "last", "model": "m"}]}},
    }
    (tmp_path / "gateway.yaml").write_text(json.dumps(config), "utf-8")
    path = str(tmp_path / "gateway.yaml")
    prices = Prices(DATABASE_URL=sqlite_url, LLMGATEWAY_CONFIG=path, OPENROUTER_API_KEY="sk-or-x")
    assert "gone: ClientConnectorError\n" in await prices.refused("sync", "--dry-run")
    told = await prices.refused("sync")
    assert "gone: ClientConnectorError; the other providers' prices are taken over" in told
    assert (await prices.json("history", "a/one"))[0]["source"] == "sync"
    async with open_database(sqlite_url) as database, session(database) as reader:
        ((noted,),) = await reader.fetch("SELECT after FROM audit_log WHERE action = 'sync'")
    assert json.loads(noted)["added"] == ["a/one"]


async def test_a_price_that_a_later_one_supersedes_says_until_when_it_holds(sqlite_prices: Prices) -> None:
    """Who sets a price from some time ago on would take it for the one in force."""
    costs = ("--input", "1", "--output", "2", "--from")
    _, out, _ = await sqlite_prices.run("set", "m/x", *costs, "2026-03-01")
    assert out.startswith("m/x costs this from 2026-03-01 00:00:00 on:")
    await sqlite_prices.run("set", "m/x", *costs, "2026-04-01")
    _, out, _ = await sqlite_prices.run("set", "m/x", *costs, "2026-02-01")
    assert out.startswith("m/x costs this from 2026-02-01 00:00:00 to 2026-03-01 00:00:00, when its next price begins:")


async def test_a_provider_is_asked_with_the_headers_that_it_needs(sqlite_url: str, tmp_path: Path) -> None:
    """As the gateway itself asks it."""
    asked: list[str | None] = []

    async def models(request: web.Request) -> web.Response:
        asked.append(request.headers.get("X-Account"))
        return web.json_response({"data": [{"id": "a/one", "pricing": {"prompt": "0.000001", "completion": "0"}}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    async with TestServer(app) as server:
        provider = {
            "kind": "openrouter",
            "base_url": str(server.make_url("/v1")),
            "headers": {"X-Account": "${ACCOUNT}"},
        }
        config = {"providers": {"p": provider}, "models": {"m": {"deployments": [{"provider": "p", "model": "m"}]}}}
        (tmp_path / "gateway.yaml").write_text(json.dumps(config), "utf-8")
        path = str(tmp_path / "gateway.yaml")
        await Prices(DATABASE_URL=sqlite_url, LLMGATEWAY_CONFIG=path, ACCOUNT="ours").json("sync")
    assert asked == ["ours"]


async def test_every_command_has_help(sqlite_prices: Prices) -> None:
    for command in ("list", "history", "set", "sync"):
        code, out, _ = await sqlite_prices.run(command, "--help")
        assert code == 0
        assert "--json" in out
