"""The headers that the gateway adds to answers."""

from __future__ import annotations

from proxy.application.exchange import Exchange
from proxy.application.tracing import short_trace
from proxy.application.upstream import Answer

_HEADER_CHARACTERS = 256


def answer_headers(answer: Answer, exchange: Exchange) -> dict[str, str]:
    """The upstream's headers that a client may see, and ours: who answered, after how many attempts, at what cost."""
    headers = {
        **answer.headers,
        **exchange.admission.headers(),
        "x-gateway-provider": answer.provider,
        "x-gateway-model": header_text(answer.model),
        "x-gateway-attempts": str(exchange.attempts),
        "x-gateway-overhead-ms": f"{exchange.overhead_ms():.2f}",
        "x-gateway-trace": short_trace(exchange),
    }
    cost = exchange.cost()
    if cost is not None:
        headers["x-gateway-cost-usd"] = f"{cost.usd:f}"
    return headers


def header_text(text: str) -> str:
    """Text that may stand in a header: a model's name is the client's to choose, line breaks and all."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:_HEADER_CHARACTERS])
