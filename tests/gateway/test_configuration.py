"""A gateway with a configuration file: deployments behind public names, and changing the file while it runs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from proxy.config.problems import ConfigErrors
from proxy.domain.request_log import UsageSource
from proxy.domain.values import CostAmount
from tests.harness import (
    ADMINISTERED,
    AS_ADMIN,
    COMPLETION,
    HELLO,
    FakeTime,
    TestGateway,
    Upstream,
    chunk,
    ending,
    fails,
    gateway_over,
    says,
    streams,
)

KEY = "sk-upstream-secret"


@pytest.fixture
async def second() -> AsyncIterator[Upstream]:
    """Another provider."""
    other = Upstream()
    server = TestServer(other.app())
    await server.start_server(access_log=None)
    other.url = str(server.make_url("/api/v1/"))
    other.answer(says())
    yield other
    await server.close()


def model_file(first: Upstream, second: Upstream, **more: str) -> str:
    return f"""
providers:
  one: {{base_url: "{first.url}", api_key: "${{ONE_KEY}}", usage_in_streams: always, {more.get("one", "")}}}
  two: {{base_url: "{second.url}", usage_in_streams: always}}
models:
  fast:
    strategy: priority
    {more.get("fast", "")}
    deployments:
      - provider: one
        model: first/fast
        order: 1
        prices: {{input_usd_per_1m_tokens: 1, output_usd_per_1m_tokens: 2}}
      - {{provider: two, model: second/fast, order: 2}}
  large:
    deployments: [{{provider: two, model: second/large}}]
  "two/*":
    deployments: [{{provider: two, model: "*"}}]
aliases: {{quick: fast}}
fallbacks:
  {more.get("fallbacks", "general: {fast: [large]}")}
{more.get("rest", "")}
"""


Start = Callable[..., Awaitable[TestGateway]]


@pytest.fixture
async def start(tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setenv("ONE_KEY", KEY)
    async with AsyncExitStack() as stack:

        async def starting(text: str, timing: Any = None, **settings: Any) -> TestGateway:
            path = tmp_path / "gateway.yaml"
            path.write_text(text)
            return await stack.enter_async_context(
                gateway_over(
                    "http://127.0.0.1:9/", sqlite_url, timing, llmgateway_config=str(path), **ADMINISTERED, **settings
                )
            )

        yield starting


def asked(upstream: Upstream) -> list[str]:
    return [json.loads(body)["model"] for body in upstream.bodies]


async def test_a_public_name_goes_to_its_deployment_under_the_providers_name(
    start: Start, upstream: Upstream, second: Upstream
) -> None:
    gateway = await start(model_file(upstream, second))
    status, headers, _ = await gateway.chat({**HELLO, "model": "fast"})
    assert (status, asked(upstream), asked(second)) == (200, ["first/fast"], [])
    assert upstream.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert headers["x-gateway-provider"] == "one"
    row = await gateway.row()
    assert (row.requested_model, row.model.value, row.provider_name) == ("fast", "first/fast", "one")


async def test_aliases_and_wildcards(start: Start, upstream: Upstream, second: Upstream) -> None:
    gateway = await start(model_file(upstream, second))
    await gateway.chat({**HELLO, "model": "quick"})
    await gateway.chat({**HELLO, "model": "two/some/model:free"})
    assert (asked(upstream), asked(second)) == (["first/fast"], ["some/model:free"])
    status, _, body = await gateway.chat({**HELLO, "model": "three/x"})
    assert (status, body["error"]["code"]) == (404, "model_not_found")


async def test_another_deployment_is_asked_at_once_and_then_the_fallback(
    start: Start, upstream: Upstream, second: Upstream
) -> None:
    time = FakeTime()
    gateway = await start(model_file(upstream, second), time.timing())
    upstream.answer(fails(503))
    second.answer(says())
    status, headers, _ = await gateway.chat({**HELLO, "model": "fast"})
    assert (status, headers["x-gateway-attempts"], time.waits) == (200, "2", [])
    assert (asked(upstream), asked(second)) == (["first/fast"], ["second/fast"])
    upstream.answer(fails(503))
    second.answer(fails(500), fails(500), says())
    status, headers, _ = await gateway.chat({**HELLO, "model": "fast"})
    assert (status, headers["x-gateway-attempts"]) == (200, "4")
    assert (asked(upstream), asked(second)) == (["first/fast"], ["second/fast", "second/fast", "second/large"])
    assert (await gateway.rows(2))[0].was_fallback


async def test_a_full_outage_costs_four_calls_and_tells_of_all_of_them(
    start: Start, upstream: Upstream, second: Upstream
) -> None:
    gateway = await start(model_file(upstream, second))
    upstream.answer(*[fails(503)] * 9)
    second.answer(*[fails(500)] * 9)
    status, headers, body = await gateway.chat({**HELLO, "model": "fast"})
    assert (status, upstream.calls + second.calls, headers["x-should-retry"]) == (502, 4, "false")
    assert body["error"]["code"] == "all_providers_failed"
    assert [attempt["model"] for attempt in body["error"]["metadata"]["attempts"]] == [
        "first/fast",
        "second/fast",
        "second/large",
    ]


async def test_a_stream_falls_back_until_its_first_token(start: Start, upstream: Upstream, second: Upstream) -> None:
    gateway = await start(model_file(upstream, second))
    upstream.answer(streams(b": thinking\n\n"))
    second.answer(streams(chunk("hi"), *ending()))
    _, headers, raw = await gateway.raw_chat({**HELLO, "model": "fast", "stream": True})
    assert raw == b"".join([chunk("hi"), *ending()])
    assert headers["x-gateway-provider"] == "two"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("context_window", {"code": "context_length_exceeded", "type": "invalid_request_error", "message": "long"}),
        ("content_policy", {"code": "content_filter", "type": "invalid_request_error", "message": "no"}),
    ],
)
async def test_what_a_model_refuses_goes_to_the_chain_for_it(
    start: Start, upstream: Upstream, second: Upstream, kind: str, error: dict[str, str]
) -> None:
    gateway = await start(model_file(upstream, second, fallbacks=f"{kind}: {{fast: [large]}}"))
    upstream.answer(says({"error": error}, status=400))
    status, headers, _ = await gateway.chat({**HELLO, "model": "fast"})
    assert (status, headers["x-gateway-provider"]) == (200, "two")
    assert asked(second) == ["second/large"]


async def test_a_deployments_own_price_counts(start: Start, upstream: Upstream, second: Upstream) -> None:
    gateway = await start(model_file(upstream, second))
    upstream.answer(
        says(
            {
                **json.loads(json.dumps(HELLO)),
                "choices": [{"message": {"content": "x"}}],
                "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 500_000},
            }
        )
    )
    await gateway.chat({**HELLO, "model": "fast"})
    cost = (await gateway.row()).cost()
    assert cost is not None
    assert cost.usd == 2


_FLEX = {"service_tier": "flex"}
_TIERED = """{input_usd_per_1m_tokens: 1, output_usd_per_1m_tokens: 3, request_fee_usd: 0.0005, tiers: [
    {above_input_tokens: 1000, input_usd_per_1m_tokens: 4, output_usd_per_1m_tokens: 4},
    {service_tier: flex, request_fee_usd: 0},
    {service_tier: flex, above_input_tokens: 1000, input_usd_per_1m_tokens: 3.5, output_usd_per_1m_tokens: 4}]}"""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("input_tokens", "tier", "usd"),
    [
        (1000, "default", "0.003"),
        (1001, "default", "0.006504"),
        (1000, "flex", "0.0025"),
        (1001, "flex", "0.0060035"),
    ],
)
async def test_long_requests_and_those_of_a_service_tier_cost_what_they_do(
    start: Start, upstream: Upstream, second: Upstream, stream: bool, input_tokens: int, tier: str, usd: str
) -> None:
    plain = "{input_usd_per_1m_tokens: 1, output_usd_per_1m_tokens: 2}"
    gateway = await start(model_file(upstream, second).replace(plain, _TIERED))
    usage = {"prompt_tokens": input_tokens, "completion_tokens": 500}
    last = chunk(choices=[], usage=usage, service_tier=tier)
    told = {**COMPLETION, "usage": usage, "service_tier": tier}
    upstream.answer(streams(chunk("x"), last, b"data: [DONE]\n\n") if stream else says(told))
    assert (await gateway.raw_chat({**HELLO, "model": "fast", "stream": stream}))[0] == 200
    row = await gateway.row()
    assert row.estimated_cost == CostAmount(Decimal(usd))
    assert row.service_tier == (None if tier == "default" else tier)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("wished", "told", "usd"), [("flex", {}, "0"), ("flex", {"service_tier": "default"}, "1"), ("auto", _FLEX, "0")]
)
async def test_what_is_estimated_has_the_prices_of_the_tier_that_the_answer_names_if_it_names_one(
    start: Start, upstream: Upstream, second: Upstream, stream: bool, wished: str, told: dict[str, str], usd: str
) -> None:
    tiers = "tiers: [{service_tier: flex, request_fee_usd: 0}]"
    plain = "{input_usd_per_1m_tokens: 1, output_usd_per_1m_tokens: 2}"
    free = f"{{input_usd_per_1m_tokens: 0, output_usd_per_1m_tokens: 0, request_fee_usd: 1, {tiers}}}"
    gateway = await start(model_file(upstream, second).replace(plain, free))
    upstream.answer(
        streams(chunk("x", **told), chunk("y"), b"data: [DONE]\n\n")
        if stream
        else says({**COMPLETION, "usage": None, **told})
    )
    assert (await gateway.raw_chat({**HELLO, "model": "fast", "stream": stream, "service_tier": wished}))[0] == 200
    row = await gateway.row()
    assert (row.usage_source, row.estimated_cost) == (UsageSource.ESTIMATED, CostAmount(Decimal(usd)))


async def test_a_wrong_file_does_not_start(start: Start, upstream: Upstream, second: Upstream) -> None:
    with pytest.raises(ConfigErrors, match=r"gateway\.yaml:\d+: models\.fast\.strategi: unknown key"):
        await start(model_file(upstream, second, fast="strategi: x"))


async def test_a_reload_is_validated_whole_and_the_last_one_stays(
    start: Start, upstream: Upstream, second: Upstream, tmp_path: Path
) -> None:
    gateway = await start(model_file(upstream, second))
    path = tmp_path / "gateway.yaml"
    version = (await gateway.get("/health"))[1]["configuration"]["version"]
    path.write_text(model_file(upstream, second, fast="wieght: 1", rest="nonsense: true"))
    status, body = await reload(gateway)
    assert (status, body["type"]) == (422, "urn:llmgateway:invalid_configuration")
    assert len(body["errors"]) == 2
    health = (await gateway.get("/health"))[1]
    assert (health["status"], health["configuration"]["version"]) == ("degraded", version)
    assert len(health["configuration"]["problems"]) == 2
    assert (await gateway.chat({**HELLO, "model": "fast"}))[0] == 200
    path.write_text(model_file(upstream, second).replace("second/large", "second/larger"))
    status, body = await reload(gateway)
    assert (status, body["changed"], body["problems"]) == (200, True, [])
    await gateway.chat({**HELLO, "model": "large"})
    assert asked(second) == ["second/larger"]
    assert (await gateway.get("/health"))[1]["configuration"]["version"] != version


async def test_health_and_the_log_repeat_nothing_of_a_file_that_cannot_be_used(
    start: Start, upstream: Upstream, second: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start(model_file(upstream, second))
    (tmp_path / "gateway.yaml").write_text("providers: {fake: sk-plain-SECRET, sk-other-SECRET: {nonsense: 1}}")
    status, refusal = await reload(gateway)
    assert status == 422
    _, health = await gateway.get("/health")
    assert "providers.…: must be a mapping of keys to values" in health["configuration"]["problems"][0]
    logged = [record.__dict__ for record in caplog.records]
    assert "configuration not loaded, the last one stays" in caplog.messages
    for told in (health, refusal, logged):
        assert "SECRET" not in str(told)


async def test_a_changed_file_is_followed(start: Start, upstream: Upstream, second: Upstream, tmp_path: Path) -> None:
    gateway = await start(model_file(upstream, second))
    (tmp_path / "gateway.yaml").write_text(
        model_file(upstream, second).replace("  large:", "  grand:").replace("[large]", "[grand]")
    )
    async with asyncio.timeout(10):
        while (await gateway.chat({**HELLO, "model": "grand"}))[0] != 200:
            await asyncio.sleep(0.1)


async def test_a_mounted_directory_that_is_swapped_as_a_whole_is_followed(
    start: Start, upstream: Upstream, second: Upstream, tmp_path: Path
) -> None:
    """As Kubernetes changes a ConfigMap: what the file's name leads to is another file, however old."""
    for name in ("..first", "..second"):
        (tmp_path / name).mkdir()
    (tmp_path / "..data").symlink_to("..first")
    (tmp_path / "gateway.yaml").symlink_to("..data/gateway.yaml")
    gateway = await start(model_file(upstream, second))
    new = tmp_path / "..second" / "gateway.yaml"
    new.write_text(model_file(upstream, second).replace("  large:", "  grand:").replace("[large]", "[grand]"))
    facts = (tmp_path / "gateway.yaml").stat()
    os.utime(new, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    (tmp_path / "..new").symlink_to("..second")
    (tmp_path / "..new").rename(tmp_path / "..data")
    async with asyncio.timeout(10):
        while (await gateway.chat({**HELLO, "model": "grand"}))[0] != 200:
            await asyncio.sleep(0.1)


async def test_a_provider_key_is_rotated_by_changing_the_file_that_holds_it(
    start: Start, upstream: Upstream, second: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While requests run: a wrong file, or none, leaves the key that is in force."""
    secret = tmp_path / "key"
    secret.write_text("sk-one\n")
    monkeypatch.delenv("ONE_KEY")
    monkeypatch.setenv("ONE_KEY_FILE", str(secret))
    gateway = await start(model_file(upstream, second))
    secret.unlink()
    async with asyncio.timeout(10):
        while (await gateway.get("/health"))[1]["status"] != "degraded":
            await asyncio.sleep(0.1)
    assert (await gateway.chat({**HELLO, "model": "fast"}))[0] == 200
    told = str((await gateway.get("/health"))[1]["configuration"]["problems"])
    assert "the file that stands for an environment variable cannot be used" in told
    assert str(secret) not in told
    secret.write_text("sk-two\n")
    async with asyncio.timeout(10):
        while upstream.headers[-1]["Authorization"] != "Bearer sk-two":
            assert (await gateway.chat({**HELLO, "model": "fast"}))[0] == 200
            await asyncio.sleep(0.1)
    assert {sent["Authorization"] for sent in upstream.headers} == {"Bearer sk-one", "Bearer sk-two"}


async def test_a_change_that_shows_in_nothing_but_the_time_of_the_change_is_followed(
    start: Start, upstream: Upstream, second: Upstream, tmp_path: Path
) -> None:
    """As by `chmod`, for a file that could not be read: it has its size and its time of before."""
    gateway = await start(model_file(upstream, second))
    path = tmp_path / "gateway.yaml"
    facts = path.stat()
    path.write_text(model_file(upstream, second).replace("  large:", "  grand:").replace("[large]", "[grand]"))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    async with asyncio.timeout(10):
        while (await gateway.chat({**HELLO, "model": "grand"}))[0] != 200:
            await asyncio.sleep(0.1)


async def test_what_is_known_of_unchanged_deployments_survives(
    start: Start, upstream: Upstream, second: Upstream, tmp_path: Path
) -> None:
    gateway = await start(model_file(upstream, second), retry_max_retries=0, circuit_breaker_failure_threshold=1)
    upstream.answer(fails(503))
    await gateway.chat({**HELLO, "model": "fast"})
    assert (await breakers(gateway))["one/first/fast"] == "open"
    path = tmp_path / "gateway.yaml"
    path.write_text(model_file(upstream, second).replace("order: 1\n", "order: 1\n        weight: 7\n"))
    assert (await reload(gateway))[0] == 200
    assert (await breakers(gateway))["one/first/fast"] == "open"
    path.write_text(model_file(upstream, second, one="timeouts: {idle_seconds: 3}"))
    assert (await reload(gateway))[0] == 200
    assert (await breakers(gateway))["one/first/fast"] == "closed"


async def test_a_stream_ends_on_the_configuration_that_it_began_with(
    start: Start, upstream: Upstream, second: Upstream, tmp_path: Path
) -> None:
    gateway = await start(model_file(upstream, second))
    upstream.answer(streams(*[chunk("word ")] * 10, *ending(), pause_seconds=0.1))
    body = {**HELLO, "model": "fast", "stream": True}
    streaming = asyncio.create_task(gateway.raw_chat(body))
    while not upstream.calls:
        await asyncio.sleep(0.01)
    path = tmp_path / "gateway.yaml"
    path.write_text(model_file(second, second))
    assert (await reload(gateway))[0] == 200
    _, _, raw = await streaming
    assert raw.endswith(b"data: [DONE]\n\n")


async def test_health_tells_of_the_providers_that_there_are(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """One that has gone is no problem any more, and one that is new, or is asked elsewhere or with another key, has
    not been looked at yet."""

    def file(provider: str, more: str = "") -> str:
        return f"""
providers: {{{provider}: {{base_url: "{upstream.url}"{more}}}}}
models: {{fast: {{deployments: [{{provider: {provider}, model: any}}]}}}}
"""

    upstream.models_status = 503
    gateway = await start(file("old"))
    async with asyncio.timeout(10):
        while (await gateway.get("/health"))[1]["problems"] != ["provider old did not answer"]:
            await asyncio.sleep(0.01)
    for name, text in (("old", file("old", ', api_key: "${ONE_KEY}"')), ("new", file("new"))):
        (tmp_path / "gateway.yaml").write_text(text)
        assert (await reload(gateway))[0] == 200
        _, health = await gateway.get("/health")
        assert (health["status"], health["problems"]) == ("ok", [])
        assert health["providers"] == {name: {"healthy": None, "last_checked_at": None}}


async def reload(gateway: TestGateway) -> tuple[int, Any]:
    async with gateway.http.post(gateway.url / "admin/config/reload", headers=AS_ADMIN) as response:
        return response.status, await response.json()


async def breakers(gateway: TestGateway) -> dict[str, str]:
    deployments = (await gateway.get("/health"))[1]["deployments"]
    return {name: deployment["circuit_breaker"] for name, deployment in deployments.items()}


async def test_when_all_are_rate_limited_the_client_is_told_so_and_for_how_long(
    start: Start, upstream: Upstream, second: Upstream
) -> None:
    gateway = await start(model_file(upstream, second, fallbacks="general: {}"), retry_after_cap_seconds=0)
    upstream.answer(fails(429, headers={"Retry-After": "40"}))
    second.answer(fails(429, headers={"Retry-After": "20"}))
    status, headers, body = await gateway.chat({**HELLO, "model": "fast"})
    assert (status, headers["retry-after"]) == (429, "20")
    assert (body["error"]["type"], body["error"]["code"]) == ("rate_limit_error", "all_providers_failed")
