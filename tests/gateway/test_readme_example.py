"""The README's gateway.yaml, as it is written there but for the addresses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

import proxy
from tests.harness import HELLO, Upstream, fails, gateway_over, says

README = Path(proxy.__file__).parents[1] / "README.md"
OPENROUTER, LOCAL = "kind: openrouter,", "http://127.0.0.1:8000/v1"


async def test_the_readmes_configuration_works(
    upstream: Upstream, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    assert OPENROUTER in text
    assert LOCAL in text
    local = Upstream()
    local.answer(says())
    server = TestServer(local.app())
    await server.start_server(access_log=None)
    text = text.replace(OPENROUTER, f'{OPENROUTER} base_url: "{upstream.url}",').replace(
        LOCAL, str(server.make_url("/api/v1/"))
    )
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-example")
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    async with gateway_over(upstream.url, sqlite_url, llmgateway_config=str(path)) as gateway:
        for _ in range(60):
            assert (await gateway.chat({**HELLO, "model": "gpt-4o"}))[0] == 200
        assert {json.loads(body)["model"] for body in upstream.bodies} == {"z-ai/glm-4.6"}
        assert {json.loads(body)["model"] for body in local.bodies} == {"glm-4.6"}
        assert 25 < upstream.calls < 58

        upstream.answer(says())
        assert (await gateway.chat({**HELLO, "model": "openrouter/any/model"}))[0] == 200
        assert json.loads(upstream.bodies[0])["model"] == "any/model"

        local.answer(fails(503))
        upstream.answer(fails(503), says())
        status, headers, _ = await gateway.chat({**HELLO, "model": "chat"})
        assert (status, headers["x-gateway-provider"]) == (200, "openrouter")
    await server.close()
