"""What the books of one plain request cost: CPU of each step on its path, of booking its row, and of the database.

python -m benchmarks.books_cost --database sqlite|postgres --rounds 15 --requests 400

A key with a budget and a rate limit asks; nothing is sent anywhere. All parts are those of the gateway, called in its
order. A step's figure is the median of its rounds' fastest halves, so that what else the machine does hits it little.

Claim: proxy/README.md: what a request's books cost, step by step.
Short: --rounds 3 --requests 100
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from benchmarks.access_cost import database_of, insert, new_member
from proxy.api.openai.envelope import read_chat_request
from proxy.application.access import Authenticator
from proxy.application.allowances import Rulebook
from proxy.application.booking import Accounting
from proxy.application.exchange import Exchange
from proxy.application.gatekeeper import Gatekeeper
from proxy.application.unpriced import UnpricedModels
from proxy.application.upstream import UpstreamCall
from proxy.domain.access.known_keys import KnownKey, known_key
from proxy.domain.catalog import Deployment
from proxy.domain.pricing import ModelPricing
from proxy.domain.routing import Candidate
from proxy.domain.values import ModelName
from proxy.infrastructure.access.directory import CachedKeyDirectory
from proxy.infrastructure.budgets.bank import Bank
from proxy.infrastructure.budgets.book import LeasedBudgets
from proxy.infrastructure.chat_completion.usage import WholeAnswer
from proxy.infrastructure.ledger.ledger import SpoolLedger, spool_ledger
from proxy.infrastructure.limits.limiter import CountingLimiter
from proxy.infrastructure.limits.local import LocalCounts
from proxy.infrastructure.limits.room import WaitingRoom
from proxy.infrastructure.persistence import access_rows
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.sessions import session
from proxy.infrastructure.price_book import RefreshingPriceBook

_MODEL = "z-ai/glm-4.6"
_BODY = b'{"model":"z-ai/glm-4.6","messages":[{"role":"user","content":"Say hello."}]}'
_ANSWER = (
    b'{"id":"gen-0123456789abcdef","object":"chat.completion","created":1,"model":"z-ai/glm-4.6","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"' + b"lorem ipsum " * 20 + b'"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":60,"total_tokens":69}}'
)


class _NoPrices:
    """A PriceHistory that nobody asks: the book has its seeds."""


@dataclass
class OneKey:
    """A KeySource that knows one key, and hears of every change at once."""

    known: KnownKey

    async def find(self, _key_hash: str, _now: datetime) -> KnownKey | None:
        return self.known

    @property
    def confirmed_at(self) -> float:
        return time.monotonic()


@dataclass
class Desk:
    """What a request's books need."""

    authorization: str
    authenticator: Authenticator
    gatekeeper: Gatekeeper
    accounting: Accounting
    ledger: SpoolLedger
    candidate: Candidate
    steps: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def serve(self) -> None:
        """One request; notes how long each step took."""
        clock = time.perf_counter
        began = clock()
        principal = await self.authenticator.authenticate((self.authorization,))
        self._note("authenticate", began)
        chat = read_chat_request(_BODY)
        began = clock()
        exchange = Exchange(self.ledger, self.accounting, "req-0123456789abcdef0123456789abcdef")
        with exchange:
            exchange.asked(chat)
            began = self._note("open", began)
            exchange.admitted(await self.gatekeeper.admit(principal, chat, {}))
            began = self._note("admit", began)
            admission = exchange.admission
            if admission.needs_money:
                most = self.accounting.most_cost([self.candidate.deployment], (), admission.estimate)
                if not admission.set_aside_at_once(most, 1, exchange.started_at):
                    await admission.set_aside(most, 1, exchange.started_at)
            self._note("set money aside", began)
            call = UpstreamCall(body=_BODY, model=_MODEL, deadline=0.0)
            began = clock()
            exchange.calling(self.candidate, call)
            began = self._note("intent", began)
            call.answer = WholeAnswer(_ANSWER)
            began = self._note("read usage", began)
            call.attempts = 1
            exchange.answered_by(call)
            exchange.answering(200)
            headers = {**admission.headers(), "a": str(exchange.attempts), "o": f"{exchange.overhead_ms():.2f}"}
            cost = exchange.cost()
            if cost is not None:
                headers["c"] = f"{cost.usd:f}"
            began = self._note("headers", began)
            exchange.settle()
            began = self._note("settle", began)
        self._note("close", began)

    def _note(self, step: str, began: float) -> float:
        self.steps[step].append(time.perf_counter() - began)
        return time.perf_counter()


async def desk(stack: AsyncExitStack, database: Database, directory: Path) -> Desk:
    await migrate(database)
    member = new_member()
    async with session(database) as to:
        columns = (*access_rows.BUDGET_COLUMNS, "created_at")
        await insert(to, "budgets", columns, (*access_rows.budget_row(member.budget), datetime.now(UTC)))
    writer = await stack.enter_async_context(row_writer(database))
    ledger = await stack.enter_async_context(spool_ledger(directory, writer, max_bytes=2**30))
    book = LeasedBudgets(Bank(database, ledger.holder))
    stack.push_async_callback(book.finish)
    ledger.on_booked = book.booked
    source = OneKey(known_key(member.key, member.team, None, [member.budget], [member.limit]))
    price = ModelPricing(ModelName(_MODEL), "z-ai", Decimal("0.6"), Decimal("2.2"), 200_000, datetime.now(UTC))
    rules = Rulebook()
    return Desk(
        f"Bearer {member.secret}",
        Authenticator(CachedKeyDirectory(source, source, 60.0), lambda: True, master_key_hash="0" * 64),
        Gatekeeper(CountingLimiter(LocalCounts(time.monotonic), None, WaitingRoom(10, 1.0)), book, lambda: rules, 1000),
        Accounting(RefreshingPriceBook(_NoPrices(), seeds=[price]), UnpricedModels()),  # type: ignore[arg-type]
        ledger,
        Candidate(Deployment(name="OpenRouter", provider="OpenRouter", model=_MODEL), _MODEL, "the only one"),
    )


def server_seconds(directory: str) -> float:
    """CPU so far of the PostgreSQL server of that directory, with all its processes."""
    servers = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if directory in _text_of(path)]
    fields = [_text_of(path).rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
    ticks = sum(int(each[11]) + int(each[12]) for each in fields if each and int(each[1]) in servers)
    return ticks / os.sysconf("SC_CLK_TCK")


def _text_of(path: Path) -> str:
    """Empty if the process has ended meanwhile."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


async def run(kind: str, rounds: int, requests: int) -> None:
    async with AsyncExitStack() as stack:
        databases = stack.enter_context(ExitStack())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = database_of(kind, directory, databases)
        server_directory = url.rpartition("host=")[2] or "none"
        database = await stack.enter_async_context(open_database(url))
        books = await desk(stack, database, directory / "spool")
        medians: defaultdict[str, list[float]] = defaultdict(list)
        writer: list[float] = []
        server: list[float] = []
        for number in range(rounds + 1):
            books.steps.clear()
            for _ in range(requests):
                await books.serve()
            began_server, began = server_seconds(server_directory), time.process_time()
            while books.ledger.state()["waiting_rows"]:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.05)
            booking = time.process_time() - began
            if number:
                writer.append(booking / requests)
                server.append((server_seconds(server_directory) - began_server) / requests)
                for step, taken in books.steps.items():
                    fast = sorted(taken)[: len(taken) // 2]
                    medians[step].append(statistics.median(fast))
    print(f"{kind}, {rounds} rounds of {requests} requests; us of CPU a request")
    steps = {step: statistics.median(taken) * 1e6 for step, taken in medians.items()}
    for step, microseconds in steps.items():
        print(f"  {step:16} {microseconds:6.1f}")
    print(f"  {'on the path':16} {sum(steps.values()):6.1f}")
    print(f"  {'writer':16} {statistics.median(writer) * 1e6:6.1f}")
    if kind == "postgres":
        print(f"  {'database':16} {sum(server) / len(server) * 1e6:6.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=400)
    chosen = parser.parse_args()
    asyncio.run(run(chosen.database, chosen.rounds, chosen.requests))


if __name__ == "__main__":
    main()
