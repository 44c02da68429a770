"""The OpenAPI document: valid, and never at odds with what the gateway does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from proxy import __version__
from proxy.api.admin.app import add_admin_routes
from proxy.api.openai.document_examples import ANSWER, ERRORS, REQUESTS
from proxy.api.openai.envelope import read_chat_request
from proxy.api.openai.errors import TABLE, error_headers, error_object, status_of
from proxy.api.openai.fields import FIELDS, ROLES
from proxy.api.openai.object_schemas import FIELD_NOTES
from proxy.api.openai.schemas import openapi_document
from proxy.api.permissions import OPEN, access_to
from proxy.api.routes import add_routes
from proxy.application.allowances import Rulebook
from proxy.domain.access.scopes import GATEWAY
from proxy.domain.errors import GatewayError, InvalidRequest
from proxy.domain.rate_limits import RateLimit
from proxy.domain.usage_report import OWNERS
from tests.conftest import StartGateway
from tests.harness import ADMINISTERED, AS_ADMIN, HELLO, TestGateway, Upstream, chunk, ending, fails, streams

DOCUMENT: Any = openapi_document()
CHAT = DOCUMENT["paths"]["/v1/chat/completions"]["post"]
TYPE_NAMES = {
    "a string": "string",
    "a number": "number",
    "an integer": "integer",
    "a boolean": "boolean",
    "an object": "object",
    "an array": "array",
    "null": "null",
}
OUTSIDE_THE_API = {("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/docs/{name}")}


def faults(schema: str, value: Any) -> list[str]:
    """Why the value is not what the named schema describes."""
    validator = OAS31Validator({"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]})
    return [str(problem) for problem in validator.iter_errors(value)]


def accepts(body: Any) -> bool:
    """Whether the gateway takes that request."""
    try:
        read_chat_request(json.dumps(body).encode())
    except InvalidRequest:
        return False
    return True


def resolved(node: dict[str, Any]) -> Any:
    """The node, or what it refers to."""
    found = DOCUMENT if "$ref" in node else node
    for name in node.get("$ref", "#").split("/")[1:]:
        found = found[name]
    return found


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """The described operations by method and path."""
    return {
        (method.upper(), path): operation
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
    }


def schema_name(response: dict[str, Any]) -> str:
    """The schema that a response's JSON is said to follow."""
    reference: str = resolved(response)["content"]["application/json"]["schema"]["$ref"]
    return reference.rpartition("/")[2]


def test_document_is_valid_openapi() -> None:
    problems = [str(problem) for problem in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()]

    assert problems == []


def test_document_tells_the_version_of_the_gateway_and_works_on_any_host() -> None:
    assert DOCUMENT["info"]["version"] == __version__
    assert [server["url"] for server in DOCUMENT["servers"]] == ["/"]


@pytest.mark.parametrize("name", FIELDS)
def test_known_fields_are_described_with_the_types_that_are_accepted(name: str) -> None:
    described = DOCUMENT["components"]["schemas"]["ChatCompletionRequest"]["properties"][name]["type"]

    types = [described] if isinstance(described, str) else described
    assert types == [TYPE_NAMES[form] for form in FIELDS[name]]


def test_only_known_fields_are_described_and_others_are_let_through() -> None:
    request = DOCUMENT["components"]["schemas"]["ChatCompletionRequest"]

    assert set(request["properties"]) == set(FIELDS)
    assert set(FIELD_NOTES) <= set(FIELDS)
    assert request["additionalProperties"] is True


@pytest.mark.parametrize("name", [*FIELDS, "unknown_field"])
def test_document_and_gateway_accept_the_same_values(name: str) -> None:
    values = ["text", " ", 1, 2.5, -3.0, True, {}, [], None, [{"role": "user"}]]
    bodies = [{**HELLO, name: value} for value in values]

    assert [accepts(body) for body in bodies] == [not faults("ChatCompletionRequest", body) for body in bodies]


@pytest.mark.parametrize(
    "message",
    [
        *({"role": role, "content": "Hi"} for role in ROLES),
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}], "cache_control": {}},
        {"role": "user"},
        {"role": "robot", "content": "Hi"},
        {"role": 1, "content": "Hi"},
        {"role": None},
        {"content": "Hi"},
        {"role": "user", "content": 1},
        {"role": "user", "content": {}},
        "Hi",
        None,
    ],
    ids=json.dumps,
)
def test_document_and_gateway_accept_the_same_messages(message: Any) -> None:
    body = {"model": "auto", "messages": [message]}

    assert accepts(body) == (faults("ChatCompletionRequest", body) == [])


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_document_and_gateway_require_the_same_fields(missing: str) -> None:
    body = {name: value for name, value in HELLO.items() if name != missing}

    assert not accepts(body)
    assert faults("ChatCompletionRequest", body)


def test_document_describes_every_route_of_the_api_and_no_other() -> None:
    app, admin = web.Application(), web.Application()
    add_routes(app)
    add_admin_routes(admin)
    routes = {
        (route.method, f"{prefix}{route.resource.canonical}")
        for prefix, part in (("", app), ("/admin", admin))
        for route in part.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }

    assert set(operations()) == routes - OUTSIDE_THE_API


def test_operations_have_ids_of_their_own() -> None:
    ids = [operation["operationId"] for operation in operations().values()]
    assert len(set(ids)) == len(ids)


def test_operations_that_need_no_key_are_those_that_the_gateway_leaves_open() -> None:
    open_paths = {path for (_, path), operation in operations().items() if operation.get("security") == []}

    app = web.Application()
    add_routes(app)
    left_open = {
        route.resource.canonical
        for route in app.router.routes()
        if route.resource is not None and access_to(route.handler) is OPEN
    }
    assert open_paths == left_open & set(DOCUMENT["paths"])
    assert DOCUMENT["security"] == [{"bearer": []}, {}]
    assert DOCUMENT["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


@pytest.mark.parametrize("name", REQUESTS)
def test_example_requests_are_described_and_accepted(name: str) -> None:
    body = CHAT["requestBody"]["content"]["application/json"]["examples"][name]["value"]

    assert accepts(body)
    assert faults("ChatCompletionRequest", body) == []


def test_example_answers_are_as_described() -> None:
    stream = CHAT["responses"]["200"]["content"]["text/event-stream"]["example"]
    *chunks, last = [event.removeprefix("data: ") for event in stream.split("\n\n")[:-1]]

    assert faults("ChatCompletion", ANSWER) == []
    assert [faults("ChatCompletionChunk", json.loads(event)) for event in chunks] == [[] for _ in chunks]
    assert last == "[DONE]"


@pytest.mark.parametrize("error", [error for _, error in ERRORS], ids=lambda error: type(error).__name__)
def test_errors_are_described_with_what_the_gateway_answers(error: GatewayError) -> None:
    response = resolved(CHAT["responses"][str(status_of(error))])

    assert response["content"]["application/json"]["example"] == error_object(error)
    assert faults("Error", error_object(error)) == []
    assert set(error_headers(error)) <= set(response["headers"])


def test_every_status_that_the_gateway_gives_an_error_is_described() -> None:
    statuses = {status for status, _ in TABLE.values() if status is not None}

    assert {str(status) for status in statuses} <= set(CHAT["responses"])
    for status in (400, 401, 402, 403, 404, 405, 413, 415, 429, 500, 502, 503, 504):
        assert schema_name(CHAT["responses"][str(status)]) == "Error"


def gateway_headers(headers: Mapping[str, str]) -> set[str]:
    """Those of the gateway itself."""
    ours = ("x-gateway-", "x-ratelimit-", "x-request-id", "x-should-retry")
    return {name.lower() for name in headers if name.lower().startswith(ours)}


async def test_answers_have_the_described_shape_and_headers(gateway: TestGateway) -> None:
    status, headers, answer = await gateway.chat()

    assert status == 200
    assert faults("ChatCompletion", answer) == []
    others = {name for name in CHAT["responses"]["200"]["headers"] if name.startswith("x-ratelimit-")}
    others |= {"idempotent-replayed", "x-gateway-limits", "x-gateway-budget-warning"}
    assert gateway_headers(headers) | others == set(CHAT["responses"]["200"]["headers"])


async def test_headers_of_limits_are_described(start_gateway: StartGateway) -> None:
    limit = RateLimit(id=uuid4(), subject=GATEWAY, requests_per_minute=1, tokens_per_minute=100_000)
    gateway = await start_gateway(rules=lambda: Rulebook(limits=[limit]))

    for status in ("200", "429"):
        _, headers, _ = await gateway.chat()

        told = {name for name in gateway_headers(headers) if name.startswith("x-ratelimit-")}
        assert told
        assert told <= set(resolved(CHAT["responses"][status])["headers"])


async def test_headers_of_the_admin_apis_errors_are_described(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**ADMINISTERED)
    described = set(DOCUMENT["components"]["responses"]["Problem"]["headers"])

    for method, path, headers in (("GET", "keys", {}), ("GET", "keys/none", AS_ADMIN), ("PUT", "keys", AS_ADMIN)):
        async with gateway.http.request(method, gateway.url / "admin" / path, headers=headers) as response:
            assert not response.ok
            assert gateway_headers(response.headers)
            assert gateway_headers(response.headers) <= described
            assert {"Allow", "WWW-Authenticate"} & set(response.headers) <= described


def test_both_reports_of_usage_are_asked_for_in_the_same_words() -> None:
    asked = [
        [resolved(each) for each in operations()["GET", path]["parameters"] if resolved(each)["in"] == "query"]
        for path in ("/v1/usage", "/admin/usage")
    ]

    assert asked[0] == asked[1]
    assert {each["name"] for each in asked[0]} == {"by", "since", "until", *OWNERS}


async def test_streams_have_the_described_shape_and_headers(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(streams(chunk("Hi"), *ending()))

    _, headers, raw = await gateway.raw_chat({**HELLO, "stream": True, "stream_options": {"include_usage": True}})

    events = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith(b"data: {")]
    assert len(events) == 3
    assert [faults("ChatCompletionChunk", event) for event in events] == [[], [], []]
    assert headers["content-type"].split(";")[0] in CHAT["responses"]["200"]["content"]
    assert gateway_headers(headers) <= set(CHAT["responses"]["200"]["headers"])


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("/v1/models", "/v1/models", 200),
        ("/v1/models/{model_id}", "/v1/models/z-ai/glm-4.6", 200),
        ("/v1/models/{model_id}", "/v1/models/z-ai%2Fglm-4.6", 200),
        ("/v1/models/{model_id}", "/v1/models/no/such", 404),
        ("/models", "/models", 200),
        ("/models/{model_id}", "/models/auto", 200),
        ("/health", "/health", 200),
        ("/health/live", "/health/live", 200),
        ("/health/ready", "/health/ready", 200),
    ],
)
async def test_other_answers_have_the_described_shape(gateway: TestGateway, path: str, asked: str, status: int) -> None:
    got, answer = await gateway.get(asked)

    assert got == status
    assert faults(schema_name(DOCUMENT["paths"][path]["get"]["responses"][str(status)]), answer) == []


async def test_gateway_that_cannot_serve_answers_as_described(start_gateway: StartGateway, upstream: Upstream) -> None:
    """The breaker of the only provider is opened by one failed request."""
    gateway = await start_gateway(retry_max_retries=0, circuit_breaker_failure_threshold=1)
    upstream.answer(fails(500))
    await gateway.chat()

    got, answer = await gateway.get("/health/ready")

    assert got == 503
    assert schema_name(DOCUMENT["paths"]["/health/ready"]["get"]["responses"]["503"]) == "NotReady"
    assert faults("NotReady", answer) == []


async def test_document_is_served_without_a_key(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(llmgateway_master_key="sk-gateway")

    async with gateway.http.get(gateway.url / "openapi.json") as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        assert await response.json() == json.loads(json.dumps(DOCUMENT))
