"""JSON Schemas of booked requests and their traces."""

from __future__ import annotations

from typing import Any

from proxy.domain.request_log import CostSource, RequestStatus, UsageSource

Schema = dict[str, Any]


def request_schemas() -> dict[str, Schema]:
    """What `GET /v1/requests/{request_id}` answers with."""
    return {
        "BookedRequest": _closed(
            {
                "object": {"const": "request"},
                **_row(),
                "trace": {"oneOf": [{"$ref": "#/components/schemas/RequestTrace"}, {"type": "null"}]},
                "others": _list_of(
                    _closed({"id": _text(), "timestamp": _text(), "status": _text()}),
                    "Rows of the same request id: calls that lost against a faster one, or other requests.",
                ),
            },
            "A row of the ledger. The trace is null where LLMGATEWAY_TRACES keeps none, or no more.",
        ),
        "RequestTrace": _closed(
            {
                "strategy": _text(null=True, description="How the candidates were put in order."),
                "candidates": _list_of(_candidate(), "The plan, best first."),
                "dropped": _list_of(_drop(), "Deployments that were left out."),
                "attempts": _list_of(_attempt(), "In the order in which they began."),
                "omitted": _count("Entries that there was no room for."),
            },
            "Why the request went where it went.",
        ),
        "Route": _route(),
    }


def _route() -> Schema:
    place = {"deployment": _text(null=True), "provider": _text(null=True), "model": _text(null=True)}
    reasoned = {**place, "public_model": _text(), "reason": _text()}
    return _closed(
        {
            "object": {"const": "route"},
            "requested": _text(),
            "model": _text(description="The public name that it led to."),
            "strategy": _text(),
            "candidates": _list_of(_closed({**reasoned, "is_fallback": {"type": "boolean"}}), "Best first."),
            "dropped": _list_of(
                _closed({**reasoned, "cause": _text(), "retry_after_seconds": {"type": ["number", "null"]}}),
                "Deployments that would be left out.",
            ),
            "max_attempts": _count("Upstream calls that the request may make."),
            "request_timeout_seconds": {"type": "number"},
            "deployments": {"type": "object", "additionalProperties": {"type": "object"}},
        },
        "A plan, and the state of its deployments at this moment.",
    )


def _row() -> dict[str, Schema]:
    return {
        "id": _text(description="Of the row."),
        "request_id": _text(description="Of the request, as in x-request-id."),
        "timestamp": _text(description="When it came in, ISO 8601."),
        "requested_model": _text(null=True),
        "model": _text(),
        "provider": _text(),
        "status": {"enum": [status.value for status in RequestStatus]},
        "http_status": {"type": ["integer", "null"]},
        "error_type": _text(null=True),
        "stream": {"type": "boolean"},
        "attempts": _count("Upstream calls."),
        "was_fallback": {"type": "boolean"},
        "input_tokens": _count(),
        "output_tokens": _count(),
        "cached_tokens": {"type": ["integer", "null"]},
        "reasoning_tokens": {"type": ["integer", "null"]},
        "usage_source": {"enum": [source.value for source in UsageSource]},
        "estimated_cost_usd": _text(null=True, description="Computed from prices, an exact decimal."),
        "reported_cost_usd": _text(null=True, description="As the upstream billed it."),
        "cost_source": {"enum": [source.value for source in CostSource]},
        "response_time_ms": _count(),
        "time_to_first_byte_ms": {"type": ["integer", "null"]},
        "generation_id": _text(null=True, description="The upstream's own name for what it generated."),
        "key_id": _text(null=True, description="Whose key it was; null without one."),
        "team_id": _text(null=True, description="The key's team at that time."),
        "organisation_id": _text(null=True),
        "end_user": _text(null=True, description="What x-gateway-user said, else the body's `user`."),
        "service_tier": _text(null=True, description="Whose prices held, like flex; null for the usual one."),
    }


def _candidate() -> Schema:
    return _closed({"deployment": _text(), "model": _text(), "reason": _text(), "is_fallback": {"type": "boolean"}})


def _drop() -> Schema:
    cause = _text(description="A stable word for the kind of reason.")
    return _closed({"deployment": _text(), "model": _text(), "cause": cause, "reason": _text()})


def _attempt() -> Schema:
    return _closed(
        {
            "deployment": _text(),
            "model": _text(),
            "status": {"type": ["integer", "null"], "description": "The last one that the upstream gave."},
            "error": _text(null=True, description="What went wrong; null if nothing did."),
            "calls": _count("Upstream calls, retries included."),
            "queued_seconds": {"type": "number", "description": "Waited for a place at the deployment."},
            "seconds": {"type": "number", "description": "From there to the answer's beginning, or the failure."},
            "cost_usd": _text(null=True, description="An exact decimal; null when not known."),
            "is_hedge": {"type": "boolean", "description": "Made beside another one that was slow."},
        }
    )


def _closed(properties: dict[str, Schema], description: str = "") -> Schema:
    """An object with all of those members."""
    schema: Schema = {"type": "object", "properties": properties, "required": list(properties)}
    return schema | ({"description": description} if description else {})


def _list_of(items: Schema, description: str) -> Schema:
    return {"type": "array", "items": items, "description": description}


def _text(*, null: bool = False, description: str = "") -> Schema:
    schema: Schema = {"type": ["string", "null"] if null else "string"}
    return schema | ({"description": description} if description else {})


def _count(description: str = "") -> Schema:
    return {"type": "integer"} | ({"description": description} if description else {})
