"""What every refused request has in common."""

from __future__ import annotations

import json

from proxy.domain.request_log import RequestStatus
from tests.gateway.raw_http import connected, openai_error, request_bytes
from tests.harness import HELLO, TestGateway, Upstream

GOOD = json.dumps(HELLO).encode()


async def refusal(
    gateway: TestGateway, upstream: Upstream, request: bytes, *, status: int = 400, code: str, param: str | None = None
) -> str:
    """The message of a refused request, of which everything else is checked here."""
    async with connected(gateway.url) as connection:
        await connection.send(request)
        answer = await connection.answer()
        assert answer.status == status, answer.body
        assert answer.headers["content-type"].startswith("application/json")
        error = openai_error(answer.body)
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
        assert upstream.calls == 0
        row = await gateway.row()
        assert row.status is RequestStatus.REFUSED
        assert (row.http_status, row.request_id) == (status, answer.headers["x-request-id"])
        if answer.closes:
            assert await connection.is_closed()
        else:
            await connection.send(request_bytes(GOOD))
            assert (await connection.answer()).status == 200
            assert upstream.bodies == [GOOD]
    assert (await gateway.chat())[0] == 200
    message: str = error["message"]
    return message
