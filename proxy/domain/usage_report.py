"""What was used, by whom it was served and what it cost: the question, and the answer's rows.

Times to percentiles are counted in fixed buckets, so that hours can be added up. A bucket is at most a tenth as wide as
its least value, and a percentile is given as its bucket's middle: exact up to 20 ms, within 5 % above.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from math import ceil
from typing import Final

from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.errors import InvalidRequest
from proxy.domain.request_log import RequestStatus
from proxy.domain.storable import check_storable

ERROR_STATUSES: Final = frozenset(RequestStatus) - {
    RequestStatus.SUCCESS,
    RequestStatus.REPLAYED,
    RequestStatus.CLIENT_DISCONNECTED,
    RequestStatus.HEDGED,
}
_LONGEST_MS = 2**31 - 1
_PICODOLLARS_EXPONENT = -12


def _bucket_bounds() -> tuple[int, ...]:
    bounds = [1]
    while bounds[-1] <= _LONGEST_MS:
        bounds.append(max(bounds[-1] + 1, bounds[-1] * 11 // 10))
    return tuple(bounds)


BUCKET_BOUNDS: Final = _bucket_bounds()


def bucket_of(milliseconds: int) -> int:
    """The bucket that counts a time; 0 holds the zeros."""
    return bisect_right(BUCKET_BOUNDS, milliseconds)


def percentile(buckets: Mapping[int, int], share: Decimal) -> int | None:
    """The time in ms that this share of the counted times does not pass (nearest rank); None if none was counted."""
    rank = ceil(sum(buckets.values()) * share)
    for bucket in sorted(buckets):
        rank -= buckets[bucket]
        if rank <= 0:
            return 0 if bucket == 0 else (BUCKET_BOUNDS[bucket - 1] + BUCKET_BOUNDS[bucket] - 1) // 2
    return None


class Dimension(StrEnum):
    """What a report's rows are grouped by; days are UTC days, keys, teams and organisations their ids ('' is none)."""

    MODEL = "model"
    PROVIDER = "provider"
    DAY = "day"
    STATUS = "status"
    KEY = "key"
    TEAM = "team"
    ORGANISATION = "organisation"


OWNERS: Final[Mapping[Dimension, Scope]] = {
    Dimension.KEY: Scope.KEY,
    Dimension.TEAM: Scope.TEAM,
    Dimension.ORGANISATION: Scope.ORGANISATION,
}


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Requests from `since` (included) to `until` (excluded); None is no bound.

    `of` are keys, teams and organisations by id or name, each of which must own a request; `within` is what the asker
    may see, by id.
    """

    by: Dimension
    since: datetime | None = None
    until: datetime | None = None
    of: tuple[Subject, ...] = ()
    within: Subject = GATEWAY


@dataclass(slots=True)
class Usage:
    """Sums over some rows. An unknown cost is counted, not added as zero; where nothing was billed it is neither.

    `picodollars` holds the known cost (billed, else computed) by its source. Rows of status `hedged` are no requests,
    and their times do not count, but their tokens, costs and unknown costs do.
    """

    requests: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    requests_of_unknown_cost: int = 0
    picodollars: Counter[str] = field(default_factory=Counter)
    response_times: Counter[int] = field(default_factory=Counter)
    first_byte_times: Counter[int] = field(default_factory=Counter)

    def add(self, other: Usage) -> None:
        """Count the other's requests too."""
        self.requests += other.requests
        self.errors += other.errors
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.requests_of_unknown_cost += other.requests_of_unknown_cost
        self.picodollars.update(other.picodollars)
        self.response_times.update(other.response_times)
        self.first_byte_times.update(other.first_byte_times)

    def cost_usd(self, source: str | None = None) -> Decimal:
        """The exact sum of the known costs, of one source or of all."""
        amount = self.picodollars.total() if source is None else self.picodollars[source]
        return Decimal((int(amount < 0), tuple(map(int, str(abs(amount)))), _PICODOLLARS_EXPONENT))


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The rows by the value of the query's dimension: days in order, the others by falling number of requests.

    `names` are those of keys, teams or organisations that there still are, by id.
    """

    query: UsageQuery
    rows: Mapping[str, Usage]
    names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, query: UsageQuery, groups: Mapping[str, Usage], names: Mapping[str, str] | None = None) -> UsageReport:
        """The report with its rows in order."""
        if query.by is Dimension.DAY:
            return cls(query, dict(sorted(groups.items())))
        ordered = dict(sorted(groups.items(), key=lambda item: (-item[1].requests, item[0])))
        return cls(query, ordered, names or {})

    def total(self) -> Usage:
        """All rows together."""
        total = Usage()
        for row in self.rows.values():
            total.add(row)
        return total

    def as_dict(self) -> dict[str, object]:
        """For machines: costs are exact decimal strings, times are ms, null is "not known"."""
        query = self.query
        return {
            "object": "usage.report",
            "by": query.by.value,
            "since": None if query.since is None else query.since.isoformat(),
            "until": None if query.until is None else query.until.isoformat(),
            "data": [{**self._label(name), **usage_figures(usage)} for name, usage in self.rows.items()],
            "total": usage_figures(self.total()),
        }

    def _label(self, name: str) -> dict[str, str | None]:
        by = self.query.by
        if by not in OWNERS:
            return {by.value: name}
        return {by.value: name or None, f"{by.value}_name": self.names.get(name)}


_MEDIAN, _P95 = Decimal("0.5"), Decimal("0.95")


def usage_figures(usage: Usage) -> dict[str, object]:
    """The sums for machines."""
    return {
        "requests": usage.requests,
        "errors": usage.errors,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": plain_usd(usage.cost_usd()),
        "cost_usd_by_source": {source: plain_usd(usage.cost_usd(source)) for source in sorted(usage.picodollars)},
        "requests_of_unknown_cost": usage.requests_of_unknown_cost,
        "response_time_ms": _percentiles(usage.response_times),
        "time_to_first_byte_ms": _percentiles(usage.first_byte_times),
    }


def _percentiles(times: Counter[int]) -> dict[str, int | None]:
    return {"p50": percentile(times, _MEDIAN), "p95": percentile(times, _P95)}


def plain_usd(amount: Decimal) -> str:
    """An exact decimal without an exponent or zeros that say nothing."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_ARGUMENTS: Final = ("by", "since", "until", *(owner.value for owner in OWNERS))


def usage_query(arguments: Mapping[str, Sequence[str]], within: Subject = GATEWAY) -> UsageQuery:
    """The question as it was asked in words; `param` of the error names the argument.

    Raises:
        InvalidRequest: an argument that is unknown, missing, given twice or not understood.
    """
    for name, values in arguments.items():
        if name not in _ARGUMENTS:
            raise InvalidRequest(f"Unknown argument '{name}'; known are {', '.join(_ARGUMENTS)}.", param=name)
        if len(values) != 1:
            raise InvalidRequest(f"Argument '{name}' is given {len(values)} times.", param=name)
        check_storable(name, values[0])
    since, until = (_moment(name, arguments[name][0]) if name in arguments else None for name in ("since", "until"))
    if since is not None and until is not None and since >= until:
        raise InvalidRequest("'until' must be later than 'since'; it is not included itself.", param="until")
    of = tuple(Subject(scope, arguments[owner.value][0]) for owner, scope in OWNERS.items() if owner in arguments)
    return UsageQuery(_dimension(arguments), since, until, of, within)


def _dimension(arguments: Mapping[str, Sequence[str]]) -> Dimension:
    known = ", ".join(Dimension)
    if "by" not in arguments:
        raise InvalidRequest(
            f"Argument 'by' is missing; it is one of {known}.", param="by", code="missing_required_parameter"
        )
    try:
        return Dimension(arguments["by"][0])
    except ValueError:
        raise InvalidRequest(f"Argument 'by' must be one of {known}.", param="by") from None


def _moment(name: str, text: str) -> datetime:
    """An ISO date or time, in UTC unless it has a zone. A `+` that a URL has turned into a space is put back."""
    if "T" in text:
        text = text.replace(" ", "+")
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"Argument '{name}' must be an ISO date or time, as 2026-11-22 or 2026-11-22T18:30:00+01:00.", param=name
        ) from None
