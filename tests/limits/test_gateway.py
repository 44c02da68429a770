"""Limits as clients and operators see them: a whole gateway on sockets."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError
from redis import Redis

from proxy.application.allowances import Rulebook
from proxy.domain.access.scopes import EACH, GATEWAY, Scope, Subject
from proxy.domain.errors import InvalidValue
from proxy.domain.rate_limits import RateLimit
from proxy.settings import Settings, explain
from tests.conftest import StartGateway
from tests.harness import HELLO, TestGateway, Upstream, fails, says, stall, streams
from tests.valkey import Valkey


def rules(subject: Subject = GATEWAY, **limits: Any) -> dict[str, Any]:
    book = Rulebook(limits=[RateLimit(id=uuid4(), subject=subject, **limits)])
    return {"rules": lambda: book}


async def test_the_headers_are_openais_and_the_refusal_too(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**rules(requests_per_minute=2, tokens_per_minute=100_000))
    status, headers, _ = await gateway.chat()
    assert status == 200
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "1"
    assert headers["x-ratelimit-limit-tokens"] == "100000"
    assert headers["x-ratelimit-reset-requests"] == "2m0s"
    await gateway.chat()
    status, headers, body = await gateway.chat()
    assert status == 429
    assert body["error"]["type"] == "rate_limit_error"
    assert body["error"]["code"] == "rate_limit_exceeded"
    assert body["error"]["message"].startswith(
        "Rate limit reached for the gateway on requests per min (RPM): Limit 2, Used 2, Requested 1. Please try again"
    )
    assert 85 <= int(headers["retry-after"]) <= 91
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert [row.status.value for row in await gateway.rows(3)].count("refused") == 1


async def test_each_model_has_its_own_limit(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**rules(Subject(Scope.MODEL, EACH), requests_per_minute=1))
    assert (await gateway.chat())[0] == 200
    assert (await gateway.chat())[0] == 429
    assert (await gateway.chat({**HELLO, "model": "openai/gpt-4o"}))[0] == 200


async def test_end_users_have_their_own_limits(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**rules(Subject(Scope.END_USER, EACH), requests_per_minute=1))
    assert (await gateway.chat({**HELLO, "user": "a"}))[0] == 200
    assert (await gateway.chat({**HELLO, "user": "a"}))[0] == 429
    assert (await gateway.chat({**HELLO, "user": "b"}))[0] == 200
    assert (await gateway.chat())[0] == 200


async def test_a_place_is_free_after_every_kind_of_end(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(**rules(concurrent_requests=1), limit_queue_length=0, retry_max_retries=0)
    for answering in (says(), fails(400), fails(500), streams(b"data: nonsense\n\n")):
        upstream.answer(answering)
        status, _, _ = await gateway.raw_chat({**HELLO, "stream": True})
        assert status != 429
    await gateway.raw_chat(b"{}")
    upstream.answer(stall)  # type: ignore[arg-type]
    hanging = asyncio.create_task(gateway.raw_chat())
    while not upstream.calls:
        await asyncio.sleep(0.01)
    status, _, body = await gateway.chat()
    assert status == 429
    assert "concurrent requests" in body["error"]["message"]
    hanging.cancel()
    upstream.answer(says())
    async with asyncio.timeout(10):
        while (await gateway.raw_chat())[0] == 429:
            await asyncio.sleep(0.02)


async def health(gateway: TestGateway) -> dict[str, Any]:
    report: dict[str, Any] = (await gateway.get("/health"))[1]
    return report


async def test_health_says_that_limits_are_divided(gateway: TestGateway) -> None:
    limits = (await health(gateway))["limits"]
    assert limits["mode"] == "local"
    assert limits["local_processes"] == 1


async def test_gateways_beside_each_other_divide(start_gateway: StartGateway, tmp_path_factory: Any) -> None:
    directory = str(tmp_path_factory.mktemp("shared"))
    limited = rules(requests_per_minute=10)
    gateways = [await start_gateway(**limited, llmgateway_data_dir=directory) for _ in range(2)]
    async with asyncio.timeout(20):
        for gateway in gateways:
            while (await health(gateway))["limits"]["local_processes"] != 2:
                await asyncio.sleep(0.05)
    statuses = [(await gateway.raw_chat())[0] for gateway in gateways for _ in range(10)]
    assert statuses.count(200) == 10


async def test_a_valkey_that_is_away_at_the_start_is_warned_of(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that is lost later: limits let in as many times as much as there are gateways."""
    with caplog.at_level("WARNING", "proxy"):
        await start_gateway(llmgateway_valkey_url="valkey://127.0.0.1:9")
    (line,) = (record for record in caplog.records if "Valkey" in record.getMessage())
    assert line.levelname == "WARNING"
    assert "rate limits are local" in line.getMessage()


async def test_valkey_shares_and_its_loss_is_seen(start_gateway: StartGateway, valkey: Valkey) -> None:
    limited = rules(requests_per_minute=4)
    secret = valkey.url.replace("redis://", "valkey://:not-needed@")
    with Redis.from_url(valkey.url) as client:
        client.config_set("requirepass", "not-needed")
    gateways = [
        await start_gateway(**limited, llmgateway_valkey_url=secret, valkey_deadline_seconds=0.5) for _ in range(2)
    ]
    statuses = [(await gateway.raw_chat())[0] for gateway in gateways for _ in range(3)]
    assert statuses.count(200) == 4
    valkey.kill()
    _, headers, _ = await gateways[1].raw_chat()
    assert headers["x-gateway-limits"] == "local"
    report = await health(gateways[1])
    assert report["status"] == "degraded"
    assert report["limits"]["valkey"] == "down"
    assert "not-needed" not in str(report)


@pytest.mark.parametrize("url", ["http://:pass@host", "host-without-scheme", "memory://"])
def test_a_wrong_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValidationError, match="must begin with valkey") as caught:
        Settings.model_validate({"llmgateway_valkey_url": url})
    assert url not in "".join(explain(caught.value))


@pytest.mark.parametrize("options", ["nosuchoption=1", "socket_connect_timeout=soon"])
async def test_an_option_that_the_client_does_not_know_ends_the_start_with_the_settings_name(
    start_gateway: StartGateway, options: str
) -> None:
    with pytest.raises(InvalidValue, match=r"^LLMGATEWAY_VALKEY_URL: ") as refused:
        await start_gateway(llmgateway_valkey_url=f"redis://:secret@127.0.0.1:1/0?{options}")
    assert "secret" not in str(refused.value)
