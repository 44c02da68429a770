"""A key's secret: told once, replaced with a grace, and dead when it is revoked."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

from proxy.domain.access.keys import generate_key
from tests.access.test_gateway_keys import REVOKED_WITHIN_SECONDS, status_with
from tests.admin.company import MASTER, Company, ask, done
from tests.conftest import StartGateway
from tests.harness import TestGateway


async def comes_to(gateway: TestGateway, secret: str, status: int, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while await status_with(gateway, secret) != status:
            await asyncio.sleep(0.01)


async def test_the_secret_is_told_once_and_its_hash_never(gateway: TestGateway, firm: Company) -> None:
    made = await done(gateway, "POST", "/keys", {"name": "once"})
    secret = made.pop("key")
    assert made["hint"] == f"sk-…{secret[-4:]}"
    hashes = [row[0] for row in await firm.tenancy.fetch("SELECT hash FROM virtual_keys")]
    for path in (f"/keys/{made['id']}", "/keys", "/audit"):
        text = json.dumps(await done(gateway, "GET", path))
        assert not [each for each in (*hashes, secret) if each in text]
    assert await done(gateway, "GET", f"/keys/{made['id']}") == made


async def test_the_old_secret_is_good_until_the_grace_is_over_also_after_a_restart(
    start_gateway: StartGateway, database_url: str, gateway: TestGateway, firm: Company
) -> None:
    made = await done(gateway, "POST", "/keys", {"name": "rotated"})
    rotated = await done(gateway, "POST", "/keys/rotated/rotate", {"grace_seconds": 3600})
    until = datetime.fromisoformat(rotated["previous_key_until"])
    assert timedelta(minutes=59) < until - datetime.now(UTC) <= timedelta(hours=1)
    second = await start_gateway(database_url=database_url, llmgateway_master_key=MASTER)
    for each in (gateway, second):
        await comes_to(each, rotated["key"], 200)
        await comes_to(each, made["key"], 200)
    await firm.tenancy.execute("UPDATE virtual_keys SET previous_until = $1", datetime.now(UTC) - timedelta(seconds=1))
    third = await start_gateway(database_url=database_url, llmgateway_master_key=MASTER)
    assert [await status_with(third, secret) for secret in (made["key"], rotated["key"])] == [401, 200]


async def test_without_a_grace_the_old_secret_is_dead_at_once(gateway: TestGateway, firm: Company) -> None:
    made = await done(gateway, "POST", "/keys", {"name": "rotated"})
    rotated = await done(gateway, "POST", "/keys/rotated/rotate")
    assert rotated["previous_key_until"] is None
    await comes_to(gateway, made["key"], 401)
    assert await status_with(gateway, rotated["key"]) == 200


async def test_a_grace_that_was_given_is_not_cut_short_by_another_rotation_with_one(
    gateway: TestGateway, firm: Company
) -> None:
    made = await done(gateway, "POST", "/keys", {"name": "rotated"})
    first = await done(gateway, "POST", "/keys/rotated/rotate", {"grace_seconds": 3600})
    refused = await ask(gateway, MASTER, "POST", "/keys/rotated/rotate", {"grace_seconds": 60})
    assert refused.status == 400
    assert [each["field"] for each in refused.body["errors"]] == ["grace_seconds"]
    assert first["previous_key_until"] in refused.body["detail"]
    for secret in (made["key"], first["key"]):
        await comes_to(gateway, secret, 200)

    await firm.tenancy.execute("UPDATE virtual_keys SET previous_until = $1", datetime.now(UTC))
    second = await done(gateway, "POST", "/keys/rotated/rotate", {"grace_seconds": 60})
    await comes_to(gateway, made["key"], 401)
    for secret in (first["key"], second["key"]):
        await comes_to(gateway, secret, 200)


async def test_a_rotation_without_a_grace_ends_what_earlier_ones_left(gateway: TestGateway, firm: Company) -> None:
    made = await done(gateway, "POST", "/keys", {"name": "rotated"})
    first = await done(gateway, "POST", "/keys/rotated/rotate", {"grace_seconds": 3600})
    second = await done(gateway, "POST", "/keys/rotated/rotate")
    for secret in (made["key"], first["key"]):
        await comes_to(gateway, secret, 401)
    assert await status_with(gateway, second["key"]) == 200


async def test_a_revoked_key_dies_in_another_gateway_within_a_second(
    start_gateway: StartGateway, database_url: str, gateway: TestGateway, firm: Company
) -> None:
    second = await start_gateway(database_url=database_url, llmgateway_master_key=MASTER)
    made = await done(gateway, "POST", "/keys", {"name": "revoked"})
    rotated = await done(gateway, "POST", "/keys/revoked/rotate", {"grace_seconds": 3600})
    for secret in (made["key"], rotated["key"]):
        await comes_to(second, secret, 200)
    assert (await done(gateway, "POST", "/keys/revoked/revoke"))["disabled"] is True
    revoked_at = time.monotonic()
    for secret in (made["key"], rotated["key"]):
        while await status_with(second, secret) != 401:
            assert time.monotonic() - revoked_at < REVOKED_WITHIN_SECONDS
            await asyncio.sleep(0.01)
    assert (await ask(gateway, MASTER, "POST", "/keys/revoked/rotate")).status == 400


async def test_a_revoked_secret_stays_dead_when_its_key_is_enabled_again(gateway: TestGateway, firm: Company) -> None:
    made = await done(gateway, "POST", "/keys", {"name": "revoked"})
    other = await done(gateway, "POST", "/keys", {"name": "other"})
    await done(gateway, "POST", "/keys/revoked/revoke")
    assert (await done(gateway, "PATCH", "/keys/revoked", {"disabled": False}))["disabled"] is False
    await done(gateway, "PATCH", "/keys/other", {"disabled": True})
    await comes_to(gateway, other["key"], 401)  # by now the first change is known, too
    assert await status_with(gateway, made["key"]) == 401
    anew = await done(gateway, "POST", "/keys/revoked/rotate")
    await comes_to(gateway, anew["key"], 200)


async def test_a_key_from_elsewhere_is_known_by_its_hash(gateway: TestGateway, firm: Company) -> None:
    elsewhere = generate_key()
    made = await done(gateway, "POST", "/keys", {"name": "imported", "hash": elsewhere.hash})
    assert "key" not in made
    await comes_to(gateway, elsewhere.secret, 200)
    for wrong in (elsewhere.hash.upper(), elsewhere.hash[:-1], elsewhere.secret, ""):
        answer = await ask(gateway, MASTER, "POST", "/keys", {"name": "x", "hash": wrong})
        assert answer.status == 400
        assert elsewhere.secret not in json.dumps(answer.body)
