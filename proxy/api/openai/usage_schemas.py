"""JSON Schemas of usage reports, and of what a caller is told of itself."""

from __future__ import annotations

from typing import Any

from proxy.domain.access.permissions import Permission
from proxy.domain.access.principals import PrincipalKind
from proxy.domain.access.scopes import Scope
from proxy.domain.budgets import Period
from proxy.domain.rate_limits import Priority
from proxy.domain.usage_report import OWNERS, Dimension

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_COUNT: Schema = {"type": "integer"}
_USD: Schema = {"type": "string", "description": "USD, an exact decimal."}
_WORDS: Schema = {"type": "array", "items": _TEXT}


def usage_schemas() -> dict[str, Schema]:
    """What `GET /v1/usage` and `GET /v1/me` answer with."""
    return {"UsageFigures": _figures(), "UsageReport": _report(), "Me": _me()}


def _figures() -> Schema:
    time = {"type": ["integer", "null"], "description": "In ms: exact up to 20, within 5 % above."}
    percentiles = _closed({"p50": time, "p95": time})
    return _closed(
        {
            "requests": {**_COUNT, "description": "Hedged calls that lost are none; their tokens and costs count."},
            "errors": {**_COUNT, "description": "Neither succeeded, nor replayed, nor given up by the client."},
            "input_tokens": _COUNT,
            "output_tokens": _COUNT,
            "cost_usd": _USD,
            "cost_usd_by_source": {
                "type": "object",
                "additionalProperties": _USD,
                "description": "Reported by the upstream, or computed from the price table.",
            },
            "requests_of_unknown_cost": {
                **_COUNT,
                "description": "Not in the cost. Hedged calls that lost are among them, requests for which nothing was "
                "billed are not.",
            },
            "response_time_ms": percentiles,
            "time_to_first_byte_ms": percentiles,
        }
    )


def _report() -> Schema:
    figures = _figures()["properties"]
    group: dict[str, Schema] = {
        dimension.value: {"type": "string", "description": "If it is what the report is grouped by."}
        for dimension in Dimension
    }
    for owner in OWNERS:
        group[owner.value] = {**_TEXT_OR_NULL, "description": "Its id; null stands for requests without one."}
        group[f"{owner.value}_name"] = {**_TEXT_OR_NULL, "description": "Null where there is none any more."}
    rows = {"type": "object", "properties": {**group, **figures}, "required": list(figures)}
    return _closed(
        {
            "object": {"const": "usage.report"},
            "by": {"enum": [dimension.value for dimension in Dimension]},
            "since": _TEXT_OR_NULL,
            "until": _TEXT_OR_NULL,
            "data": {"type": "array", "items": rows},
            "total": {"$ref": "#/components/schemas/UsageFigures"},
        }
    )


def _me() -> Schema:
    figures = {"$ref": "#/components/schemas/UsageFigures"}
    owner = {"oneOf": [_closed({"id": _TEXT, "name": _TEXT_OR_NULL}), {"type": "null"}]}
    key = _closed(
        {
            "id": _TEXT,
            "hint": {**_TEXT_OR_NULL, "description": "The end of it, to tell it from others."},
            "expires_at": _TEXT_OR_NULL,
            "tags": _WORDS,
            "priority": {"enum": [priority.name.lower() for priority in Priority]},
        }
    )
    return _closed(
        {
            "object": {"const": "me"},
            "kind": {"enum": [kind.value for kind in PrincipalKind]},
            "id": _TEXT,
            "name": _TEXT,
            "permissions": {"type": "array", "items": {"enum": [permission.value for permission in Permission]}},
            "reach": {**_TEXT, "description": "Whose things it may see: `gateway`, or a scope and an id."},
            "key": {"oneOf": [key, {"type": "null"}]},
            "team": owner,
            "organisation": owner,
            "models": {**_WORDS, "description": "Those of `/v1/models` that it may use."},
            "endpoints": {"oneOf": [_WORDS, {"type": "null"}], "description": "Null is all."},
            "limits": {"type": "array", "items": _limit()},
            "budgets": {"type": "array", "items": _budget()},
            "usage": _closed({"of": _TEXT, "today": figures, "this_month": figures}),
        }
    )


def _limit() -> Schema:
    level = {
        "type": "object",
        "properties": {
            "limit": _COUNT,
            "remaining": {"type": ["integer", "null"], "description": "Null where it is not known."},
        },
    }
    scope = {"enum": [scope.value for scope in Scope]}
    return {"type": "object", "properties": {"scope": scope}, "additionalProperties": level, "required": ["scope"]}


def _budget() -> Schema:
    return _closed(
        {
            "id": _TEXT,
            "name": _TEXT,
            "scope": {"enum": [scope.value for scope in Scope]},
            "period": {"enum": [period.value for period in Period]},
            "window_seconds": {"type": ["integer", "null"], "description": "Of a rolling window."},
            "is_hard": {"type": "boolean"},
            "amount_usd": _USD,
            "spent_usd": {**_USD, "description": "By all whom the budget is for; booked requests only."},
            "remaining_usd": _USD,
            "resets_at": {**_TEXT_OR_NULL, "description": "Null for a budget that is never reset."},
        }
    )


def _closed(properties: dict[str, Schema]) -> Schema:
    """An object with all of those members."""
    return {"type": "object", "properties": properties, "required": list(properties)}
