"""The headers that the gateway adds to answers."""

from __future__ import annotations

from functools import lru_cache

from proxy.application.exchange import Exchange
from proxy.application.tracing import short_trace
from proxy.application.upstream import Answer
from proxy.domain.chat import Usage

_HEADER_CHARACTERS = 256
_REMEMBERED_TEXTS = 1024


def answer_headers(answer: Answer, exchange: Exchange) -> dict[str, str]:
    """The upstream's headers that a client may see, and ours: who answered, after how many attempts, at what cost."""
    headers = dict(answer.headers)
    headers.update(exchange.admission.headers())
    headers["x-gateway-provider"] = answer.provider
    headers["x-gateway-model"] = header_text(answer.model)
    headers["x-gateway-attempts"] = str(exchange.attempts)
    headers["x-gateway-overhead-ms"] = f"{exchange.overhead_ms():.2f}"
    headers["x-gateway-trace"] = short_trace(exchange)
    cost = exchange.cost()
    if cost is not None and _is_whole(exchange.facts().usage):
        headers["x-gateway-cost-usd"] = f"{cost.usd:f}"
    return headers


def _is_whole(usage: Usage | None) -> bool:
    """Not what a stream has told so far: its cost would be that of a part."""
    return usage is not None and (not usage.estimated or usage.cost is not None)


@lru_cache(_REMEMBERED_TEXTS)
def _header_text(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)


def header_text(text: str) -> str:
    """Text that may stand in a header: a model's name is the client's to choose, line breaks and all."""
    return _header_text(text[:_HEADER_CHARACTERS])
