"""What a file does not say: names made of other names, inherited values, the environment's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from proxy.config.names import mappings
from proxy.config.problems import Path
from proxy.config.schema import BASE_URLS

_TIMEOUTS = {
    "connect_seconds": "connect_timeout_seconds",
    "first_byte_seconds": "openrouter_timeout_seconds",
    "answer_seconds": "answer_timeout_seconds",
    "idle_seconds": "stream_idle_timeout_seconds",
    "stream_total_seconds": "stream_total_timeout_seconds",
}
_USAGE_ON_REQUEST = ("openai", "azure")
_ROUTING = {
    "retry_base_seconds": "retry_base_seconds",
    "retry_after_cap_seconds": "retry_after_cap_seconds",
    "request_timeout_seconds": "request_timeout_seconds",
}
_BREAKER = {
    "failure_threshold": "circuit_breaker_failure_threshold",
    "cooldown_seconds": "circuit_breaker_cooldown_seconds",
}


@dataclass(frozen=True, slots=True)
class Filled:
    """The completed values. `sources` says of each added one where it comes from: a path, or a setting's name."""

    data: Any
    sources: dict[Path, Path | str]


@dataclass(slots=True)
class _Filling:
    settings: Mapping[str, Any]
    sources: dict[Path, Path | str] = field(default_factory=dict)

    def from_settings(self, section: dict[str, Any], path: Path, names: Mapping[str, str]) -> None:
        for key, setting in names.items():
            self.from_setting(section, path, key, setting)

    def from_setting(
        self, section: dict[str, Any], path: Path, key: str, setting: str, read: Callable[[Any], Any] = lambda v: v
    ) -> None:
        if key not in section and setting in self.settings:
            section[key] = read(self.settings[setting])
            self.sources[(*path, key)] = setting.upper()

    def from_path(self, section: dict[str, Any], path: Path, key: str, origin: Path, value: Any) -> None:
        if key not in section:
            section[key] = value
            self.sources[(*path, key)] = self.sources.get(origin, origin)

    def by_default(self, section: dict[str, Any], path: Path, key: str, value: Any) -> None:
        if key not in section:
            section[key] = value
            self.sources[(*path, key)] = "default"


def fill(data: Any, settings: Mapping[str, Any]) -> Filled:
    """The same values, completed. What has the wrong shape stays as it is, to be refused later."""
    filling = _Filling(settings)
    if isinstance(data, dict):
        data = deepcopy(data)
        _routing(filling, data)
        for name, provider in mappings(data.get("providers")):
            _provider(filling, provider, ("providers", name))
        for name, model in mappings(data.get("models")):
            _model(filling, data, name, model)
        for name, provider in mappings(data.get("providers")):
            _limit_answers(filling, provider, ("providers", name))
    return Filled(data, filling.sources)


def _routing(filling: _Filling, data: dict[str, Any]) -> None:
    routing = data.setdefault("routing", {})
    if not isinstance(routing, dict):
        return
    filling.from_settings(routing, ("routing",), _ROUTING)
    filling.from_setting(routing, ("routing",), "max_attempts", "retry_max_retries", lambda retries: retries + 1)
    breaker = routing.setdefault("circuit_breaker", {})
    if isinstance(breaker, dict):
        filling.from_settings(breaker, ("routing", "circuit_breaker"), _BREAKER)


def _provider(filling: _Filling, provider: dict[str, Any], path: Path) -> None:
    kind = provider.get("kind", "openai")
    if isinstance(kind, str) and kind in BASE_URLS:
        if provider.get("base_url", "") is None:
            del provider["base_url"]
        filling.by_default(provider, path, "base_url", BASE_URLS[kind])
    if isinstance(kind, str) and kind in _USAGE_ON_REQUEST:
        filling.by_default(provider, path, "usage_in_streams", "on_request")
    timeouts = provider.setdefault("timeouts", {})
    if isinstance(timeouts, dict):
        filling.from_settings(timeouts, (*path, "timeouts"), _TIMEOUTS)


def _model(filling: _Filling, data: dict[str, Any], name: str, model: dict[str, Any]) -> None:
    path: Path = ("models", name)
    routing = data["routing"]
    if isinstance(routing, dict) and "strategy" in routing:
        filling.from_path(model, path, "strategy", ("routing", "strategy"), routing["strategy"])
    deployments = model.get("deployments")
    for index, deployment in enumerate(deployments if isinstance(deployments, list) else ()):
        if isinstance(deployment, dict):
            _deployment(filling, data, name, deployment, (*path, "deployments", index))


def _deployment(
    filling: _Filling, data: dict[str, Any], public_name: str, deployment: dict[str, Any], path: Path
) -> None:
    provider = deployment.get("provider")
    filling.by_default(deployment, path, "model", public_name)
    if isinstance(provider, str) and isinstance(deployment["model"], str):
        filling.by_default(deployment, path, "name", f"{provider}/{deployment['model']}")
    inherited = dict(mappings(data.get("providers"))).get(provider) if isinstance(provider, str) else None
    if inherited is None:
        return
    origin: Path = ("providers", str(provider))
    if "max_concurrency" in inherited:
        filling.from_path(
            deployment, path, "max_concurrency", (*origin, "max_concurrency"), inherited["max_concurrency"]
        )
    timeouts = deployment.setdefault("timeouts", {})
    if isinstance(timeouts, dict) and isinstance(inherited["timeouts"], dict):
        for key, value in inherited["timeouts"].items():
            if key in _TIMEOUTS:
                filling.from_path(timeouts, (*path, "timeouts"), key, (*origin, "timeouts", key), value)
    _limit_answers(filling, deployment, path)


def _limit_answers(filling: _Filling, section: dict[str, Any], path: Path) -> None:
    """A limit that is given for first bytes is for those of answers that are not streamed, too, if nothing else is."""
    timeouts = section["timeouts"]
    if isinstance(timeouts, dict) and "first_byte_seconds" in timeouts:
        given, where = timeouts["first_byte_seconds"], (*path, "timeouts")
        filling.from_path(timeouts, where, "answer_seconds", (*where, "first_byte_seconds"), given)
