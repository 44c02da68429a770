"""JSON Schemas of what the admin API answers with."""

from __future__ import annotations

from typing import Any, Final

from proxy.domain.access.permissions import Role
from proxy.domain.access.scopes import Scope
from proxy.domain.pricing import PRICES

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_COUNT_OR_NULL: Final[Schema] = {"type": ["integer", "null"]}
_USD: Final[Schema] = {"type": "string", "description": "USD, an exact decimal."}
_WORDS: Final[Schema] = {"type": "array", "items": _TEXT}
_WORDS_OR_NULL: Final[Schema] = {"type": ["array", "null"], "items": _TEXT}
_OBJECT: Final[Schema] = {"type": "object"}
_TENANT: Final[Schema] = {
    "id": _TEXT,
    "name": _TEXT,
    "models": _WORDS_OR_NULL,
    "metadata": _OBJECT,
    "disabled": _BOOLEAN,
    "created_at": _TEXT,
}
_KEY: Final[Schema] = {
    **_TENANT,
    "hint": _TEXT,
    "owner": _TEXT_OR_NULL,
    "role": {"enum": [role.value for role in Role]},
    "calls_models": _BOOLEAN,
    "organisation_id": _TEXT_OR_NULL,
    "team_id": _TEXT_OR_NULL,
    "endpoints": _WORDS_OR_NULL,
    "tags": _WORDS,
    "priority": {"enum": ["low", "normal", "high"]},
    "expires_at": _TEXT_OR_NULL,
    "previous_key_until": _TEXT_OR_NULL,
    "created_by": _TEXT,
}
_RULE: Final[Schema] = {"id": _TEXT, "scope": {"enum": [scope.value for scope in Scope]}, "subject": _TEXT}
_BUDGET: Final[Schema] = {
    **_RULE,
    "name": _TEXT,
    "amount_usd": _USD,
    "period": _TEXT,
    "hard": _BOOLEAN,
    "warn_percent": {"type": "integer"},
}
_PRICE: Final[Schema] = {
    "model": _TEXT,
    **dict.fromkeys(PRICES, _TEXT_OR_NULL),
    "tiers": {
        "type": "array",
        "description": "Prices of some requests, exact decimals; the first whose conditions are true counts.",
        "items": {
            "type": "object",
            "properties": {
                "above_input_tokens": {"type": "integer"},
                "service_tier": _TEXT,
                **dict.fromkeys(PRICES, _TEXT),
            },
            "additionalProperties": False,
        },
    },
    "max_context_tokens": _COUNT_OR_NULL,
    "valid_from": _TEXT,
    "source": _TEXT,
}


def admin_objects() -> dict[str, Schema]:
    limits = ("requests", "tokens", "input_tokens", "output_tokens")
    return {
        "Organisation": _closed(_TENANT),
        "Team": _closed({**_TENANT, "organisation_id": _TEXT_OR_NULL}),
        "Key": _closed(_KEY),
        "NewKey": _closed({**_KEY, "key": {**_TEXT, "description": "Told here only; not of imported keys."}}, "key"),
        "Budget": _closed(_BUDGET),
        "BudgetReport": _closed({**_BUDGET, "resets_at": _TEXT_OR_NULL, "subjects": _list(_standing())}),
        "RateLimit": _closed(
            {
                **_RULE,
                **{f"{name}_per_minute": _COUNT_OR_NULL for name in limits},
                "concurrent_requests": _COUNT_OR_NULL,
            }
        ),
        "Price": _closed(_PRICE),
        "Deployment": _open({"name": _TEXT, "drained": _BOOLEAN}),
        "LedgerRow": _open({"id": _TEXT, "request_id": _TEXT, "timestamp": _TEXT, "status": _TEXT}),
        "AuditEntry": _audit_entry(),
        "Problem": _problem(),
    }


def _standing() -> Schema:
    lease = _closed({"holder": _TEXT, "leased_usd": _USD, "reserved_usd": _USD})
    amounts = ("spent_usd", "leased_usd", "reserved_usd", "remaining_usd")
    return _closed({"subject": _TEXT, **dict.fromkeys(amounts, _USD), "warning": _BOOLEAN, "leases": _list(lease)})


def _audit_entry() -> Schema:
    words = ("id", "timestamp", "actor", "action", "object_kind", "object_id")
    view = {"type": ["object", "null"], "description": "Never with a secret or a hash."}
    return _closed({**dict.fromkeys(words, _TEXT), "before": view, "after": view, "request_id": _TEXT_OR_NULL})


def _problem() -> Schema:
    return _closed(
        {
            "type": {**_TEXT, "description": "`urn:llmgateway:<code>`"},
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "errors": _list(_closed({"field": _TEXT, "message": _TEXT})),
        },
        "errors",
    )


def _closed(properties: Schema, *optional: str) -> Schema:
    """An object with these members; all but the optional ones are always there."""
    return {**_open(properties, *optional), "additionalProperties": False}


def _open(properties: Schema, *optional: str) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
