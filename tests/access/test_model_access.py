"""Which requests a key that may use some models only may send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.api.openai.envelope import read_chat_request
from proxy.application.model_access import check_models, models_of
from proxy.domain.access.keys import generate_key
from proxy.domain.access.known_keys import known_key
from proxy.domain.access.model_scope import ModelScope
from proxy.domain.access.principals import ANONYMOUS, Principal
from proxy.domain.errors import FieldNotAllowed, GatewayError, InvalidRequest, ModelNotAllowed
from tests.access.tenancy import scope, virtual_key

GROUPS = {"cheap": ["mini", "small-*"]}


def principal(models: ModelScope) -> Principal:
    return known_key(virtual_key(generate_key(), models=models), None, None).principal


def body(model: str = "gpt-5", **members: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], **members}).encode()


def refusal(request: bytes, *allowed: str) -> GatewayError | None:
    try:
        check_models(principal(scope(*allowed)), read_chat_request(request), GROUPS)
    except GatewayError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        ("gpt-5", ["gpt-5"]),
        ("gpt-5", ["gpt-*"]),
        ("mini", ["group:cheap"]),
        ("small-1", ["group:cheap"]),
        ("auto", ["auto"]),
        ("auto", ["*"]),
        ("gpt-5@preset/mine", ["gpt-5@preset/mine"]),
    ],
)
def test_allowed(model: str, allowed: list[str]) -> None:
    assert refusal(body(model), *allowed) is None


@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        ("gpt-5", []),
        ("gpt-5", ["gpt-4"]),
        ("gpt-5", ["GPT-5"]),
        ("gpt-5 ", ["gpt-5"]),
        ("gpt-", ["gpt-*"]),
        ("auto", ["gpt-*", "group:cheap"]),
        ("large", ["group:cheap", "group:unknown"]),
        ("cheap", ["group:cheap"]),
        ("group:cheap", ["group:cheap"]),
        ("gpt-5@preset/mine", ["gpt-*"]),
        ("@preset/mine", ["*"]),
    ],
)
def test_refused(model: str, allowed: list[str]) -> None:
    error = refusal(body(model), *allowed)
    assert isinstance(error, ModelNotAllowed)
    assert error.model == model


@pytest.mark.parametrize(
    "models", [["gpt-5", "claude"], ["claude"], ["gpt-5", None], ["gpt-5", {"model": "gpt-5"}], [["gpt-5"]]]
)
def test_every_model_of_the_list_must_be_allowed(models: list[Any]) -> None:
    assert isinstance(refusal(body(models=models), "gpt-*"), ModelNotAllowed)


@pytest.mark.parametrize("models", [None, [], ["gpt-5", "gpt-5-mini"]])
def test_a_list_of_allowed_models_is_allowed(models: list[str] | None) -> None:
    assert refusal(body(models=models), "gpt-*") is None


def raw(members: str) -> bytes:
    return f'{{"messages": [{{"role": "user", "content": "model"}}], {members}}}'.encode()


TWICE = [
    '"model": "claude", "model": "gpt-5"',
    '"model": "gpt-5", "mod\\u0065l": "gpt-5"',
    '"model": "gpt-5", "models": ["claude"], "models": []',
    '"model": "gpt-5", "models": ["claude"], "models": null',
    '"model": "gpt-5", "preset": "mine", "preset": null',
    '"model": "gpt-5", "plugins": [{"id": "auto-router"}], "plugins": []',
]
IN_OTHER_LETTERS = [
    '"model": "gpt-5", "Model": "claude"',
    '"MODEL": "claude", "model": "gpt-5"',
    '"model": "gpt-5", "model\u017f": ["claude"]',
    '"model": "gpt-5", "Preset": "mine"',
]


@pytest.mark.parametrize("members", TWICE)
def test_what_comes_twice_is_refused(members: str) -> None:
    """An upstream may read the first one; this gateway reads the last."""
    error = refusal(raw(members), "gpt-*")
    assert isinstance(error, InvalidRequest)
    assert error.code == "duplicate_field"


@pytest.mark.parametrize("members", IN_OTHER_LETTERS)
def test_what_comes_in_other_letters_is_refused(members: str) -> None:
    """There are parsers that do not tell `Model` from `model`."""
    error = refusal(raw(members), "gpt-*")
    assert isinstance(error, InvalidRequest)
    assert error.code == "unknown_field"


CHOOSING: list[tuple[str, Any]] = [
    ("preset", "mine"),
    ("route", "fallback"),
    ("plugins", [{"id": "auto-router", "allowed_models": ["claude"]}]),
    ("plugins", [{"id": "web"}, {"id": "anything-new"}]),
    ("plugins", [{}]),
    ("plugins", ["auto-router"]),
    ("tools", [{"type": "openrouter:image_generation", "parameters": {"model": "claude"}}]),
    ("tools", [{"type": "OpenRouter:fusion"}]),
]


@pytest.mark.parametrize(("field", "value"), CHOOSING, ids=[json.dumps(each) for each in CHOOSING])
def test_what_chooses_a_model_at_the_upstream_is_refused(field: str, value: Any) -> None:
    error = refusal(body(**{field: value}), "gpt-*")
    assert isinstance(error, FieldNotAllowed)
    assert error.field == field


HARMLESS: list[dict[str, Any]] = [
    {"preset": None, "route": None, "plugins": None, "tools": None},
    {"plugins": [], "tools": []},
    {"plugins": [{"id": "web", "max_results": 1}, {"id": "file-parser"}]},
    {"tools": [{"type": "function", "function": {"name": "model", "parameters": {"model": {"model": 1}}}}]},
    {"tools": [{"type": "openrouter:web_search"}, {"type": "custom"}]},
    {"metadata": {"model": "a", "Model": "b"}},
]


@pytest.mark.parametrize("members", HARMLESS, ids=json.dumps)
def test_what_chooses_none_is_allowed(members: dict[str, Any]) -> None:
    assert refusal(body(**members), "gpt-*") is None


@pytest.mark.parametrize("members", [*TWICE, *IN_OTHER_LETTERS])
def test_who_may_use_all_models_may_send_anything(members: str) -> None:
    request = read_chat_request(raw(members))
    check_models(ANONYMOUS, request, GROUPS)
    check_models(principal(ModelScope()), request, GROUPS)


def test_all_scopes_must_allow_a_model() -> None:
    mine = principal(scope("gpt-*", "mini"))
    narrowed = Principal(
        kind=mine.kind,
        id=mine.id,
        name=mine.name,
        permissions=mine.permissions,
        reach=mine.reach,
        model_scopes=(scope("group:cheap"), *mine.model_scopes),
    )
    may_use = models_of(narrowed, GROUPS)
    assert [model for model in ("gpt-5", "mini", "small-1") if may_use(model)] == ["mini"]
