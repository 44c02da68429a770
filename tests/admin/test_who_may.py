"""Every admin route and everybody: who is let in, and who is not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxy.bootstrap.gateway import running_gateway
from tests.access.test_routes import routes_of, settings_of
from tests.admin.company import Company, ask
from tests.harness import TestGateway

_GATEWAY = {"administrator", "master"}
_GATEWAY_READERS = _GATEWAY | {"auditor"}
_HEADS = _GATEWAY | {"head"}
_LEADS = _HEADS | {"lead", "restricted lead"}
_READERS = _LEADS | {"auditor", "auditor of the team"}
_EVERYBODY = _READERS | {"lead of another team", "head of another"}  # of what is their own
_GPT = ["gpt-4o"]
_USD = {"amount_usd": "1"}
_ON_KEY = {"scope": "key", "subject": "{key}"}
# Route, what is asked (with the ids of the team's things), what is sent, and who may.
_TABLE: Mapping[tuple[str, str], tuple[str, dict[str, Any] | None, set[str]]] = {
    ("GET", "/admin/organisations"): ("/organisations", None, _EVERYBODY),
    ("POST", "/admin/organisations"): ("/organisations", {"name": "by {who}"}, _GATEWAY),
    ("GET", "/admin/organisations/{id}"): (
        "/organisations/{organisation_id}",
        None,
        _READERS | {"lead of another team"},
    ),
    ("PATCH", "/admin/organisations/{id}"): ("/organisations/{organisation_id}", {"metadata": {"a": 1}}, _GATEWAY),
    ("GET", "/admin/teams"): ("/teams", None, _EVERYBODY),
    ("POST", "/admin/teams"): ("/teams", {"name": "by {who}", "organisation": "{organisation_id}"}, _HEADS),
    ("GET", "/admin/teams/{id}"): ("/teams/{team_id}", None, _READERS),
    ("PATCH", "/admin/teams/{id}"): ("/teams/{team_id}", {"metadata": {"a": 1}}, _HEADS),
    ("GET", "/admin/keys"): ("/keys", None, _EVERYBODY),
    ("POST", "/admin/keys"): ("/keys", {"name": "by {who}", "team": "{team_id}", "models": _GPT}, _LEADS),
    ("GET", "/admin/keys/{id}"): ("/keys/{key}", None, _READERS),
    ("PATCH", "/admin/keys/{id}"): ("/keys/{key}", {"tags": ["a"]}, _LEADS),
    ("POST", "/admin/keys/{id}/rotate"): ("/keys/{key}/rotate", {}, _LEADS - {"restricted lead"}),
    ("POST", "/admin/keys/{id}/revoke"): ("/keys/{key}/revoke", {}, _LEADS),
    ("GET", "/admin/budgets"): ("/budgets", None, _EVERYBODY),
    ("POST", "/admin/budgets"): ("/budgets", {"name": "by {who}", **_USD, **_ON_KEY}, _LEADS),
    ("GET", "/admin/budgets/{id}"): ("/budgets/{budget}", None, _READERS),
    ("PATCH", "/admin/budgets/{id}"): ("/budgets/{budget}", _USD, _LEADS),
    ("DELETE", "/admin/budgets/{id}"): ("/budgets/{budget}", None, _LEADS),
    ("GET", "/admin/limits"): ("/limits", None, _EVERYBODY),
    ("POST", "/admin/limits"): ("/limits", {"requests_per_minute": 1, **_ON_KEY}, _LEADS),
    ("GET", "/admin/limits/{id}"): ("/limits/{limit}", None, _READERS),
    ("PATCH", "/admin/limits/{id}"): ("/limits/{limit}", {"requests_per_minute": 1}, _LEADS),
    ("DELETE", "/admin/limits/{id}"): ("/limits/{limit}", None, _LEADS),
    ("GET", "/admin/usage"): ("/usage?by=key", None, _EVERYBODY),
    ("GET", "/admin/requests"): ("/requests", None, _EVERYBODY),
    ("GET", "/admin/audit"): ("/audit", None, _EVERYBODY),
    ("GET", "/admin/prices"): ("/prices", None, _GATEWAY_READERS),
    ("POST", "/admin/prices"): (
        "/prices",
        {"model": "{who}", "input_cost_per_1m_tokens": "1", "output_cost_per_1m_tokens": "1"},
        _GATEWAY,
    ),
    ("GET", "/admin/deployments"): ("/deployments", None, _GATEWAY_READERS),
    ("GET", "/admin/deployments/{name}"): ("/deployments/{deployment}", None, _GATEWAY_READERS),
    ("POST", "/admin/deployments/{name}/drain"): ("/deployments/{deployment}/drain", None, _GATEWAY),
    ("POST", "/admin/deployments/{name}/enable"): ("/deployments/{deployment}/enable", None, _GATEWAY),
    ("POST", "/admin/config/reload"): ("/config/reload", None, _GATEWAY),
}
_REFUSED = (403, 404)


async def test_the_table_has_every_route(sqlite_url: str, tmp_path: Path) -> None:
    async with running_gateway(settings_of(sqlite_url, tmp_path)) as gateway:
        routes = {(method, path) for method, path, _ in routes_of(gateway.app) if path.startswith("/admin")}
    assert {(method, path) for method, path in routes if method != "HEAD"} == _TABLE.keys()


async def test_every_route_lets_in_those_who_may_and_no_others(gateway: TestGateway, firm: Company) -> None:
    wrong = []
    target = await firm.target()
    for (method, route), (path, body, allowed) in _TABLE.items():
        for who, secret in firm.secrets.items():
            names = {**target, "deployment": "OpenRouter", "who": who}
            sent = {name: filled(value, names) for name, value in body.items()} if body is not None else None
            answer = await ask(gateway, secret, method, path.format_map(names), sent)
            is_in = answer.status not in (401, *_REFUSED)
            if is_in != (who in allowed) or answer.status >= 500:
                wrong.append((method, route, who, answer.status, answer.body))
            if is_in and method != "GET":  # it may be changed or gone
                target = await firm.target()
            if not is_in:
                assert answer.content_type == "application/problem+json"
                assert set(answer.body) >= {"type", "title", "status", "detail"}
    assert wrong == []


async def test_nobody_without_a_good_key_is_let_in(gateway: TestGateway, firm: Company) -> None:
    names = {**await firm.target(), "deployment": "OpenRouter"}
    for method, route in _TABLE:
        path = _TABLE[method, route][0].format_map(names)
        for secret in (None, "sk-wrong-wrong-wrong-wrong-wrong", "x", firm.secrets["lead"][:-1]):
            answer = await ask(gateway, secret, method, path, {})
            assert (answer.status, answer.content_type) == (401, "application/problem+json"), (method, route)
            assert answer.body["type"] == "urn:llmgateway:invalid_api_key"


def filled(value: Any, names: Mapping[str, str]) -> Any:
    return value.format_map(names) if isinstance(value, str) else value
