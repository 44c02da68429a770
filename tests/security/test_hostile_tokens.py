"""What strangers send for a key: it gets them nothing, changes nothing, and breaks nothing."""

from __future__ import annotations

import pytest

from tests.access.tenancy import Tenancy
from tests.conftest import StartGateway
from tests.gateway.raw_http import connected, openai_error, request_bytes
from tests.harness import TestGateway

MASTER = "sk-master"
HOSTILE = [
    b"' OR '1'='1",
    b"sk-' OR '1'='1' --0000000000",
    b"sk-x'; DROP TABLE virtual_keys; --",
    b"sk-x'||(SELECT hash FROM virtual_keys)||'",
    b"sk-%27%20OR%201=1--00000000000",
    b"sk-$1$1$1$1$1$1$1$1$1$1",
    b"sk-{hash}{hash}{hash}{hash}",
    b"sk-\\x00\\x00\\x00\\x00\\x00\\x00",
    b"sk-0000000000000000\xff\xfe",
    "sk-\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff10".encode(),
    b"sk-" + b"a" * 4000,
    b"sk-0123456789abcdef, Bearer sk-master",
    b"sk-0123456789abcdef\tsk-master",
    b"a.b.c",
    b"..",
    b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYXN0ZXIifQ.",
    b"null",
    b"undefined",
    b"sk-",
    b"0" * 64,
]


@pytest.fixture
async def gateway(start_gateway: StartGateway, database_url: str) -> TestGateway:
    return await start_gateway(database_url=database_url, llmgateway_master_key=MASTER)


async def test_hostile_tokens_are_wrong_keys_and_nothing_else(gateway: TestGateway, database_url: str) -> None:
    tenancy = Tenancy(database_url)
    secret, key = await tenancy.key()
    tokens = [*HOSTILE, key.hash.encode(), key.hint.encode(), str(key.id).encode(), b"sk-" + key.hash.encode()]
    answers = set()
    for token in tokens:
        async with connected(gateway.url) as connection:
            header = b"Authorization: Bearer " + token
            await connection.send(request_bytes(None, header, method="GET", path="/v1/models"))
            answer = await connection.answer()
            assert answer.status == 401, token
            answers.add(answer.body)
    assert len(answers) == 1
    assert openai_error(answers.pop())["code"] == "invalid_api_key"
    assert len(await tenancy.fetch("SELECT id FROM virtual_keys")) == 1
    status, _, _ = await gateway.chat(Authorization=f"Bearer {secret}")
    assert status == 200


SMUGGLED = [
    b"Authorization: Bearer sk-wrong-wrong-wrong-1\r\nAuthorization: Bearer sk-master",
    b"Authorization: Bearer sk-master\r\nAuthorization: Bearer sk-wrong-wrong-wrong-1",
    b"Authorization: Bearer sk-wrong-wrong-wrong-1\r\nX-Forwarded-Authorization: Bearer sk-master",
    b"Authorization: Bearer sk-wrong-wrong-wrong-1\r\nX-Api-Key: sk-master",
    b"Authorization: Bearer\r\n sk-master",
    b"Authorization : Bearer sk-master",
    b"X-Gateway-User: admin\r\nX-Original-URL: /health",
    b"X-HTTP-Method-Override: GET\r\nX-Rewrite-URL: /health",
]


@pytest.mark.parametrize("headers", SMUGGLED)
async def test_no_combination_of_headers_is_a_key(start_gateway: StartGateway, headers: bytes) -> None:
    gateway = await start_gateway(llmgateway_master_key=MASTER)
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(None, headers, method="GET", path="/v1/models"))
        assert (await connection.answer()).status in (400, 401)


async def test_who_a_caller_is_cannot_be_said_by_a_header(start_gateway: StartGateway, sqlite_url: str) -> None:
    """The end user's name is a name only."""
    tenancy = Tenancy(sqlite_url)
    secret, _ = await tenancy.key()
    gateway = await start_gateway(llmgateway_master_key=MASTER)
    for user in ("master", "admin", "key:0", "' OR 1=1"):
        headers = {"Authorization": f"Bearer {secret}", "X-Gateway-User": user}
        async with gateway.http.post(gateway.url / "admin/config/reload", headers=headers) as response:
            assert response.status == 403
