"""What the OpenAPI document says of /admin: its paths, and the schemas of what goes in and comes out.

Bodies are described by what checks them, so the two are never at odds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from proxy.api.admin.bodies import (
    BudgetBody,
    BudgetPatch,
    KeyBody,
    KeyPatch,
    LimitBody,
    LimitPatch,
    OrganisationBody,
    RotateBody,
    TeamBody,
    TenantPatch,
)
from proxy.api.admin.price_bodies import PriceBody
from proxy.api.openai.admin_objects import admin_objects

Schema = dict[str, Any]
_REF: Final = "#/components/schemas/{model}"
_BODIES: Final[tuple[type[BaseModel], ...]] = (
    OrganisationBody,
    TeamBody,
    TenantPatch,
    KeyBody,
    KeyPatch,
    RotateBody,
    BudgetBody,
    BudgetPatch,
    LimitBody,
    LimitPatch,
    PriceBody,
)
_TIMES: Final = ("since", "until")


@dataclass(frozen=True, slots=True)
class _Operation:
    """`answer` is the schema of what comes; `status` its status; `page` its filters if it comes in pages; `query` the
    parameters that are those of `GET /v1/usage`.
    """

    id: str
    summary: str
    answer: str | None
    body: type[BaseModel] | None = None
    status: int = 200
    page: tuple[str, ...] | None = None
    query: tuple[str, ...] = ()


_TENANT_FILTERS: Final = ("name", "disabled")
_OPERATIONS: Final[dict[tuple[str, str], _Operation]] = {
    ("get", "/organisations"): _Operation(
        "listOrganisations", "List organisations", "Organisation", page=_TENANT_FILTERS
    ),
    ("post", "/organisations"): _Operation(
        "createOrganisation", "Create an organisation", "Organisation", OrganisationBody, 201
    ),
    ("get", "/organisations/{id}"): _Operation("getOrganisation", "Get an organisation", "Organisation"),
    ("patch", "/organisations/{id}"): _Operation(
        "updateOrganisation", "Change an organisation", "Organisation", TenantPatch
    ),
    ("get", "/teams"): _Operation("listTeams", "List teams", "Team", page=(*_TENANT_FILTERS, "organisation")),
    ("post", "/teams"): _Operation("createTeam", "Create a team", "Team", TeamBody, 201),
    ("get", "/teams/{id}"): _Operation("getTeam", "Get a team", "Team"),
    ("patch", "/teams/{id}"): _Operation("updateTeam", "Change a team", "Team", TenantPatch),
    ("get", "/keys"): _Operation(
        "listKeys", "List keys", "Key", page=(*_TENANT_FILTERS, "team", "organisation", "owner", "role")
    ),
    ("post", "/keys"): _Operation("createKey", "Create a key, or import one by its hash", "NewKey", KeyBody, 201),
    ("get", "/keys/{id}"): _Operation("getKey", "Get a key", "Key"),
    ("patch", "/keys/{id}"): _Operation("updateKey", "Change a key", "Key", KeyPatch),
    ("post", "/keys/{id}/rotate"): _Operation("rotateKey", "Give a key a new secret", "NewKey", RotateBody),
    ("post", "/keys/{id}/revoke"): _Operation("revokeKey", "Revoke a key, and its old secret", "Key"),
    ("get", "/budgets"): _Operation("listBudgets", "List budgets", "Budget", page=("name", "scope", "subject")),
    ("post", "/budgets"): _Operation("createBudget", "Create a budget", "Budget", BudgetBody, 201),
    ("get", "/budgets/{id}"): _Operation("getBudget", "Tell how a budget stands", "BudgetReport"),
    ("patch", "/budgets/{id}"): _Operation("updateBudget", "Change a budget", "Budget", BudgetPatch),
    ("delete", "/budgets/{id}"): _Operation("deleteBudget", "Delete a budget", None, status=204),
    ("get", "/limits"): _Operation("listLimits", "List rate limits", "RateLimit", page=("scope", "subject")),
    ("post", "/limits"): _Operation("createLimit", "Create a rate limit", "RateLimit", LimitBody, 201),
    ("get", "/limits/{id}"): _Operation("getLimit", "Get a rate limit", "RateLimit"),
    ("patch", "/limits/{id}"): _Operation("updateLimit", "Change a rate limit", "RateLimit", LimitPatch),
    ("delete", "/limits/{id}"): _Operation("deleteLimit", "Delete a rate limit", None, status=204),
    ("get", "/prices"): _Operation("listPrices", "List the prices in force", "Price", page=("name",)),
    ("post", "/prices"): _Operation("setPrice", "Set a model's prices from a moment on", "Price", PriceBody, 201),
    ("get", "/deployments"): _Operation(
        "listDeployments", "List this process's deployments", "Deployment", page=("name",)
    ),
    ("get", "/deployments/{name}"): _Operation("getDeployment", "Get a deployment", "Deployment"),
    ("post", "/deployments/{name}/drain"): _Operation(
        "drainDeployment", "Give a deployment no new requests", "Deployment"
    ),
    ("post", "/deployments/{name}/enable"): _Operation("enableDeployment", "Undo draining", "Deployment"),
    ("get", "/usage"): _Operation(
        "getUsageOfAll", "Sum up usage", "UsageReport", query=("by", *_TIMES, "key", "team", "organisation")
    ),
    ("get", "/requests"): _Operation(
        "listRequests",
        "List booked requests",
        "LedgerRow",
        page=("key", "team", "model", "provider", "status", "end_user", "request_id", *_TIMES),
    ),
    ("get", "/audit"): _Operation(
        "listAudit", "List who changed what", "AuditEntry", page=("actor", "action", "kind", "object", *_TIMES)
    ),
    ("post", "/config/reload"): _Operation("reloadConfig", "Load the configuration file anew", "Configuration"),
}


def admin_schemas() -> dict[str, Schema]:
    """Of bodies and of answers; `<name>Page` where they come in pages."""
    _, defined = models_json_schema([(body, "validation") for body in _BODIES], ref_template=_REF)
    for name, schema in defined["$defs"].items():
        if name.endswith("Patch"):  # what a patch does not name stays, whatever it is
            for member in schema["properties"].values():
                member.pop("default", None)
    objects = admin_objects()
    paged = {each.answer for each in _OPERATIONS.values() if each.page is not None and each.answer}
    return {**defined["$defs"], **objects, **{f"{name}Page": _page(name) for name in sorted(paged)}}


def admin_paths() -> dict[str, Schema]:
    paths: dict[str, Schema] = {}
    for (method, path), operation in _OPERATIONS.items():
        paths.setdefault(f"/admin{path}", {})[method] = _described(path, operation)
    return paths


def problem_response() -> Schema:
    """For every error of the admin API."""
    return {
        "description": "An error (RFC 9457): 400 with the fields that are wrong, 401, 403, 404 also for what is not "
        "the caller's to see, 405, 409 for what is taken, 413, 415, 422, 503 with `Retry-After`.",
        "headers": {name: _header(name) for name in ("x-request-id", "Retry-After", "Allow", "WWW-Authenticate")},
        "content": {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}},
    }


def _described(path: str, operation: _Operation) -> Schema:
    filters = (*(operation.page or ()), *(("limit", "after") if operation.page is not None else ()))
    shared = ({"$ref": f"#/components/parameters/{name.capitalize()}"} for name in operation.query)
    answer: Schema = {
        "description": "Done.",
        "headers": {"x-request-id": _header("x-request-id")},
    }
    if operation.answer is not None:
        name = operation.answer if operation.page is None else f"{operation.answer}Page"
        answer["content"] = _json(name)
    described: Schema = {
        "tags": ["admin"],
        "operationId": operation.id,
        "summary": operation.summary,
        "security": [{"bearer": []}],
        "parameters": [*_places(path), *shared, *(_query(name) for name in filters)],
        "responses": {str(operation.status): answer, "default": {"$ref": "#/components/responses/Problem"}},
    }
    if operation.body is not None:
        is_needed = operation.body is not RotateBody
        described["requestBody"] = {"required": is_needed, "content": _json(operation.body.__name__)}
    return described


def _places(path: str) -> Iterable[Schema]:
    for name in ("id", "name"):
        if f"{{{name}}}" in path:
            note = "Its id, or its name." if name == "id" else "May hold slashes."
            yield {"name": name, "in": "path", "required": True, "description": note, "schema": {"type": "string"}}


def _query(name: str) -> Schema:
    schema: Schema = {"type": "string"}
    if name == "limit":
        schema = {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
    note = {"after": "`next` of the page before.", "name": "A part of the name."}.get(name)
    return {"name": name, "in": "query", "required": False, "schema": schema} | (
        {} if note is None else {"description": note}
    )


def _page(name: str) -> Schema:
    return {
        "type": "object",
        "properties": {
            "data": {"type": "array", "items": {"$ref": _REF.format(model=name)}},
            "next": {"type": ["string", "null"], "description": "Give it as `after` for the next page."},
        },
        "required": ["data", "next"],
    }


def _header(name: str) -> Schema:
    return {"$ref": f"#/components/headers/{name}"}


def _json(name: str) -> Schema:
    return {"application/json": {"schema": {"$ref": _REF.format(model=name)}}}
