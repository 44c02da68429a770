"""Why a request went where it went: whom the plan had, who was left out, and what became of each attempt.

Three forms: a few words for a header (`short`), compact JSON for the database (`compact`), and named members for people
and programs (`as_dict`). A trace holds names and numbers only, nothing of prompts or answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final

from proxy.domain.errors import InvalidValue
from proxy.domain.request_log import RequestLog, RequestStatus
from proxy.domain.values import CostAmount

_VERSION: Final = 1
_MOST_ENTRIES = 50  # of each kind in the compact form; the rest is counted
_TEXT_LENGTH = 200
_SHORT_LENGTH = 255
_NAME_LENGTH = 60
_OK = 200
_FINE = frozenset({RequestStatus.SUCCESS, RequestStatus.REPLAYED})


@dataclass(frozen=True, slots=True)
class TracedCandidate:
    """A deployment that was in the plan, and why it stood at its place."""

    deployment: str
    model: str
    reason: str
    is_fallback: bool = False


@dataclass(frozen=True, slots=True)
class TracedDrop:
    """A deployment that was left out of the plan: a stable word for the cause, and the reason in plain words."""

    deployment: str
    model: str
    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class TracedAttempt:
    """One candidate's turn.

    `status` is the last HTTP status that the upstream gave, None if it gave none; `error` is the ledger's word for what
    went wrong, None if nothing did. `calls` counts upstream calls, retries included; 0 if it did not come to one.
    `queued_seconds` were waited for a place at the deployment, `seconds` went by from there to the answer's beginning
    or the failure. `cost` is None when it is not known.
    """

    deployment: str
    model: str
    status: int | None = None
    error: str | None = None
    calls: int = 1
    queued_seconds: float = 0.0
    seconds: float = 0.0
    cost: CostAmount | None = None
    is_hedge: bool = False

    @property
    def outcome(self) -> str:
        """The status where it says what happened, else the error: `200`, `429`, `timeout`."""
        if self.error is not None and self.status in (None, _OK):
            return self.error
        return str(self.status) if self.status is not None else "pending"

    def short(self) -> str:
        """`openrouter/x:429*3@0.21s`: after three calls."""
        hedge = "hedge " if self.is_hedge else ""
        return f"{hedge}{_plain(self.deployment)}:{_plain(self.outcome)}{_times(self.calls)}@{_seconds(self.seconds)}s"


def short_success(deployment: str, calls: int, seconds: float) -> str:
    """`RequestTrace.short` of a single attempt that went well: what nearly all requests have to tell."""
    return f"{_plain(deployment)}:{_OK}{_times(calls)}@{_seconds(seconds)}s"


def is_notable(row: RequestLog, candidates: int, dropped: int, attempts: int) -> bool:
    """Whether there was a choice, more than one call, or no success; told from how many of each there are."""
    return row.status not in _FINE or row.attempts > 1 or attempts > 1 or candidates > 1 or dropped > 0


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """One request's way. Candidates are in the order of the plan, attempts in the order in which they began.

    `omitted` counts entries that the compact form had no room for.
    """

    strategy: str = ""
    candidates: tuple[TracedCandidate, ...] = ()
    dropped: tuple[TracedDrop, ...] = ()
    attempts: tuple[TracedAttempt, ...] = ()
    omitted: int = 0

    def is_notable(self, row: RequestLog) -> bool:
        """Whether there was a choice, more than one call, or no success."""
        return is_notable(row, len(self.candidates), len(self.dropped), len(self.attempts))

    def short(self) -> str:
        """The attempts in less than 256 printable ASCII characters; of many the last ones, after `...`."""
        if not self.attempts:
            return "none"
        text = ""
        for attempt in reversed(self.attempts):
            longer = f"{attempt.short()} > {text}" if text else attempt.short()
            if len(longer) > _SHORT_LENGTH - len("... > "):
                return f"... > {text}"
            text = longer
        return text

    def compact(self) -> str:
        """ASCII text, at most some tens of kilobytes and usually some hundred bytes."""
        omitted = sum(max(0, len(part) - _MOST_ENTRIES) for part in (self.candidates, self.dropped, self.attempts))
        parts = {
            "v": _VERSION,
            "s": _cut(self.strategy),
            "c": [
                [_cut(each.deployment), _cut(each.model), _cut(each.reason), int(each.is_fallback)]
                for each in self.candidates[:_MOST_ENTRIES]
            ],
            "d": [
                [_cut(each.deployment), _cut(each.model), _cut(each.cause), _cut(each.reason)]
                for each in self.dropped[:_MOST_ENTRIES]
            ],
            "a": [_packed(each) for each in self.attempts[-_MOST_ENTRIES:]],
            "o": self.omitted + omitted,
        }
        return json.dumps({name: part for name, part in parts.items() if part}, separators=(",", ":"))

    @classmethod
    def from_compact(cls, text: str) -> RequestTrace:
        """Raises InvalidValue for what `compact` does not write, also for forms of other versions."""
        try:
            parts = json.loads(text)
            if parts["v"] != _VERSION:
                raise InvalidValue(f"Version {parts['v']} of traces is not known")
            return cls(
                strategy=parts.get("s", ""),
                candidates=tuple(
                    TracedCandidate(deployment, model, reason, bool(is_fallback))
                    for deployment, model, reason, is_fallback in parts.get("c", ())
                ),
                dropped=tuple(TracedDrop(*entry) for entry in parts.get("d", ())),
                attempts=tuple(_unpacked(*entry) for entry in parts.get("a", ())),
                omitted=parts.get("o", 0),
            )
        except (ValueError, TypeError, KeyError, AttributeError, InvalidOperation) as problem:
            if isinstance(problem, InvalidValue):
                raise
            raise InvalidValue("This is no trace") from problem

    def as_dict(self) -> dict[str, Any]:
        """The trace for programs; costs are exact decimal strings, null when not known."""
        return {
            "strategy": self.strategy or None,
            "candidates": [
                {
                    "deployment": each.deployment,
                    "model": each.model,
                    "reason": each.reason,
                    "is_fallback": each.is_fallback,
                }
                for each in self.candidates
            ],
            "dropped": [
                {"deployment": each.deployment, "model": each.model, "cause": each.cause, "reason": each.reason}
                for each in self.dropped
            ],
            "attempts": [
                {
                    "deployment": each.deployment,
                    "model": each.model,
                    "status": each.status,
                    "error": each.error,
                    "calls": each.calls,
                    "queued_seconds": each.queued_seconds,
                    "seconds": each.seconds,
                    "cost_usd": exact_usd(each.cost),
                    "is_hedge": each.is_hedge,
                }
                for each in self.attempts
            ],
            "omitted": self.omitted,
        }


def _packed(attempt: TracedAttempt) -> list[Any]:
    return [
        _cut(attempt.deployment),
        _cut(attempt.model),
        attempt.status,
        attempt.error and _cut(attempt.error),
        attempt.calls,
        _milliseconds(attempt.queued_seconds),
        _milliseconds(attempt.seconds),
        exact_usd(attempt.cost),
        int(attempt.is_hedge),
    ]


def _unpacked(
    deployment: str,
    model: str,
    status: int | None,
    error: str | None,
    calls: int,
    queued_ms: float,
    ms: float,
    cost: str | None,
    is_hedge: int,
) -> TracedAttempt:
    return TracedAttempt(
        deployment,
        model,
        status,
        error,
        calls,
        queued_ms / 1000,
        ms / 1000,
        None if cost is None else CostAmount(Decimal(cost)),
        bool(is_hedge),
    )


def _cut(text: str) -> str:
    return text[:_TEXT_LENGTH]


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def exact_usd(cost: CostAmount | None) -> str | None:
    """All digits of it, None if it is not known."""
    return None if cost is None else f"{cost.usd.normalize():f}"


def _times(calls: int) -> str:
    return f"*{calls}" if calls > 1 else ""


def _seconds(seconds: float) -> str:
    """At most two decimals: `0.21`, `0.8`, `12`."""
    return f"{seconds:.2f}".rstrip("0").rstrip(".")


@lru_cache(maxsize=1024)
def _plain(text: str) -> str:
    """Names may hold anything; a header may not. The same come again and again."""
    if len(text) <= _NAME_LENGTH and text.isascii() and text.isprintable() and " " not in text:
        return text
    return "".join(character if "!" <= character <= "~" else "?" for character in text[:_NAME_LENGTH])
