"""Taking the upstream's prices in: from a real server into the table, on both engines."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from proxy.domain.pricing import PriceSource
from proxy.infrastructure.endpoint import ProviderEndpoint
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.model_pricing import PiccoloModelPricing
from proxy.infrastructure.price_book import RefreshingPriceBook
from proxy.infrastructure.price_sync import PriceListUnavailable, PriceSync, price_list, syncing
from tests.conftest import StartGateway
from tests.harness import Upstream, says
from tests.persistence.test_model_prices import NOON

GLM = "z-ai/glm-4.6"


def listed(model: str = GLM, prompt: Any = "0.0000005", completion: Any = "0.00000175", **more: Any) -> dict[str, Any]:
    pricing = {"prompt": prompt, "completion": completion, **more}
    return {"id": model, "context_length": 202_752, "pricing": pricing}


@pytest.fixture
async def sync(database: Database, upstream: Upstream) -> AsyncIterator[PriceSync]:
    async with aiohttp.ClientSession() as session:
        yield PriceSync(session, ProviderEndpoint(upstream.url, {}), PiccoloModelPricing(database))


def parsed(*models: Any) -> Any:
    return price_list(json.dumps({"data": models}).encode(), NOON)


# Reading the list


def test_prices_per_token_become_exact_prices_per_million() -> None:
    (price,) = parsed(
        listed(
            prompt="0.00000025",
            completion="0.0000019999999999999999",
            request="0.01",
            audio="0.000001",
            image_token="0.0000003",
            internal_reasoning="0.0000025",
            audio_output="0.00008",
            image_output="0.04",
            input_cache_read="0.000000025",
            input_cache_write="0.00000033333333",
            input_cache_write_1h="0.000004",
        )
    ).prices
    assert price.input_cost_per_1m_tokens == Decimal("0.25")
    assert price.output_cost_per_1m_tokens == Decimal("1.9999999999999999")
    assert price.request_fee_usd == Decimal("0.01")
    assert price.audio_input_cost_per_1m_tokens == 1
    assert price.image_input_cost_per_1m_tokens == Decimal("0.3")
    assert price.reasoning_cost_per_1m_tokens == Decimal("2.5")
    assert price.audio_output_cost_per_1m_tokens == 80
    assert price.image_output_cost_per_1m_tokens is None  # theirs is for a picture
    assert price.cached_input_cost_per_1m_tokens == Decimal("0.025")
    assert price.cache_write_cost_per_1m_tokens == Decimal("0.33333333")
    assert price.cache_write_1h_cost_per_1m_tokens == 4
    assert (price.provider, price.max_context_tokens, price.source) == ("z-ai", 202_752, PriceSource.SYNC)
    assert price.valid_from == NOON


def test_prices_of_long_prompts_become_tiers_and_those_of_an_hour_of_the_day_do_not() -> None:
    """OpenRouter's are from so many tokens on, ours above so many."""
    long: dict[str, Any] = {"min_prompt_tokens": 200_000, "prompt": "0.0000025", "input_cache_read": "0.00000025"}
    longest = {"min_prompt_tokens": 500_000, "prompt": "0.000005", "completion": "0.00003", "image": "0.1"}
    by_night = {**long, "min_prompt_tokens": 100_000, "utc_start": 100, "utc_end": 900}
    odd: list[Any] = [{"utc_start": 1}, {"min_prompt_tokens": "5", "prompt": "1"}, {"min_prompt_tokens": 9}, None, 5]
    odd += [{**long, "min_prompt_tokens": 10**15}, {**long, "min_prompt_tokens": 600_000, "completion": "-1"}]
    (price,) = parsed(listed(overrides=[long, by_night, longest, *odd])).prices
    assert [tier.told() for tier in price.tiers] == [
        {"above_input_tokens": 499_999, "input_cost_per_1m_tokens": "5", "output_cost_per_1m_tokens": "30"},
        {"above_input_tokens": 199_999, "input_cost_per_1m_tokens": "2.5", "cached_input_cost_per_1m_tokens": "0.25"},
    ]
    others: tuple[Any, ...] = (None, [], "x", {"min_prompt_tokens": 5})
    for overrides in others:
        (plain,) = parsed(listed(overrides=overrides)).prices
        assert plain.tiers == ()


def test_zero_means_free_for_all_tokens_and_no_price_of_their_own_for_some() -> None:
    """OpenRouter lists "0" for what it does not charge apart; such tokens are not free."""
    zeros = dict.fromkeys(("request", "audio", "image_token", "internal_reasoning", "input_cache_read"), "0")
    (free,) = parsed(listed(prompt="0", completion="0", **zeros)).prices
    assert free.input_cost_per_1m_tokens == free.output_cost_per_1m_tokens == 0
    assert free.request_fee_usd is None
    assert free.reasoning_cost_per_1m_tokens is None
    assert free.cached_input_cost_per_1m_tokens is None


def test_a_price_for_a_whole_picture_is_not_one_for_tokens() -> None:
    (price,) = parsed(listed(image="0.003613")).prices
    assert price.image_input_cost_per_1m_tokens is None


def test_numbers_are_read_as_exactly_as_text() -> None:
    body = b'{"data": [{"id": "a/b", "pricing": {"prompt": 0.00000012345678901234567890, "completion": 1e-7}}]}'
    (price,) = price_list(body, NOON).prices
    assert price.input_cost_per_1m_tokens == Decimal("0.12345678901234567890")
    assert price.output_cost_per_1m_tokens == Decimal("0.1")
    assert price.max_context_tokens is None


@pytest.mark.parametrize(
    "model",
    [
        listed("openrouter/auto", "-1", "-1"),
        listed(prompt="-1"),
        listed(completion="-1"),
        listed(request="-1"),
        listed(input_cache_read="-1"),
        listed(prompt="free"),
        listed(prompt="NaN"),
        listed(prompt="Infinity"),
        listed(prompt="1e999999999"),
        listed(prompt="1e-999999999"),
        listed(prompt="1000"),
        listed(prompt=None),
        listed(prompt=True),
        listed(prompt=["0.1"]),
        listed(audio="loud"),
        listed(""),
        listed("x" * 256),
        listed("nul\0"),
        {"id": "a/b"},
        {"id": "a/b", "pricing": None},
        {"id": "a/b", "pricing": {}},
        {"id": 5, "pricing": {"prompt": "0", "completion": "0"}},
        {"pricing": {"prompt": "0", "completion": "0"}},
        "a/b",
        None,
    ],
)
def test_a_model_without_a_fixed_price_is_ignored_and_the_others_are_not(model: Any) -> None:
    result = parsed(model, listed("good/model"))
    assert [price.model.value for price in result.prices] == ["good/model"]
    assert result.ignored == 1


@pytest.mark.parametrize("length", [0, -5, "many", None, 2**40, 1.5, True])
def test_a_context_window_that_cannot_be_is_not_known(length: Any) -> None:
    (price,) = parsed({**listed(), "context_length": length}).prices
    assert price.max_context_tokens is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"data": null}', b'{"data": {}}', b"[" * 100_000])
def test_what_is_no_list_is_said_so(body: bytes) -> None:
    with pytest.raises(PriceListUnavailable):
        price_list(body, NOON)


# Taking it in


async def test_a_sync_writes_what_differs_once(database: Database, sync: PriceSync, upstream: Upstream) -> None:
    upstream.models = [listed(), listed("new/model"), listed("openrouter/auto", "-1", "-1")]
    dry, ignored = await sync.run(dry_run=True)
    assert (dry.added, dry.changed, ignored) == (("new/model",), (GLM,), 1)
    assert (await sync.run())[0] == dry
    again, _ = await sync.run()
    assert (again.added, again.changed, again.unchanged) == ((), (), (GLM, "new/model"))

    prices = PiccoloModelPricing(database)
    rows = await prices.history(GLM)
    assert [(str(row.input_cost_per_1m_tokens), row.source) for row in rows] == [("0.5", "sync"), ("0.0001", "seed")]
    upstream.models = [listed(prompt="0.0000004")]
    assert (await sync.run())[0].changed == (GLM,)
    assert [str(row.input_cost_per_1m_tokens) for row in await prices.history(GLM)] == ["0.4", "0.5", "0.0001"]
    assert len(await prices.get_all()) == 4, "a model that is no longer listed keeps its price"


async def test_two_syncs_at_once_write_no_duplicates(database: Database, sync: PriceSync, upstream: Upstream) -> None:
    upstream.models = [listed(f"many/{number}") for number in range(80)]
    results = await asyncio.gather(*(sync.run() for _ in range(3)))
    assert sorted(len(changes.added) for changes, _ in results) == [0, 0, 80]
    assert len(await database.model_price_history.select()) == 83


async def test_an_upstream_that_gives_no_list_is_said_so(sync: PriceSync, upstream: Upstream) -> None:
    upstream.models_status = 500
    with pytest.raises(PriceListUnavailable, match="HTTP 500"):
        await sync.run()


async def test_an_upstream_that_is_not_there_is_said_so(database: Database) -> None:
    async with aiohttp.ClientSession() as session:
        sync = PriceSync(session, ProviderEndpoint("http://127.0.0.1:1/", {}), PiccoloModelPricing(database))
        with pytest.raises(PriceListUnavailable, match="ClientConnectorError"):
            await sync.run()


# Now and then, in the background


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_prices_are_taken_in_again_and_again(database: Database, sync: PriceSync, upstream: Upstream) -> None:
    prices = PiccoloModelPricing(database)
    book = RefreshingPriceBook(prices)
    await book.load()

    async def costs(usd: str) -> bool:
        return book.current()[GLM].input_cost_per_1m_tokens == Decimal(usd)

    async with syncing(sync, 0.02, book.refresh, jitter=lambda: 0.5):
        for prompt, usd in (("0.000003", "3"), ("0.000004", "4")):
            upstream.models = [listed(prompt=prompt)]
            await until(lambda usd=usd: costs(usd))


async def test_a_sync_that_fails_is_a_warning_and_nothing_more(
    sync: PriceSync, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.models_status = 503

    async def nothing() -> None:
        raise AssertionError("nothing has changed")

    async def warned_twice() -> bool:
        return len(caplog.records) >= 2

    with caplog.at_level(logging.WARNING, "proxy"):
        async with syncing(sync, 0.01, nothing):
            await until(warned_twice)
    assert {record.__dict__["reason"] for record in caplog.records} == {"it answered HTTP 503"}


async def test_a_running_gateway_takes_prices_in_and_prices_requests_by_them(
    start_gateway: StartGateway, upstream: Upstream, sqlite_url: str
) -> None:
    upstream.models = [listed(prompt="0.1", completion="0")]
    gateway = await start_gateway(prices_sync_seconds=0.05, database_url=sqlite_url)
    estimated: list[Decimal | None] = []

    async def at_the_new_price() -> bool:
        await gateway.chat()
        rows = await gateway.rows(len(estimated) + 1)
        estimated.append(rows[0].estimated_cost.usd if rows[0].estimated_cost else None)
        return estimated[-1] == 1  # 10 tokens in at 0.1 each

    await until(at_the_new_price)


async def test_zero_seconds_is_never(start_gateway: StartGateway, upstream: Upstream, sqlite_url: str) -> None:
    upstream.models = [listed()]
    upstream.answer(says())
    gateway = await start_gateway(prices_sync_seconds=0)
    await gateway.chat()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "price sync"]
