"""From the text of LiteLLM's file to the text of ours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from proxy.config.document import read_document
from proxy.config.fields import PositiveCount, Seconds
from proxy.config.litellm.models import models_of, timeouts_of
from proxy.config.litellm.routing import Settings, aliases_of, fallbacks_of, routing_of, set_strategies, timeout_of
from proxy.config.litellm.source import Losses, Section, is_reference
from proxy.config.litellm.writing import written
from proxy.config.names import Names
from proxy.config.problems import ConfigErrors, Path, Problem
from proxy.config.schema import DeploymentConfig, ModelConfig, RoutingConfig

_PATH_OF_AN_ENTRY = 2  # ("model_list", 0)
_PATIENCE_SECONDS = 600  # where the file sets no time limit; LiteLLM's 6000 would be beyond that on a whole request


@dataclass(frozen=True, slots=True)
class Conversion:
    """`text` is a file for this gateway; `losses` are what it does not carry over, with lines of the other file."""

    text: str
    losses: tuple[Problem, ...]


def convert(text: str, name: str) -> Conversion:
    """LiteLLM's configuration as one of ours; `name` is what messages call its file.

    Raises:
        ConfigErrors: it is not YAML, or nothing in it can be carried over.
    """
    document = read_document(text)
    if document.problems:
        raise ConfigErrors(name, document.problems)
    losses = Losses([replace(problem, message=f"{problem.message}; the last counts") for problem in document.repeated])
    config = _converted(Section.of(document.data, (), losses), losses)
    told = sorted(
        (replace(loss, line=document.line_of(loss.path)) for loss in dict.fromkeys(losses.told)),
        key=lambda loss: loss.line or 0,
    )
    told = _gathered(told)
    if not config["models"]:
        is_there = isinstance(document.data, dict) and "model_list" in document.data
        reason = "no model of it could be carried over" if is_there else "is not there; a chart has it in proxy_config"
        nothing = Problem(("model_list",), reason, document.line_of(("model_list",)))
        raise ConfigErrors(name, [nothing, *told])
    return Conversion(written(_in_order(config), _comments(name, told)), tuple(told))


def _gathered(told: list[Problem]) -> list[Problem]:
    """Each parameter of the models once, where it is lost for the same reason: hundreds of models often share one."""
    alike: dict[tuple[Path, str], list[Problem]] = {}
    for loss in told:
        is_parameter = loss.path[:1] == ("model_list",) and len(loss.path) > _PATH_OF_AN_ENTRY
        place = loss.path[_PATH_OF_AN_ENTRY:] if is_parameter else loss.path
        alike.setdefault((place, loss.message), []).append(loss)
    return [replace(first, message=first.message + _elsewhere(others)) for first, *others in alike.values()]


def _elsewhere(others: list[Problem]) -> str:
    return f" (and in {len(others)} more, the last in line {others[-1].line})" if others else ""


def _converted(root: Section, losses: Losses) -> dict[str, Any]:
    settings = Settings(root.section("router_settings"), root.section("litellm_settings"))
    stream = settings.router.fitting("stream_timeout", Seconds)
    models = models_of(root, losses, stream)
    routing = routing_of(settings)
    set_strategies(settings, models.by_name, routing.get("strategy", "weighted"))
    common = _common(settings, stream)
    for provider in models.providers.by_name.values():
        provider.update(common)
    config: dict[str, Any] = {"providers": models.providers.by_name, "models": models.by_name}
    aliases = aliases_of(settings, Names.of(config))
    if aliases:
        config["aliases"] = aliases
    if models.groups:
        config["model_groups"] = models.groups
    if fallbacks := fallbacks_of(settings, Names.of(config)):
        config["fallbacks"] = fallbacks
    longest = _longest_timeout(config)
    if longest > RoutingConfig().request_timeout_seconds:
        routing["request_timeout_seconds"] = longest
    if routing:
        config["routing"] = routing
    for variable in (environment := root.section("environment_variables")).data:
        environment.lose(variable, "set it in the environment")
    settings.lose_rest(root.section("general_settings"), root)
    return config


def _common(settings: Settings, stream: Any) -> dict[str, Any]:
    """What holds for all providers there is written to each here; `stream` is the time limit of those that stream."""
    whole = timeout_of(settings)
    common: dict[str, Any] = {"timeouts": timeouts_of(_PATIENCE_SECONDS if whole is None else whole, stream)}
    places = settings.router.fitting("default_max_parallel_requests", PositiveCount)
    return common if places is None else {**common, "max_concurrency": places}


def _longest_timeout(config: dict[str, Any]) -> Any:
    """What the limit on whole requests must leave room for; 0 if no call has a limit that is written here."""
    providers = config["providers"].values()
    deployments = (deployment for model in config["models"].values() for deployment in model["deployments"])
    given = (seconds for one in (*providers, *deployments) for seconds in one.get("timeouts", {}).values())
    return max((seconds for seconds in given if not is_reference(seconds)), default=0)


def _in_order(config: dict[str, Any]) -> dict[str, Any]:
    """With the keys of models in the order of the documentation."""
    for model in config["models"].values():
        model["deployments"] = [_sorted(deployment, DeploymentConfig) for deployment in model["deployments"]]
    return {**config, "models": {name: _sorted(model, ModelConfig) for name, model in config["models"].items()}}


def _sorted(section: dict[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    return {key: section[key] for key in kind.model_fields if key in section}


def _comments(name: str, losses: list[Problem]) -> list[str]:
    made = [
        f"Made from {name} by `llmgateway import-litellm`. Check it with `llmgateway check-config`.",
        "One limit on attempts (routing.max_attempts) counts for retries and fallbacks together.",
        f"timeouts: streams must begin within first_byte_seconds, others within answer_seconds ({_PATIENCE_SECONDS}).",
    ]
    return [*made, "Not carried over:", *(f"- {loss.text(name)}" for loss in losses)] if losses else made
