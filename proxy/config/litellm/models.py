"""model_list: entries of the same model_name become the deployments of one model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from proxy.config.fields import LABEL, MODEL_PATTERN, PROVIDER_NAME, Count, PositiveCount, Seconds, Tags, Weight
from proxy.config.litellm.dialects import UNLISTED, dialect_of, why_none
from proxy.config.litellm.instead import FOR_PARAMETERS, NEEDLESS_PARAMETERS, NOTHING_IS_DROPPED
from proxy.config.litellm.prices import capabilities_of, prices_of
from proxy.config.litellm.providers import Providers, is_usable, key_variable, url_in
from proxy.config.litellm.source import Losses, Section, has_reference, is_reference
from proxy.config.references import variables_in

_CHAT = (None, "chat")
# LiteLLM knows what most models are for; where it is not said, a chat model is not called so.
_NO_CHAT = re.compile(
    r"embed|rerank|moderation|whisper|transcribe|dall-e|gpt-image|(^|/)(bge|imagen|sora|veo)-|(^|[-/])tts(-|$)",
    re.IGNORECASE,
)
_LONGEST = 256  # leaves room for the provider's name


@dataclass(slots=True)
class Models:
    """The models so far, by public name, each as our file has it.

    `stream_timeout` is the router's, which for a call that streams counts before the deployment's own `timeout`.
    """

    providers: Providers
    stream_timeout: Any = None
    by_name: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    _reached: dict[str, Any] = field(default_factory=dict)

    def add(self, entry: Section) -> None:
        """Adds an entry of model_list as a deployment; what cannot be carried over is told."""
        name = entry.text("model_name")
        params, info = entry.section("litellm_params"), entry.section("model_info")
        model = params.text("model")
        if reason := _trouble(name, model, info):
            entry.losses.tell(entry.path, reason)
            return
        assert name is not None  # noqa: S101  # _trouble has seen to it
        assert model is not None  # noqa: S101
        url_key, url = url_in(params)
        stated = params.text("custom_llm_provider")
        found = dialect_of(model, stated, url)
        if found is None:
            entry.losses.tell((*params.path, "model"), why_none(model))
            return
        if not is_usable(url, found[0]):
            entry.losses.tell((*params.path, url_key), "is no URL of a provider, so the deployment is left out")
            return
        if found[0] == UNLISTED:
            prefix = stated or model.partition("/")[0]
            entry.losses.tell(
                (*params.path, "model"), f"'{prefix}' is not known here: it is taken to speak OpenAI's API"
            )
        deployment = self._deployment(name, *found, params, info, entry)
        self.by_name.setdefault(name, {"deployments": []})["deployments"].append(deployment)
        self._group(name, info)
        for section in (params, info, entry):
            section.lose_rest()

    def _group(self, public_name: str, info: Section) -> None:
        for path, group in info.items("access_groups"):
            if not isinstance(group, str) or re.search(PROVIDER_NAME, group) is None:
                info.losses.tell(path, "is no name for a group here: letters, digits, '.', '_' and '-'")
            elif public_name not in (members := self.groups.setdefault(group, [])):
                members.append(public_name)

    def _deployment(
        self, public_name: str, prefix: str, model: str, params: Section, info: Section, entry: Section
    ) -> dict[str, Any]:
        if model == "*" and params.data["model"] == "*":
            params.lose("model", "stands for all providers there, by the model's prefix; here for openai alone")
        for key, reason in FOR_PARAMETERS.items():
            params.lose(key, reason)
        params.lose_flag("drop_params", NOTHING_IS_DROPPED)
        for key in NEEDLESS_PARAMETERS:
            params.take(key)
            info.take(key)
        info.take("mode")
        deployment: dict[str, Any] = {"provider": self.providers.name_for(prefix, params)}
        if model != public_name:
            deployment["model"] = model
        described = {
            "weight": params.fitting("weight", Weight),
            "order": (params if "order" in params else info).fitting("order", Count),
            "rpm": (params if "rpm" in params else entry).fitting("rpm", PositiveCount),
            "tpm": (params if "tpm" in params else entry).fitting("tpm", PositiveCount),
            "prices": prices_of(params, info),
            "context_window_tokens": info.fitting("max_input_tokens", PositiveCount),
            "capabilities": capabilities_of(info),
            "tags": _tags(params),
            "timeouts": self._timeouts(params),
            "max_concurrency": params.fitting("max_parallel_requests", PositiveCount),
        }
        deployment |= {key: value for key, value in described.items() if value is not None}
        self._name(public_name, deployment, model, info.take("id"))
        return deployment

    def _timeouts(self, params: Section) -> dict[str, Any] | None:
        whole, stream = params.fitting("timeout", Seconds), params.fitting("stream_timeout", Seconds)
        return timeouts_of(whole, self.stream_timeout if stream is None and whole is not None else stream)

    def _name(self, public_name: str, deployment: dict[str, Any], model: str, stated: Any) -> None:
        """Gives the deployment a name where the usual one is taken, by another one or in the same model."""
        reached = {key: deployment.get(key) for key in ("provider", "timeouts", "max_concurrency")} | {"model": model}
        usual = f"{deployment['provider']}/{model}"
        wanted = str(stated) if stated and re.search(LABEL, str(stated)) and len(str(stated)) <= _LONGEST else usual
        here = self.by_name.get(public_name, {"deployments": []})["deployments"]
        taken = {other.get("name", f"{other['provider']}/{other.get('model', public_name)}") for other in here}
        name, count = wanted, 1
        while name in taken or self._reached.setdefault(name, reached) != reached:
            count += 1
            name = f"{wanted}#{count}"
        if name != usual:
            deployment["name"] = name


def _trouble(name: str | None, model: str | None, info: Section) -> str | None:
    """Why an entry cannot be carried over at all; None if it can."""
    if not name or not model:
        return "has no model_name, or no litellm_params.model"
    if name == "auto":
        return "the name 'auto' is reserved: it lets the gateway choose"
    if reason := _no_chat(model, info) or _no_name(name) or _no_name(model):
        return reason
    return "model has a '*', and model_name has none" if "*" in model and "*" not in name else None


def _no_chat(model: str, info: Section) -> str | None:
    mode = info.data.get("mode")
    if mode not in _CHAT:
        return f"is for {mode}; this gateway serves chat completions only"
    if mode is None and _NO_CHAT.search(f"{model} {info.data.get('base_model', '')}"):
        return f"'{model}' is no chat model by its name; if it is one, set model_info.mode to chat"
    return None


def _no_name(what: str) -> str | None:
    if has_reference(what):
        return f"'{what}' comes from the environment: write it out; a model's prefix says who serves it"
    if re.search(MODEL_PATTERN, what) is None or len(what) > _LONGEST:
        return f"'{what}' is no name for a model here: at most one '*', no braces"
    return None


def _tags(params: Section) -> list[str] | None:
    if is_reference(params.take("tags")):
        params.lose("tags", "is no list")
        return None
    return params.fitting("tags", Tags) or None


def timeouts_of(whole: Any, stream: Any) -> dict[str, Any] | None:
    """From the seconds for a call, and those for one that streams, which are the same where only the first is given."""
    given = {"first_byte_seconds": whole if stream is None else stream, "answer_seconds": whole}
    return {key: seconds for key, seconds in given.items() if seconds is not None} or None


def weigh_like_shuffling(deployments: list[dict[str, Any]]) -> None:
    """LiteLLM's shuffling goes by `weight`, else `rpm`, else `tpm`, whichever the first deployment has."""
    if all(deployment.get("weight") == 0 for deployment in deployments):
        for deployment in deployments:
            del deployment["weight"]
    by = next((key for key in ("weight", "rpm", "tpm") if key in deployments[0]), None)
    if by is None or len(deployments) == 1:
        return
    weights = [deployment.get(by, 0) for deployment in deployments]
    if any(weights):
        for deployment, weight in zip(deployments, weights, strict=True):
            deployment["weight"] = weight


def models_of(root: Section, losses: Losses, stream_timeout: Any) -> Models:
    """All models of a file."""
    credentials = _credentials_of(root, losses)
    entries = [(path, _with_credentials(entry, credentials)) for path, entry in root.items("model_list")]
    models = Models(Providers(frozenset(_key_variables(entry for _, entry in entries))), stream_timeout)
    for path, entry in entries:
        models.add(Section.of(entry, path, losses))
    return models


def _key_variables(entries: Iterable[Any]) -> Iterator[str]:
    """The variables that hold keys in the file, also those that LiteLLM looks into where an entry has none.

    A key in plain text must not get the name of one of them: it would be another key, sent to the wrong server.
    """
    for entry in entries:
        params = Section.of(entry, (), Losses()).section("litellm_params")
        given, model = params.take("api_key"), params.text("model")
        if isinstance(given, str):
            yield from variables_in(given)
        elif model and (found := dialect_of(model, params.text("custom_llm_provider"), url_in(params)[1])):
            yield key_variable(found[0])


def _credentials_of(root: Section, losses: Losses) -> dict[str, dict[str, Any]]:
    """The parameters that credential_list has, by the names that deployments refer to them by."""
    credentials: dict[str, dict[str, Any]] = {}
    for path, entry in root.items("credential_list"):
        section = Section.of(entry, path, losses)
        name, values = section.text("credential_name"), section.section("credential_values")
        section.take("credential_info")  # a description
        section.lose_rest()
        if name is not None:
            credentials[name] = values.data
    return credentials


def _with_credentials(entry: Any, credentials: dict[str, dict[str, Any]]) -> Any:
    """The entry with the parameters that it refers to written out; as it is if they are not in the file."""
    params = entry.get("litellm_params") if isinstance(entry, dict) else None
    if not isinstance(params, dict):
        return entry
    name = params.get("litellm_credential_name")
    if not isinstance(name, str) or name not in credentials:
        return entry
    own = {key: value for key, value in params.items() if key != "litellm_credential_name"}
    return {**entry, "litellm_params": {**credentials[name], **own}}
