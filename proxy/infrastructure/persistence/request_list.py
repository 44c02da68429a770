# ruff: noqa: S608  # every name in these statements is ours; what is not is an argument
"""Rows of the ledger a page at a time: RequestList."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from proxy.application.administration.ports import Page
from proxy.domain.access.scopes import GATEWAY, Scope
from proxy.domain.errors import InvalidRequest
from proxy.domain.usage_report import plain_usd
from proxy.domain.values import name_or_unknown
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, not_serving
from proxy.infrastructure.persistence.sessions import moment, session_within

_TIMEOUT_SECONDS = 15.0
_CURSOR = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_OWNERS: Final = {Scope.KEY: "key_id", Scope.TEAM: "team_id", Scope.ORGANISATION: "organisation_id"}
_FILTERS: Final = {
    "key": "key_id = {}",
    "team": "team_id = {}",
    "model": "model_used = {}",
    "provider": "provider_name = {}",
    "status": "status = {}",
    "end_user": "end_user = {}",
    "request_id": "request_id = {}",
}
_COLUMNS: Final = (
    "id",
    "request_id",
    "timestamp",
    "requested_model",
    "model_used",
    "provider_name",
    "status",
    "http_status",
    "error_type",
    "stream",
    "attempts",
    "was_fallback",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "usage_source",
    "estimated_cost_usd",
    "reported_cost_usd",
    "cost_source",
    "response_time_ms",
    "time_to_first_byte_ms",
    "generation_id",
    "key_id",
    "team_id",
    "organisation_id",
    "end_user",
    "service_tier",
)
_BOOLEANS = ("stream", "was_fallback")
_MONEY = ("estimated_cost_usd", "reported_cost_usd")
_IDS = ("id", "key_id", "team_id", "organisation_id")
_NAMES = ("model_used", "provider_name")
_STEP = Decimal("1e-12")


class LedgerRequestList:
    """Newest first, by time and id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, page: Page) -> Sequence[Mapping[str, Any]]:
        conditions, arguments = ["true"], list[object]()

        def place(value: object) -> str:
            arguments.append(value)
            return f"${len(arguments)}"

        within = "true"
        if page.within != GATEWAY:
            within = f"{_OWNERS[page.within.scope]} = {place(page.within.id)}"
            conditions.append(within)
        for name, value in page.filters.items():
            if name in ("since", "until"):
                sign = ">=" if name == "since" else "<"
                conditions.append(f"timestamp {sign} {place(datetime.fromisoformat(value))}")
            else:
                conditions.append(_FILTERS[name].format(place(value)))
        if page.after is not None:
            if not _CURSOR.fullmatch(page.after):
                raise InvalidRequest("after must be the id of a request.", param="after")
            after = place(page.after)
            conditions.append(
                f"(timestamp, id) < (SELECT timestamp, id FROM request_logs WHERE id = {after} AND {within})"
            )
        statement = (
            f"SELECT {', '.join(_COLUMNS)} FROM request_logs WHERE {' AND '.join(conditions)} "
            f"ORDER BY timestamp DESC, id DESC LIMIT {int(page.limit)}"
        )
        try:
            async with session_within(self._database, _TIMEOUT_SECONDS) as to:
                rows = await to.fetch(statement, *arguments)
        except DATABASE_ERRORS as problem:
            raise not_serving(problem) from problem
        return [_view(dict(zip(_COLUMNS, row, strict=True))) for row in rows]


def _view(columns: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it: money is exact text, and unknown is null."""
    time = moment(columns["timestamp"])
    told: dict[str, Any] = {"timestamp": None if time is None else time.isoformat()}
    told |= {name: None if columns[name] is None else str(columns[name]) for name in _IDS}
    told |= {name: bool(columns[name]) for name in _BOOLEANS}
    told |= {name: name_or_unknown(columns[name]) for name in _NAMES}
    for name in _MONEY:
        amount = columns[name]
        told[name] = None if amount is None else plain_usd(Decimal(amount).quantize(_STEP))
    return {**columns, **told}
