"""A real HTTP server that remembers what it billed, as OpenRouter's `GET /generation` does; and rows to ask it for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.domain.request_log import CostSource, RequestLog, RequestStatus, UsageSource
from proxy.domain.values import CostAmount, ModelName, TokenCount

KEY = "sk-or-generations"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@dataclass
class Generations:
    """The bills by id: what `data` holds as JSON text, or a whole other answer. Ids that are not there are 404."""

    bills: dict[str, str | web.Response] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def bill(self, generation_id: str, total_cost: str, **members: Any) -> None:
        """The cost is JSON text, so that all its digits are sent."""
        rest = "".join(f", {json.dumps(name)}: {json.dumps(value)}" for name, value in members.items())
        self.bills[generation_id] = f'{{"id": "{generation_id}", "total_cost": {total_cost}{rest}}}'

    def fail(self, generation_id: str, status: int, **headers: str) -> None:
        """Answer with an error as OpenRouter words it."""
        body = {"error": {"code": status, "message": "no luck"}}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.bills[generation_id] = web.json_response(body, status=status, headers=named)

    async def _generation(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": {"code": 401, "message": "No auth"}}, status=401)
        generation_id = request.query["id"]
        self.asked.append(generation_id)
        answer = self.bills.get(generation_id)
        if answer is None:
            return web.json_response({"error": {"code": 404, "message": "Generation not found"}}, status=404)
        if isinstance(answer, web.Response):
            return web.Response(body=answer.body, status=answer.status, headers=answer.headers)
        return web.Response(text=f'{{"data": {answer}}}', content_type="application/json")


@asynccontextmanager
async def remembering() -> AsyncIterator[Generations]:
    """The server, on a free port."""
    generations = Generations()
    app = web.Application()
    app.router.add_get("/api/v1/generation", generations._generation)
    server = TestServer(app)
    await server.start_server(access_log=None)
    generations.url = str(server.make_url("/api/v1/"))
    try:
        yield generations
    finally:
        await server.close()


def usd(text: str) -> CostAmount:
    return CostAmount(Decimal(text))


def estimated_row(generation_id: str | None, estimate: str | None = "0.002", **members: Any) -> RequestLog:
    """A stream whose client hung up: its tokens and cost are guesses."""
    return RequestLog(
        **{
            "model": ModelName("a/one"),
            "provider_name": "OpenRouter",
            "timestamp": NOW,
            "status": RequestStatus.CLIENT_DISCONNECTED,
            "input_tokens": TokenCount(10),
            "output_tokens": TokenCount(5),
            "usage_source": UsageSource.ESTIMATED,
            "estimated_cost": None if estimate is None else usd(estimate),
            "cost_source": CostSource.UNKNOWN if estimate is None else CostSource.COMPUTED,
            "generation_id": generation_id,
            **members,
        }
    )
