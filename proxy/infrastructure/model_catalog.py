"""An upstream's models: its own list, cached; the price table while there is none."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from proxy.application.ports import PriceBook
from proxy.domain.catalog import AUTO
from proxy.domain.pricing import ModelPricing
from proxy.domain.values import ModelName
from proxy.infrastructure.endpoint import ProviderEndpoint

_logger = logging.getLogger(__name__)
_FETCH_TIMEOUT_SECONDS = 10.0
_RETRY_SECONDS = 30.0
_OK = 200

_Model = dict[str, Any]
AUTO_MODEL: Mapping[str, Any] = {
    "id": AUTO,
    "object": "model",
    "created": 0,
    "owned_by": "llmgateway",
    "name": "Auto",
    "description": "The gateway chooses the model by the length of the prompt, and falls back to others.",
}


class UpstreamModelCatalog:
    """ModelCatalog over an upstream's `GET models`.

    The list is asked for when it is first wanted and again when `ttl_seconds` have passed. An upstream that fails is
    left alone for half a minute, and the last list is served meanwhile; before the first one that of the prices, if
    there are any of this upstream.
    """

    def __init__(
        self, session: ClientSession, endpoint: ProviderEndpoint, prices: PriceBook | None, ttl_seconds: float
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._prices = prices
        self._ttl_seconds = ttl_seconds
        self._models: Mapping[str, _Model] = {}
        self._fresh_until = 0.0
        self._asking = asyncio.Lock()

    async def list_models(self) -> Sequence[Mapping[str, Any]]:
        return list((await self._current()).values())

    async def get_model(self, model_id: str) -> Mapping[str, Any] | None:
        return (await self._current()).get(model_id)

    async def _current(self) -> Mapping[str, _Model]:
        if time.monotonic() >= self._fresh_until:
            async with self._asking:
                if time.monotonic() >= self._fresh_until:
                    await self._refresh()
        prices = self._prices.current().values() if self._prices else ()
        return self._models or {price.model.value: _from_price(price) for price in prices}

    async def _refresh(self) -> None:
        try:
            self._models = await self._fetch()
            self._fresh_until = time.monotonic() + self._ttl_seconds
        except (ClientError, OSError, ValueError, RecursionError) as problem:
            self._fresh_until = time.monotonic() + _RETRY_SECONDS
            _logger.warning("model list not refreshed", extra={"reason": type(problem).__name__})

    async def _fetch(self) -> Mapping[str, _Model]:
        endpoint, timeout = self._endpoint, ClientTimeout(total=_FETCH_TIMEOUT_SECONDS)
        async with self._session.get(
            endpoint.models_url, headers=endpoint.headers, timeout=timeout, allow_redirects=False
        ) as response:
            if response.status != _OK:
                raise ValueError(f"HTTP {response.status}")
            listed = _listed(await response.json(content_type=None))
        if not isinstance(listed, list):
            raise ValueError("no list of models")  # noqa: TRY004  # it is the upstream's value, not our type
        models = [model for model in listed if isinstance(model, dict) and isinstance(model.get("id"), str)]
        if not models:
            raise ValueError("an empty list of models")
        return {model["id"]: _in_openai_shape(model) for model in models}


def _listed(answer: Any) -> Any:
    """The entries of OpenAI's list, of a bare one (Together's), or of Google's."""
    if not isinstance(answer, dict):
        return answer
    if "data" in answer:
        return answer["data"]
    theirs = answer.get("models")
    return [_of_google(model) for model in theirs] if isinstance(theirs, list) else None


def _of_google(model: Any) -> Any:
    """With the id that requests have; none for what does not chat."""
    name = model.get("name") if isinstance(model, dict) else None
    methods = model.get("supportedGenerationMethods") if isinstance(model, dict) else None
    chats = isinstance(methods, list) and "generateContent" in methods
    return {"id": name.removeprefix("models/"), **model} if isinstance(name, str) and chats else None


def _in_openai_shape(model: _Model) -> _Model:
    """The upstream's entry with the members that OpenAI's clients require; nothing it has is changed."""
    owner = ModelName(model["id"]).provider if model["id"].strip() else "unknown"
    return {**model, "object": "model", "created": model.get("created", 0), "owned_by": model.get("owned_by", owner)}


def _from_price(price: ModelPricing) -> _Model:
    return {
        "id": price.model.value,
        "object": "model",
        "created": int(price.updated_at.timestamp()),
        "owned_by": price.provider,
        "context_length": price.max_context_tokens,
        "pricing": {
            "prompt": f"{price.input_cost_per_1m_tokens / 1_000_000:f}",
            "completion": f"{price.output_cost_per_1m_tokens / 1_000_000:f}",
        },
    }
