"""The API's description for machines: an OpenAPI 3.1 document, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from proxy import __version__
from proxy.api.openai.admin_schemas import admin_paths, admin_schemas, problem_response
from proxy.api.openai.document_examples import ANSWER, ERRORS, REQUESTS, STREAM
from proxy.api.openai.errors import error_object, status_of
from proxy.api.openai.object_schemas import object_schemas
from proxy.domain.errors import ObjectNotFound, RequestNotFound
from proxy.domain.usage_report import Dimension

Document = dict[str, Any]

_DESCRIPTION = """\
An OpenAI-compatible gateway: point any OpenAI client's `base_url` at `/v1` of this server.

Fields that the gateway does not know pass through. Every request is booked once, with its tokens and cost.
"""

_ERRORS_OF_EVERY_PATH = (405, 500)
_LIMIT_HEADERS = (
    *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
    "x-gateway-limits",
)
_ERROR_HEADERS = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    402: ("Retry-After",),
    409: ("x-should-retry",),
    429: ("Retry-After", "x-should-retry", *_LIMIT_HEADERS),
    500: ("x-should-retry",),
    502: ("x-should-retry",),
    503: ("Retry-After", "x-should-retry"),
    504: ("x-should-retry",),
}
_ANSWER_HEADERS = (
    "x-gateway-provider",
    "x-gateway-model",
    "x-gateway-attempts",
    "x-gateway-cost-usd",
    "x-gateway-overhead-ms",
    "x-gateway-trace",
    *_LIMIT_HEADERS,
    "x-gateway-budget-warning",
)


@cache
def openapi_document() -> Document:
    """The whole document; one object for all callers, so do not change it."""
    api = {
        "/chat/completions": {"post": _create_chat_completion()},
        "/models": {"get": _list_models()},
        "/models/{model_id}": {"get": _get_model()},
    }
    gateway = {
        "/v1/route": {"post": _plan_route()},
        "/v1/usage": {"get": _get_usage()},
        "/v1/me": {"get": _get_me()},
        "/v1/requests/{request_id}": {"get": _get_request()},
        "/metrics": {"get": _get_metrics()},
        **admin_paths(),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "LLM Gateway", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "/", "description": "This gateway."}],
        "security": [{"bearer": []}, {}],
        "tags": [
            {"name": "chat"},
            {"name": "models"},
            {"name": "routing", "description": "What would happen, and why; nobody is asked."},
            {"name": "usage"},
            {"name": "requests"},
            {"name": "metrics"},
            {"name": "admin", "description": "Errors are `application/problem+json`."},
            {"name": "health", "description": "Needs no key and waits for nothing."},
            {"name": "without /v1", "description": "The same, for clients whose base URL lacks `/v1`."},
        ],
        "paths": {
            **{f"/v1{path}": item for path, item in api.items()},
            **gateway,
            **_health_paths(),
            **{path: _without_v1(item) for path, item in api.items()},
        },
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A virtual key, which calls models, or LLMGATEWAY_MASTER_KEY, which administers. "
                    "Not needed where there is neither.",
                }
            },
            "schemas": {**object_schemas(), **admin_schemas()},
            "parameters": _parameters(),
            "headers": _headers(),
            "responses": {
                **{f"Error{status}": response for status, response in _error_responses().items()},
                "Problem": problem_response(),
            },
        },
    }


def _create_chat_completion() -> Document:
    return {
        "tags": ["chat"],
        "operationId": "createChatCompletion",
        "summary": "Create a chat completion",
        "description": "Answers with JSON, or with server-sent events if `stream` is true, whatever `Accept` says. "
        "A stream that breaks ends with an event that holds an error object, and without `[DONE]`.",
        "parameters": [
            _ref("parameters", name) for name in ("RequestId", "IdempotencyKey", "Tags", "Referer", "Title")
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _ref("schemas", "ChatCompletionRequest"),
                    "examples": REQUESTS,
                }
            },
        },
        "responses": {
            "200": {
                "description": "The upstream's answer.",
                "headers": _header_refs([*_ANSWER_HEADERS, "idempotent-replayed"]),
                "content": {
                    "application/json": {"schema": _ref("schemas", "ChatCompletion"), "example": ANSWER},
                    "text/event-stream": {
                        "schema": {
                            "type": "string",
                            "description": "Events whose data is a ChatCompletionChunk, comments, and at the end "
                            "`data: [DONE]`.",
                        },
                        "example": STREAM,
                    },
                },
            },
            **_error_refs(_error_responses()),
            "default": {
                "description": "Other errors of the upstream keep their status (408, 422, 529, …).",
                "headers": _header_refs(["Retry-After", "x-should-retry"]),
                "content": _json("Error"),
            },
        },
    }


def _list_models() -> Document:
    return {
        "tags": ["models"],
        "operationId": "listModels",
        "summary": "List the models",
        "parameters": [_ref("parameters", "RequestId")],
        "responses": {"200": _answer("What the gateway serves.", "ModelList"), **_error_refs([401, 403, 503])},
    }


def _get_model() -> Document:
    return {
        "tags": ["models"],
        "operationId": "getModel",
        "summary": "Get a model",
        "parameters": [_ref("parameters", "ModelId"), _ref("parameters", "RequestId")],
        "responses": {"200": _answer("The model.", "Model"), **_error_refs([401, 403, 404, 503])},
    }


def _plan_route() -> Document:
    return {
        "tags": ["routing"],
        "operationId": "planRoute",
        "summary": "Tell what a chat completion would do now",
        "parameters": [_ref("parameters", "RequestId"), _ref("parameters", "Tags")],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref("schemas", "ChatCompletionRequest"), "examples": REQUESTS}},
        },
        "responses": {
            "200": _answer("Whom it would ask, in which order, and why not others.", "Route"),
            **_error_refs([400, 401, 403, 404, 413, 415, 417, 503]),
        },
    }


def _get_usage() -> Document:
    return {
        "tags": ["usage"],
        "operationId": "getUsage",
        "summary": "Sum up what was used and what it cost",
        "parameters": [
            _ref("parameters", name) for name in ("By", "Since", "Until", "Key", "Team", "Organisation", "RequestId")
        ],
        "responses": {
            "200": _answer("The sums.", "UsageReport"),
            "404": {
                "description": "Nothing to sum up, and no such key, team or organisation that the caller may see.",
                "headers": _header_refs(),
                "content": _json("Error", example=error_object(ObjectNotFound("team", "no-such-team"))),
            },
            **_error_refs([400, 401, 403, 503]),
        },
    }


def _get_me() -> Document:
    return {
        "tags": ["usage"],
        "operationId": "getMe",
        "summary": "Tell the caller what it may use, and what it has used",
        "parameters": [_ref("parameters", "RequestId")],
        "responses": {"200": _answer("The caller.", "Me"), **_error_refs([401, 503])},
    }


def _get_request() -> Document:
    unknown = RequestNotFound("req-0b9f")
    return {
        "tags": ["requests"],
        "operationId": "getRequest",
        "summary": "Explain what became of a request",
        "parameters": [_ref("parameters", "BookedRequestId"), _ref("parameters", "RequestId")],
        "responses": {
            "200": _answer("Its row in the ledger and its trace.", "BookedRequest"),
            "404": {
                "description": "No such request is booked.",
                "headers": _header_refs(),
                "content": _json("Error", example=error_object(unknown)),
            },
            **_error_refs([401, 403, 503]),
        },
    }


def _get_metrics() -> Document:
    text = {"schema": {"type": "string"}, "example": "llmgateway_ready 1.0\n"}
    return {
        "tags": ["metrics"],
        "operationId": "getMetrics",
        "summary": "Metrics for Prometheus",
        "description": "For auditors and administrators. LLMGATEWAY_METRICS_PORT is for scrapers without a key.",
        "parameters": [_ref("parameters", "RequestId")],
        "responses": {
            "200": {
                "description": "All metrics as of now.",
                "headers": _header_refs(),
                "content": {"text/plain": text, "application/openmetrics-text": {"schema": {"type": "string"}}},
            },
            **_error_refs([401, 403, 503]),
        },
    }


def _health_paths() -> Document:
    def get(name: str, summary: str, responses: Document) -> Document:
        return {
            "get": {
                "tags": ["health"],
                "operationId": name,
                "summary": summary,
                "security": [],
                "responses": {**responses, **_error_refs()},
            }
        }

    ready = {
        "200": _answer("A request would be served now.", "Ready"),
        "503": _answer("A request would be refused now.", "NotReady"),
    }
    return {
        "/health": get("health", "What is known of the gateway's parts", {"200": _answer("See `status`.", "Health")}),
        "/health/live": get("live", "Whether the process runs", {"200": _answer("It does.", "Alive")}),
        "/health/ready": get("ready", "Whether requests are served", ready),
        "/health/accepting": get("accepting", "Whether a balancer should choose this gateway", ready),
    }


def _without_v1(item: Mapping[str, Document]) -> Document:
    return {
        method: {**operation, "tags": ["without /v1"], "operationId": f"{operation['operationId']}WithoutV1"}
        for method, operation in item.items()
    }


def _parameters() -> Document:
    def header(name: str, description: str) -> Document:
        return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}

    def query(name: str, description: str) -> Document:
        return {"name": name, "in": "query", "description": description, "schema": {"type": "string"}}

    return {
        "RequestId": header(
            "x-request-id",
            "Your own id for the request: letters, digits, `.`, `_` and `-`, at most 128. Any other is replaced.",
        ),
        "IdempotencyKey": header(
            "Idempotency-Key",
            "1 to 255 visible ASCII characters, best a UUID. The same request sent again with the same key, while the "
            "first one runs or up to 10 minutes after it, gets the same answer: nothing is asked or paid again. Errors "
            "that may pass (402, 408, 409, 425, 429, 5xx), streams that broke, and requests that were given up free "
            "the key.",
        ),
        "Tags": header("x-gateway-tags", "Only deployments with all of these tags, separated by commas. Not sent on."),
        "Referer": header("HTTP-Referer", "Your application's address, for OpenRouter's rankings. Sent on."),
        "Title": header("X-Title", "Your application's name, for OpenRouter's rankings. Sent on."),
        "BookedRequestId": {
            "name": "request_id",
            "in": "path",
            "required": True,
            "description": "The `x-request-id` of an answer, or a row's id.",
            "schema": {"type": "string"},
        },
        "By": {
            "name": "by",
            "in": "query",
            "required": True,
            "description": "What to group by; days are UTC days.",
            "schema": {"enum": [dimension.value for dimension in Dimension]},
        },
        "Since": query("since", "Only requests from this ISO date or time on. UTC unless it has a zone."),
        "Until": query("until", "Only requests before this ISO date or time."),
        "Key": query("key", "Only requests of this key: its id, or its name."),
        "Team": query("team", "Only requests of this team: its id, or its name."),
        "Organisation": query("organisation", "Only requests of this organisation: its id, or its name."),
        "ModelId": {
            "name": "model_id",
            "in": "path",
            "required": True,
            "description": "May hold slashes, encoded or not.",
            "schema": {"type": "string"},
            "example": "auto",
        },
    }


def _headers() -> Document:
    def header(kind: str, description: str) -> Document:
        return {"description": description, "schema": {"type": kind}}

    return {
        "x-request-id": header("string", "The request's id, also in the gateway's logs and ledger."),
        "x-gateway-provider": header("string", "Who answered."),
        "x-gateway-model": header("string", "The model that answered."),
        "x-gateway-attempts": header("integer", "Upstream calls that were made, retries and fallbacks included."),
        "x-gateway-cost-usd": header("string", "The cost as a decimal, where it is known before the answer is sent."),
        "x-gateway-overhead-ms": header("number", "Time spent in the gateway itself."),
        "x-gateway-trace": header("string", "Each attempt: deployment, outcome, calls if several, seconds."),
        "x-gateway-limits": header("string", "`local` where limits are not shared just now."),
        "x-gateway-budget-warning": header("string", "Budgets of which the warning share is spent."),
        **{
            f"x-ratelimit-{what}-{of}": header(kind, f"{described} of the tightest limit on {of}, if there is one.")
            for of in ("requests", "tokens")
            for what, kind, described in (
                ("limit", "integer", "The amount"),
                ("remaining", "integer", "What is left"),
                ("reset", "string", "The time until all is there again (`1.5s`, `6m0s`),"),
            )
        },
        "idempotent-replayed": header(
            "string", "`true` where the answer is that of an earlier request with the same Idempotency-Key."
        ),
        "Retry-After": header("integer", "Seconds to wait before another try."),
        "x-should-retry": header(
            "string", "`false` where a retry is in vain, or the gateway has made some; OpenAI's SDKs obey it."
        ),
        "Allow": header("string", "The methods that the path takes."),
        "WWW-Authenticate": header("string", "`Bearer`: how a key is sent."),
    }


def _error_responses() -> dict[int, Document]:
    return {
        status_of(error): {
            "description": description,
            "headers": _header_refs(_ERROR_HEADERS.get(status_of(error), ())),
            "content": _json("Error", example=error_object(error)),
        }
        for description, error in ERRORS
    }


def _error_refs(statuses: Iterable[int] = ()) -> Document:
    return {str(status): _ref("responses", f"Error{status}") for status in sorted({*statuses, *_ERRORS_OF_EVERY_PATH})}


def _answer(description: str, schema: str) -> Document:
    return {"description": description, "headers": _header_refs(), "content": _json(schema)}


def _json(schema: str, **more: Any) -> Document:
    return {"application/json": {"schema": _ref("schemas", schema), **more}}


def _header_refs(names: Iterable[str] = ()) -> Document:
    return {name: _ref("headers", name) for name in ("x-request-id", *names)}


def _ref(kind: str, name: str) -> Document:
    return {"$ref": f"#/components/{kind}/{name}"}
