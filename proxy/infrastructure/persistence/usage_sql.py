# ruff: noqa: S608  # every name and number in these statements is ours; what is not is an argument
"""The statements of rollups and reports, for both engines; they differ in a few expressions only.

Costs are whole picodollars, summed in two parts (millionths of a dollar, and the rest) so that neither passes 64 bits.
Whom a row is for is text in the sums, '' for nobody, so that it can be grouped and joined by.
A histogram is an array (JSON on SQLite) of integers: the bucket's number in the upper bits, its count in the lower 40.
Rollups sum all rows, by status; which of them are requests, and whose times count, is for the reports to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxy.domain.request_log import CostSource, RequestStatus
from proxy.domain.usage_report import BUCKET_BOUNDS, ERROR_STATUSES, Dimension

_COUNT_BITS = 40
_COUNT_MASK = 2**_COUNT_BITS - 1
_MOST_TOKENS = 10**12  # more in one request is nonsense, and would make the sums overflow
_OWNERS = ("key_id", "team_id", "organisation_id")
_KEYS = f"start, model, provider, status, cost_source, {', '.join(_OWNERS)}"
_OWNERS_OF_ROW = ", ".join(f"COALESCE(CAST({owner} AS VARCHAR(36)), '') AS {owner}" for owner in _OWNERS)
_NAMES: Final = {
    Dimension.KEY: "key_id",
    Dimension.TEAM: "team_id",
    Dimension.ORGANISATION: "organisation_id",
}
_MEASURES = ("response_times", "first_byte_times")
_SUMS = "requests, input_tokens, output_tokens, unknown_costs, microdollars, picodollars"
_ADDED = ", ".join(f"CAST(SUM({name}) AS BIGINT) AS {name}" for name in _SUMS.split(", "))
_SPAN_OF_ROWS = "timestamp >= $1 AND timestamp < $2"
_SPAN_OF_HOURS = "start >= $1 AND start < $2"
_COST_IS_UNKNOWN = f"cost IS NULL AND cost_source <> '{CostSource.NONE.value}'"
_ERRORS = ", ".join(f"'{status.value}'" for status in sorted(ERROR_STATUSES))
_IS_REQUEST = f"status <> '{RequestStatus.HEDGED.value}'"

# Rows that came after their hour was sealed and are not in its sums yet: the change that they left says so.
_LATE_ROWS = """timestamp < (SELECT sealed_until FROM usage_state) AND id IN (
    SELECT row_id FROM usage_changes WHERE hour < (SELECT sealed_until FROM usage_state) AND row_id IS NOT NULL)"""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The expressions in which the engines differ. `{}` stands for the argument."""

    hour: str
    day: str
    day_name: str
    least: str
    picodollars: str
    bucket: str
    pack: str
    unpack: str


_POSTGRES_BOUNDS = f"ARRAY[{', '.join(str(bound) for bound in BUCKET_BOUNDS)}]::bigint[]"
POSTGRES: Final = Dialect(
    hour="date_trunc('hour', {}, 'UTC')",
    day="date_trunc('day', {}, 'UTC')",
    day_name="to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    least="LEAST",
    picodollars="(COALESCE(reported_cost_usd, estimated_cost_usd) * 1000000000000)::bigint",
    bucket=f"width_bucket({{}}::bigint, {_POSTGRES_BOUNDS})",
    pack="array_agg({})",
    unpack="CROSS JOIN LATERAL unnest({}) AS entry(value)",
)
SQLITE: Final = Dialect(
    hour="substr({}, 1, 13) || ':00:00+00:00'",
    day="substr({}, 1, 10) || ' 00:00:00+00:00'",
    day_name="substr({}, 1, 10)",
    least="MIN",
    # NUMERIC is a float here; up to 2,000 USD in a row its nearest picodollar is the one that was written.
    picodollars="CAST(ROUND(COALESCE(reported_cost_usd, estimated_cost_usd) * 1e12) AS INTEGER)",
    bucket="latency_bucket({})",
    pack="json_group_array({})",
    unpack="JOIN json_each({}) AS entry",
)


class UsageSql:
    """The statements for one engine. A span is the two arguments `$1` (included) and `$2` (excluded).

    Sums have the columns name, cost_source, six sums of all rows (the first is how many), and of these the requests and
    the errors. Times are those of requests, and have name, measure, bucket and count.
    """

    def __init__(self, *, is_postgres: bool, only_rows: str = "", only_sums: str = "") -> None:
        """`only_…` are further conditions (` AND …`) on the owners of what is read, with arguments from `$3` on."""
        self._dialect = POSTGRES if is_postgres else SQLITE
        self._rows = _SPAN_OF_ROWS + only_rows
        self._hours = _SPAN_OF_HOURS + only_sums

    def roll_up_hours(self) -> str:
        """From the rows of a span of whole hours."""
        return self._insert_hours(_SPAN_OF_ROWS)

    def fold_late_rows(self) -> str:
        """Late rows of sealed hours, beside the sums that are there: reports add up whatever an hour has."""
        return self._insert_hours(_LATE_ROWS)

    def roll_up_days(self) -> str:
        """From the hours of a span of whole days."""
        start = f"{self._dialect.day.format('start')} AS start"
        keys = _KEYS.replace("start", start)
        hours = f"SELECT {keys}, {_SUMS} FROM usage_hourly WHERE {_SPAN_OF_HOURS}"
        return self._insert(
            "usage_daily",
            f"sums AS (SELECT {_KEYS}, {_ADDED} FROM ({hours}) AS one GROUP BY {_KEYS})",
            {measure: self._entries(keys, "usage_hourly", measure) for measure in _MEASURES},
        )

    def sums_of_rows(self, by: Dimension) -> str:
        """From the rows themselves."""
        return self._sums_of(by, self._booked(self._rows))

    def sums_of_late_rows(self, by: Dimension) -> str:
        """From late rows in the span."""
        return self._sums_of(by, self._booked(f"{self._rows} AND {_LATE_ROWS}"))

    def sums_of_rollup(self, by: Dimension, table: str) -> str:
        """From `usage_hourly` or `usage_daily`."""
        return self._sums(by, f"{table} WHERE {self._hours}")

    def times_of_rows(self, by: Dimension) -> str:
        """From the rows themselves."""
        return self._times_of(by, self._booked(self._rows))

    def times_of_late_rows(self, by: Dimension) -> str:
        """From late rows in the span."""
        return self._times_of(by, self._booked(f"{self._rows} AND {_LATE_ROWS}"))

    def times_of_rollup(self, by: Dimension, table: str) -> str:
        """From `usage_hourly` or `usage_daily`."""
        return " UNION ALL ".join(
            f"SELECT name, '{measure}' AS measure, bucket, CAST(SUM(n) AS BIGINT) AS n"
            f" FROM ({self._entries(f'{self._name(by)} AS name', table, measure)} AND {_IS_REQUEST}) AS entries"
            " GROUP BY name, bucket"
            for measure in _MEASURES
        )

    def _booked(self, condition: str) -> str:
        dialect = self._dialect
        return f"""SELECT {dialect.hour.format("timestamp")} AS start, model_used AS model, provider_name AS provider,
                status, cost_source, {_OWNERS_OF_ROW},
                {dialect.least}(input_tokens, {_MOST_TOKENS}) AS input_tokens,
                {dialect.least}(output_tokens, {_MOST_TOKENS}) AS output_tokens, {dialect.picodollars} AS cost,
                {dialect.bucket.format("response_time_ms")} AS response_times,
                {dialect.bucket.format("time_to_first_byte_ms")} AS first_byte_times
            FROM request_logs WHERE {condition}"""

    def _insert_hours(self, condition: str) -> str:
        return self._insert(
            "usage_hourly",
            f"booked AS ({self._booked(condition)}), sums AS ({_counted('booked')})",
            {m: f"SELECT {_KEYS}, {m} AS bucket, 1 AS n FROM booked WHERE {m} IS NOT NULL" for m in _MEASURES},
        )

    def _insert(self, table: str, sources: str, buckets: dict[str, str]) -> str:
        """`sources` end with `sums`; `buckets` give key, bucket and n of each measure, as often as they like."""
        pack = self._dialect.pack.format(f"(CAST(bucket AS BIGINT) << {_COUNT_BITS}) + CAST(n AS BIGINT)")
        histograms = ", ".join(
            f"""{measure}_of AS (SELECT {_KEYS}, {pack} AS {measure} FROM (
                SELECT {_KEYS}, bucket, SUM(n) AS n FROM ({query}) AS one GROUP BY {_KEYS}, bucket
            ) AS counted GROUP BY {_KEYS})"""
            for measure, query in buckets.items()
        )
        joins = " ".join(f"LEFT JOIN {measure}_of USING ({_KEYS})" for measure in buckets)
        columns = f"{_KEYS}, {_SUMS}, {', '.join(buckets)}"
        return f"WITH {sources}, {histograms} INSERT INTO {table} ({columns}) SELECT {columns} FROM sums {joins}"

    def _entries(self, keys: str, table: str, measure: str) -> str:
        unpack = self._dialect.unpack.format(measure)
        entry = f"entry.value >> {_COUNT_BITS} AS bucket, entry.value & {_COUNT_MASK} AS n"
        return f"SELECT {keys}, {entry} FROM {table} {unpack} WHERE {self._hours}"

    def _sums_of(self, by: Dimension, rows: str) -> str:
        counted = _counted(f"({rows}) AS booked")
        return self._sums(by, f"({counted}) AS counted")

    def _sums(self, by: Dimension, source: str) -> str:
        requests, errors = (
            f"CAST(SUM(CASE WHEN {which} THEN requests ELSE 0 END) AS BIGINT)"
            for which in (_IS_REQUEST, f"status IN ({_ERRORS})")
        )
        sums = f"{_ADDED}, {requests} AS of_requests, {errors} AS errors"
        return f"SELECT {self._name(by)} AS name, cost_source, {sums} FROM {source} GROUP BY 1, 2"

    def _times_of(self, by: Dimension, rows: str) -> str:
        return f"WITH booked AS ({rows}) " + " UNION ALL ".join(
            f"SELECT {self._name(by)} AS name, '{measure}' AS measure, {measure} AS bucket, COUNT(*) AS n"
            f" FROM booked WHERE {measure} IS NOT NULL AND {_IS_REQUEST} GROUP BY 1, 3"
            for measure in _MEASURES
        )

    def _name(self, by: Dimension) -> str:
        return self._dialect.day_name.format("start") if by is Dimension.DAY else _NAMES.get(by, by.value)


def _counted(booked: str) -> str:
    """Sums by key."""
    return f"""SELECT {_KEYS}, COUNT(*) AS requests, SUM(input_tokens) AS input_tokens,
            SUM(output_tokens) AS output_tokens, COUNT(*) FILTER (WHERE {_COST_IS_UNKNOWN}) AS unknown_costs,
            COALESCE(SUM(cost / 1000000), 0) AS microdollars, COALESCE(SUM(cost % 1000000), 0) AS picodollars
        FROM {booked} GROUP BY {_KEYS}"""
