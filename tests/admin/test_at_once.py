"""What is changed through a gateway's own API holds for its very next request, as docs/keys.md promises."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin.company import done
from tests.harness import TestGateway


async def _asked(gateway: TestGateway, key: str) -> int:
    return (await gateway.chat(Authorization=f"Bearer {key}"))[0]


async def test_a_key_is_ended_and_back_at_once(gateway: TestGateway) -> None:
    secret = (await done(gateway, "POST", "/keys", {"name": "app"}))["key"]
    assert await _asked(gateway, secret) == 200
    for change, status in (
        ({"disabled": True}, 401),
        ({"disabled": False}, 200),
        ({"models": ["another"]}, 403),
        ({"models": None}, 200),
    ):
        await done(gateway, "PATCH", "/keys/app", change)
        assert await _asked(gateway, secret) == status, change
    rotated = (await done(gateway, "POST", "/keys/app/rotate", {"grace_seconds": 0}))["key"]
    assert (await _asked(gateway, secret), await _asked(gateway, rotated)) == (401, 200)
    await done(gateway, "POST", "/keys/app/revoke")
    assert await _asked(gateway, rotated) == 401


async def test_a_team_is_disabled_at_once(gateway: TestGateway) -> None:
    await done(gateway, "POST", "/teams", {"name": "search"})
    secret = (await done(gateway, "POST", "/keys", {"name": "app", "team": "search"}))["key"]
    assert await _asked(gateway, secret) == 200
    await done(gateway, "PATCH", "/teams/search", {"disabled": True})
    assert await _asked(gateway, secret) == 401


WHOSE = pytest.mark.parametrize(
    "whose", [{"scope": "gateway"}, {"scope": "key", "subject": "app"}], ids=["everybody", "a key"]
)


@WHOSE
async def test_a_budget_holds_at_once(gateway: TestGateway, whose: dict[str, Any]) -> None:
    secret = (await done(gateway, "POST", "/keys", {"name": "app"}))["key"]
    assert await _asked(gateway, secret) == 200
    await done(gateway, "POST", "/budgets", {"name": "none", "amount_usd": "0", "period": "day", **whose})
    assert await _asked(gateway, secret) == 429
    await done(gateway, "PATCH", "/budgets/none", {"amount_usd": "10"})
    assert await _asked(gateway, secret) == 200


@WHOSE
async def test_a_limit_holds_at_once(gateway: TestGateway, whose: dict[str, Any]) -> None:
    secret = (await done(gateway, "POST", "/keys", {"name": "app"}))["key"]
    assert await _asked(gateway, secret) == 200
    limit = await done(gateway, "POST", "/limits", {"requests_per_minute": 1, **whose})
    assert [await _asked(gateway, secret) for _ in range(2)] == [200, 429]
    await done(gateway, "DELETE", f"/limits/{limit['id']}")
    assert await _asked(gateway, secret) == 200
