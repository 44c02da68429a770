"""What the demo upstream remembers: its last generations, and what all of them have cost."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from proxy.infrastructure.demo.answers import Completion
from proxy.infrastructure.demo.documents import PROVIDER

_KEPT = 1000


@dataclass(slots=True)
class Generation:
    """What is told of a completion, and how it goes on its way to the client. It holds nobody's prompt."""

    facts: Mapping[str, object]
    latency_ms: int
    cancelled: bool = False
    generation_ms: int | None = None
    _began: float = field(default_factory=time.monotonic)

    def finish(self) -> None:
        """The end of the answer is about to be sent; a client that has it may hang up."""
        self.generation_ms = _milliseconds_since(self._began)

    def cancel(self) -> None:
        """The client hung up."""
        self.cancelled = self.generation_ms is None

    def document(self) -> dict[str, object]:
        """The answer to `GET /generation`."""
        return {
            **self.facts,
            "cancelled": self.cancelled,
            "latency": self.latency_ms,
            "generation_time": self.generation_ms,
        }


def _facts(completion: Completion) -> dict[str, object]:
    return {
        "id": completion.id,
        "model": completion.request.model,
        "provider_name": PROVIDER,
        "created_at": datetime.fromtimestamp(completion.created, UTC).isoformat(),
        "api_type": "completions",
        "origin": "",
        "streamed": completion.request.stream,
        "is_byok": False,
        "finish_reason": completion.answer.finish_reason,
        "native_finish_reason": completion.answer.finish_reason,
        "total_cost": completion.cost,
        "usage": completion.cost,
        "tokens_prompt": completion.prompt_tokens,
        "tokens_completion": completion.completion_tokens,
        "native_tokens_prompt": completion.prompt_tokens,
        "native_tokens_completion": completion.completion_tokens,
        "native_tokens_cached": 0,
        "native_tokens_reasoning": 0,
    }


class Generations:
    """The last thousand generations by id, and the cost of all."""

    def __init__(self) -> None:
        self.spent = Decimal(0)
        self._by_id: OrderedDict[str, Generation] = OrderedDict()

    def begin(self, completion: Completion, asked_at: float) -> Generation:
        """Remember a completion before any of it is sent: whoever learns its id can look it up."""
        generation = Generation(_facts(completion), latency_ms=_milliseconds_since(asked_at))
        self.spent += completion.cost
        self._by_id[completion.id] = generation
        if len(self._by_id) > _KEPT:
            self._by_id.popitem(last=False)
        return generation

    def get(self, generation_id: str) -> Generation | None:
        """The generation of that id, None if there was none or it is forgotten."""
        return self._by_id.get(generation_id)


def _milliseconds_since(moment: float) -> int:
    return round((time.monotonic() - moment) * 1000)
