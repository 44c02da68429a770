"""What an aiohttp gateway cannot do without: two relays that set the marks. Neither is a gateway.

`bare` passes requests on, and looks at nothing. `pglog` is the floor of a gateway that keeps books: it checks a key,
parses the request and writes it anew, takes the usage from the answer or a stream's last bytes, and writes a row for
each request to PostgreSQL, by COPY four times a second. It does without limits, retries, routing and crash safety.

python -m benchmarks.compare.relays bare|pglog PORT UPSTREAM_URL [DATABASE_URL]
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import uvloop
from aiohttp import ClientResponse, ClientSession, TCPConnector, web

KEY = "sk-relay-of-the-benchmark"
ROWS = "relayed_requests"
_COLUMNS = ("id", "at", "key_hash", "model", "status", "is_stream", "input_tokens", "output_tokens", "generation", "ms")
_TABLE = f"""CREATE TABLE IF NOT EXISTS {ROWS} (id uuid PRIMARY KEY, at timestamptz NOT NULL, key_hash text, model text,
status int, is_stream boolean, input_tokens int, output_tokens int, generation text, ms real)"""
_NOT_PASSED_ON = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})
_TAIL_BYTES = 4096

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _relay_stream(
    request: web.Request, answer: ClientResponse, see: Callable[[bytes], None] | None = None
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async for data in answer.content.iter_any():
        await response.write(data)
        if see is not None:
            see(data)
    await response.write_eof()
    return response


def bare(session: ClientSession, url: str) -> Handler:
    """Passes everything on."""

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON}
        async with session.post(url, data=await request.read(), headers=headers) as answer:
            if answer.content_type == "text/event-stream":
                return await _relay_stream(request, answer)
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    return handle


class Books:
    """Rows that wait for their turn to be written."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool, self._rows = pool, list[tuple[Any, ...]]()

    def note(self, *row: Any) -> None:
        self._rows.append((uuid4(), datetime.now(UTC), *row))

    async def write_forever(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            if rows := self._rows:
                self._rows = []
                await self._pool.copy_records_to_table(ROWS, records=rows, columns=_COLUMNS)


def _usage_of_stream(tail: bytes) -> dict[str, Any]:
    """The event with the usage, of a stream's last bytes."""
    for event in reversed(tail.split(b"\n\n")):
        if event.startswith(b"data: {") and b'"usage"' in event:
            found: dict[str, Any] = msgspec.json.decode(event[6:])
            return found
    return {}


def booking(session: ClientSession, url: str, books: Books) -> Handler:
    """Checks the key, parses, passes on, and notes a row."""
    known = {sha256(KEY.encode()).hexdigest()}
    sent = {"Authorization": "Bearer sk-upstream", "Content-Type": "application/json"}

    async def handle(request: web.Request) -> web.StreamResponse:
        began = time.perf_counter()
        key = sha256(request.headers.get("Authorization", "").removeprefix("Bearer ").encode()).hexdigest()
        if key not in known:
            return web.json_response({"error": {"message": "unknown key"}}, status=401)
        asked: dict[str, Any] = msgspec.json.decode(await request.read())
        async with session.post(url, data=msgspec.json.encode(asked), headers=sent) as answer:
            response: web.StreamResponse
            if asked.get("stream"):
                tail = bytearray()

                def see(data: bytes) -> None:
                    tail.extend(data)
                    del tail[:-_TAIL_BYTES]

                response = await _relay_stream(request, answer, see)
                told = _usage_of_stream(bytes(tail))
            else:
                raw = await answer.read()
                told = msgspec.json.decode(raw)
                response = web.Response(status=answer.status, body=raw, content_type="application/json")
        usage = told.get("usage") or {}
        tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        took_ms = (time.perf_counter() - began) * 1000
        books.note(key, asked["model"], answer.status, bool(asked.get("stream")), *tokens, told.get("id"), took_ms)
        return response

    return handle


async def serve(kind: str, port: int, upstream: str, database_url: str) -> None:
    url = f"{upstream}/v1/chat/completions"
    async with AsyncExitStack() as stack:
        connector = TCPConnector(limit=0, keepalive_timeout=60)
        session = await stack.enter_async_context(ClientSession(connector=connector, auto_decompress=False))
        app = web.Application(client_max_size=2**26)
        if kind == "pglog":
            pool = await stack.enter_async_context(asyncpg.create_pool(database_url, min_size=1, max_size=4))
            await pool.execute(_TABLE)
            books = Books(pool)
            app.router.add_post("/v1/chat/completions", booking(session, url, books))
        else:
            books = None
            app.router.add_post("/v1/chat/completions", bare(session, url))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        await (books.write_forever() if books else asyncio.Event().wait())


if __name__ == "__main__":
    _, chosen, chosen_port, upstream_url, *database = sys.argv
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(serve(chosen, int(chosen_port), upstream_url, database[0] if database else ""))
