"""What would happen (POST /v1/route), which deployments a tag allows, and which models there are."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from proxy.cli import main
from tests.gateway.test_configuration import Start, asked, model_file, second, start
from tests.harness import HELLO, TestGateway, Upstream

__all__ = ["second", "start"]


def tagged(first: Upstream, other: Upstream) -> str:
    return model_file(first, other).replace("order: 1", "order: 1\n        tags: [eu, cheap]")


async def route(gateway: TestGateway, body: Any, **headers: str) -> tuple[int, Any]:
    async with gateway.http.post(gateway.url / "v1/route", json=body, headers=headers) as response:
        return response.status, await response.json()


async def test_the_dry_run_says_what_would_be_asked_and_asks_nobody(
    start: Start, upstream: Upstream, second: Upstream
) -> None:
    gateway = await start(model_file(upstream, second))
    status, plan = await route(gateway, {**HELLO, "model": "quick"})
    assert status == 200
    assert (plan["requested"], plan["model"], plan["strategy"], plan["max_attempts"]) == (
        "quick",
        "fast",
        "priority",
        4,
    )
    assert [each["deployment"] for each in plan["candidates"]] == [
        "one/first/fast",
        "two/second/fast",
        "two/second/large",
    ]
    assert [each["is_fallback"] for each in plan["candidates"]] == [False, False, True]
    assert all(each["reason"] for each in plan["candidates"])
    assert plan["deployments"]["one/first/fast"]["circuit_breaker"] == "closed"
    assert upstream.calls + second.calls == 0


async def test_the_dry_run_refuses_as_the_request_would_be(start: Start, upstream: Upstream, second: Upstream) -> None:
    gateway = await start(model_file(upstream, second))
    status, body = await route(gateway, {**HELLO, "model": "nobody"})
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    status, body = await route(gateway, {"model": "fast"})
    assert (status, body["error"]["param"]) == (400, "messages")


async def test_a_tag_keeps_a_request_to_its_deployments(start: Start, upstream: Upstream, second: Upstream) -> None:
    gateway = await start(tagged(upstream, second))
    for tags in ("eu", "eu, cheap", "cheap,"):
        status, _, _ = await gateway.chat({**HELLO, "model": "fast"}, **{"x-gateway-tags": tags})
        assert status == 200
    assert (asked(upstream), asked(second)) == (["first/fast"] * 3, [])
    assert "x-gateway-tags" not in {name.lower() for name in upstream.headers[0]}
    status, _, body = await gateway.chat({**HELLO, "model": "fast"}, **{"x-gateway-tags": "us"})
    assert (status, body["error"]["code"]) == (400, "no_suitable_deployment")
    assert "not tagged us" in body["error"]["message"]


async def test_tags_may_come_in_several_lines(start: Start, upstream: Upstream, second: Upstream) -> None:
    """As any list in a header may; each of them counts, in the dry run too."""
    gateway = await start(tagged(upstream, second))
    body = {**HELLO, "model": "fast"}
    for path in ("v1/chat/completions", "v1/route"):
        for tags, expected in ((["eu", "cheap"], 200), (["eu", "us"], 400), (["", "us"], 400)):
            lines = [("X-Gateway-Tags", tag) for tag in tags]
            async with gateway.http.post(gateway.url / path, json=body, headers=lines) as response:
                assert (path, tags, response.status) == (path, tags, expected)
    assert (upstream.calls, second.calls) == (1, 0)


async def test_models_are_the_names_of_the_catalog(start: Start, upstream: Upstream, second: Upstream) -> None:
    gateway = await start(model_file(upstream, second))
    _, body = await gateway.get("/v1/models")
    models = {model["id"]: model for model in body["data"]}
    assert list(models) == ["fast", "large", "quick", "two/z-ai/glm-4.6"]
    assert models["fast"]["owned_by"] == "one, two"
    assert models["quick"]["alias_of"] == "fast"
    assert models["two/z-ai/glm-4.6"]["context_length"] == 128000
    assert (await gateway.get("/v1/models/two/z-ai/glm-4.6"))[0] == 200
    second.models_status = 500
    assert (await gateway.get("/v1/models/fast"))[0] == 200


async def test_the_command_shows_the_plan(start: Start, upstream: Upstream, second: Upstream) -> None:
    gateway = await start(tagged(upstream, second))
    run = CliRunner()

    def command(*arguments: str) -> Any:
        return run.invoke(main, ["route", "--url", str(gateway.url), *arguments])

    shown = await asyncio.to_thread(command, "--model", "quick", "--tag", "eu")
    assert shown.exit_code == 0, shown.output
    assert "quick -> fast, strategy priority; at most 4 calls" in shown.output
    assert "1. one/first/fast (first/fast)" in shown.output
    assert "-  two/second/fast: not tagged eu" in shown.output
    as_json = await asyncio.to_thread(command, "--model", "fast", "--json")
    assert json.loads(as_json.output)["object"] == "route"
    refused = await asyncio.to_thread(command, "--model", "nobody")
    assert refused.exit_code == 1
    assert "nobody" in refused.output
    assert (await asyncio.to_thread(command)).exit_code == 2


async def test_the_command_takes_a_file_or_a_prompt(
    start: Start, upstream: Upstream, second: Upstream, tmp_path: Path
) -> None:
    gateway = await start(model_file(upstream, second))
    file = tmp_path / "body.json"
    file.write_text(json.dumps({**HELLO, "model": "large"}))

    def command(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["route", "--url", str(gateway.url), "--file", str(file), *arguments])

    assert "large -> large" in (await asyncio.to_thread(command)).output
    assert "quick -> fast" in (await asyncio.to_thread(command, "--model", "quick")).output
    both = await asyncio.to_thread(command, "--prompt", "Hi")
    assert both.exit_code == 2
    assert "--file" in both.output
