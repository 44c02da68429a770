"""What a start says of keys, and when it is refused for the want of them."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from proxy.application.load import Load
from proxy.bootstrap.gateway import RunningGateway
from proxy.domain.overload import Patience
from proxy.domain.rate_limits import Priority
from proxy.server.banner import banner
from proxy.settings import Settings

KEY = {"llmgateway_master_key": "sk-master"}
ANYWHERE = {"llmgateway_host": "0.0.0.0"}
ALWAYS, NEVER = {"llmgateway_require_keys": "always"}, {"llmgateway_require_keys": "never"}


@pytest.mark.parametrize(
    "more", [{}, NEVER, {**ANYWHERE, **KEY}, {**ANYWHERE, **ALWAYS}, {**ANYWHERE, **KEY, **ALWAYS}]
)
def test_beyond_loopback_only_with_keys(more: dict[str, Any]) -> None:
    assert Settings(**more).llmgateway_port


@pytest.mark.parametrize("more", [ANYWHERE, {**ANYWHERE, **NEVER}, {**ANYWHERE, **KEY, **NEVER}])
def test_beyond_loopback_not_without(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="refusing to listen"):
        Settings(**more)


def said(**more: Any) -> str:
    async def reload() -> None:
        pass

    gateway = RunningGateway(
        app=web.Application(),
        admin=None,
        metrics=web.Application(),
        upstream="up",
        database="db",
        stop_serving=lambda _gives_way: None,
        reload=reload,
        load=Load(1, 1, 1, 1, Patience(0.0)),
        priority_of=lambda _authorization: Priority.NORMAL,
        has_priorities=lambda: False,
        uses_demo=False,
        example_model="m",
    )
    return banner(gateway, ("127.0.0.1", 4000), Settings(**more))


@pytest.mark.parametrize(
    ("more", "header"),
    [
        ({}, None),
        ({"llmgateway_require_keys": "always"}, "$KEY"),
        (KEY, "$KEY"),
        ({**KEY, "llmgateway_master_key_calls_models": True}, "$LLMGATEWAY_MASTER_KEY"),
    ],
)
def test_the_banner_says_which_key_to_try(more: dict[str, Any], header: str | None) -> None:
    text = said(**more)
    assert ("Authorization" in text) == (header is not None)
    assert ("llmgateway keys create" in text) == (header == "$KEY")
    assert header is None or header in text
    assert "sk-master" not in text
