"""Which models a request names, and whether its caller may use them.

A caller that may use some models only must not reach others through what the gateway does not read: a member that comes
twice (an upstream may read the other one), one in other letters (some parsers do not mind), or OpenRouter's own ways to
choose a model. Fallbacks that the gateway's configuration has are the operator's choice, and are not asked about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from proxy.domain.access.model_scope import ModelScope
from proxy.domain.access.principals import Principal
from proxy.domain.chat import ChatRequest
from proxy.domain.errors import FieldNotAllowed, InvalidRequest, ModelNotAllowed
from proxy.domain.json_bytes import look_into, member_names

_Groups = Mapping[str, Sequence[str]]
_CHOOSING: Final = frozenset({"model", "models", "preset", "route", "plugins", "tools"})
_CHOOSING_BY_THEMSELVES: Final = ("preset", "route")
_PRESET: Final = "@preset/"
_PLUGINS_WITHOUT_MODELS: Final = frozenset({"web", "file-parser", "response-healing", "context-compression"})
_OWN_TOOLS: Final = "openrouter:"  # run by OpenRouter; some of them ask other models
_TOOLS_WITHOUT_MODELS: Final = frozenset({"openrouter:web_search", "openrouter:web_fetch", "openrouter:datetime"})


def check_models(principal: Principal, request: ChatRequest, groups: _Groups) -> None:
    """Every model that the request names must be allowed. Raises ModelNotAllowed, FieldNotAllowed, InvalidRequest."""
    scopes = _limits(principal)
    if not scopes:
        return
    for model in named_models(request):
        if not _allowed(scopes, model, groups):
            raise ModelNotAllowed(model)
    _check_spelling(request)
    for field in _CHOOSING_BY_THEMSELVES:
        if _value(request, field) is not None:
            raise FieldNotAllowed(field, "it lets the upstream choose a model")
    _check_each(request, "plugins", "id", lambda name: name in _PLUGINS_WITHOUT_MODELS)
    _check_each(request, "tools", "type", lambda kind: not _is_of_openrouter(kind) or kind in _TOOLS_WITHOUT_MODELS)


def models_of(principal: Principal, groups: _Groups) -> Callable[[str], bool]:
    """Whether the principal may use a model, by its public name."""
    scopes = _limits(principal)
    return lambda model: _allowed(scopes, model, groups)


def named_models(request: ChatRequest) -> list[str]:
    """All that the request names; what is no name stands as its JSON, which nobody is allowed."""
    listed = _value(request, "models")
    names = listed if isinstance(listed, list) else [] if listed is None else [listed]
    return [request.model, *(name if isinstance(name, str) else repr(name) for name in names)]


def _limits(principal: Principal) -> list[ModelScope]:
    return [scope for scope in principal.model_scopes if not scope.is_all]


def _allowed(scopes: Sequence[ModelScope], model: str, groups: _Groups) -> bool:
    """A preset, which holds models of its own, is not allowed by a pattern: who allows it names it."""
    if _PRESET in model:
        return all(model in (scope.allowed or ()) for scope in scopes)
    return all(scope.allows(model, groups) for scope in scopes)


def _check_spelling(request: ChatRequest) -> None:
    names = Counter(member_names(request.body))
    for name, count in names.items():
        meant = name.casefold()
        if meant not in _CHOOSING:
            continue
        if count > 1:
            raise InvalidRequest(f"'{name}' is given {count} times.", param=name, code="duplicate_field")
        if name != meant:
            raise InvalidRequest(f"Unknown field '{name}'. Did you mean '{meant}'?", param=name, code="unknown_field")


def _check_each(request: ChatRequest, field: str, member: str, is_allowed: Callable[[Any], bool]) -> None:
    """What is no list of objects is left to the upstream to refuse, if it holds nothing that could choose a model."""
    value = _value(request, field)
    for entry in value if isinstance(value, list) else [] if value is None else [value]:
        chosen = entry.get(member) if isinstance(entry, dict) else entry
        if not is_allowed(chosen):
            raise FieldNotAllowed(field, f"'{chosen}' may choose a model")


def _is_of_openrouter(kind: Any) -> bool:
    return isinstance(kind, str) and kind.casefold().startswith(_OWN_TOOLS)


def _value(request: ChatRequest, field: str) -> Any:
    raw = request.member(field)
    return None if raw is None else look_into(raw)
