"""The question as it is asked, percentiles within their stated error, and sums as they are told."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from math import ceil

import pytest

from proxy.domain.errors import InvalidRequest
from proxy.domain.usage_report import (
    BUCKET_BOUNDS,
    Dimension,
    Usage,
    UsageQuery,
    UsageReport,
    bucket_of,
    percentile,
    usage_query,
)


def test_every_time_is_told_within_five_percent_and_exactly_up_to_twenty() -> None:
    edges = [time for low, high in pairwise(BUCKET_BOUNDS) for time in (low, high - 1)]
    for time in [*range(2000), *edges]:
        told = percentile({bucket_of(time): 1}, Decimal("0.5"))
        assert told is not None
        assert abs(told - time) <= (0 if time <= 20 else 0.05 * time)
    assert BUCKET_BOUNDS[-1] > 2**31 - 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 19, 20, 21, 100, 493])
@pytest.mark.parametrize("share", ["0.5", "0.95", "1"])
def test_percentiles_are_nearest_ranks(count: int, share: str) -> None:
    times = [random.Random(count).randrange(21) for _ in range(count)]  # noqa: S311
    expected = sorted(times)[ceil(Decimal(share) * count) - 1]
    assert percentile(Counter(bucket_of(time) for time in times), Decimal(share)) == expected


def test_no_times_have_no_percentile() -> None:
    assert percentile({}, Decimal("0.5")) is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22T18:30", datetime(2026, 11, 22, 18, 30, tzinfo=UTC)),
        ("2026-11-22 18:30:01", datetime(2026, 11, 22, 18, 30, 1, tzinfo=UTC)),
        ("2026-11-22T18:30:00Z", datetime(2026, 11, 22, 18, 30, tzinfo=UTC)),
        ("2026-11-22T18:30:00+09:00", datetime(2026, 11, 22, 9, 30, tzinfo=UTC)),
        ("2026-11-22T18:30:00 09:00", datetime(2026, 11, 22, 9, 30, tzinfo=UTC)),  # a + that was not escaped
        ("2026-11-22T18:30:00.5-03:30", datetime(2026, 11, 22, 22, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_dates_and_times_are_utc_unless_they_have_a_zone(text: str, moment: datetime) -> None:
    query = usage_query({"by": ["day"], "since": [text]})
    assert query == UsageQuery(Dimension.DAY, moment)
    assert query.since is not None
    assert query.since.utcoffset() == moment.utcoffset()


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({}, "by"),
        ({"by": ["colour"]}, "by"),
        ({"by": [""]}, "by"),
        ({"by": ["model", "day"]}, "by"),
        ({"by": ["model"], "since": ["yesterday"]}, "since"),
        ({"by": ["model"], "since": [""]}, "since"),
        ({"by": ["model"], "until": ["2026-02-30"]}, "until"),
        ({"by": ["model"], "until": ["0001-01-01T00:00+09:00"]}, "until"),
        ({"by": ["model"], "since": ["2026-11-22"], "until": ["2026-11-22"]}, "until"),
        ({"by": ["model"], "since": ["2026-11-22T00:00-01:00"], "until": ["2026-11-22T00:30Z"]}, "until"),
        ({"by": ["model"], "form": ["2026-11-22"]}, "form"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(arguments: dict[str, list[str]], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        usage_query(arguments)
    assert refused.value.param == param
    assert f"'{param}'" in str(refused.value)


def test_amounts_keep_every_digit() -> None:
    usage = Usage(picodollars=Counter(reported=10**40 + 1, computed=5 * 10**11))
    assert str(usage.cost_usd("reported")) == "10000000000000000000000000000.000000000001"
    assert usage.cost_usd("unknown") == 0


def test_rows_are_ordered_and_the_total_is_of_all() -> None:
    groups = {"b": Usage(requests=1), "a": Usage(requests=1), "c": Usage(requests=5, picodollars=Counter(computed=1))}
    by_model = UsageReport.of(UsageQuery(Dimension.MODEL), groups)
    assert list(by_model.rows) == ["c", "a", "b"]
    assert by_model.total().requests == 7
    assert list(UsageReport.of(UsageQuery(Dimension.DAY), groups).rows) == ["a", "b", "c"]
    told = json.loads(json.dumps(by_model.as_dict()))
    assert told["data"][0]["model"] == "c"
    assert told["total"]["cost_usd"] == "0.000000000001"
    assert told["data"][1]["cost_usd"] == "0"
    assert told["total"]["response_time_ms"] == {"p50": None, "p95": None}
