"""The models of the catalog: public names, aliases, and what stands behind wildcards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import ClientSession

from proxy.application.ports import PriceBook
from proxy.application.runtime import Runtime, RuntimeSource
from proxy.domain.catalog import AUTO, WILDCARD, Catalog, Deployment, ModelRoute, NamePatterns
from proxy.infrastructure.endpoint import ProviderEndpoint
from proxy.infrastructure.model_catalog import AUTO_MODEL, UpstreamModelCatalog

_Model = Mapping[str, Any]


class ServedModels:
    """ModelCatalog over the configuration of the moment.

    A wildcard's models are those that its first deployment's provider lists, under the names that lead to them. A
    provider that does not answer has none, but for OpenRouter: the price table holds its names.
    """

    def __init__(
        self,
        runtime: RuntimeSource,
        session: ClientSession,
        endpoints: Callable[[], Mapping[str, ProviderEndpoint]],
        prices: PriceBook,
        ttl_seconds: float,
    ) -> None:
        self._runtime = runtime
        self._session = session
        self._endpoints = endpoints
        self._prices = prices
        self._ttl_seconds = ttl_seconds
        self._upstreams: dict[tuple[str, bool], tuple[ProviderEndpoint, UpstreamModelCatalog]] = {}

    async def list_models(self) -> Sequence[_Model]:
        runtime = self._runtime.current()
        served, wildcards = _named(runtime), _wildcards(runtime.catalog)
        patterns = NamePatterns(list(wildcards))
        for found in await asyncio.gather(*(self._behind(route, patterns) for route in wildcards.values())):
            for name, model in found.items():
                served.setdefault(name, model)
        return list(served.values())

    async def get_model(self, model_id: str) -> _Model | None:
        """Only a wildcard's provider is asked, and only for what has no name of its own."""
        runtime = self._runtime.current()
        if (named := _named(runtime).get(model_id)) is not None:
            return named
        wildcards = _wildcards(runtime.catalog)
        patterns = NamePatterns(list(wildcards))
        found = patterns.match(model_id)
        return None if found is None else (await self._behind(wildcards[found[0]], patterns)).get(model_id)

    async def _behind(self, route: ModelRoute, patterns: NamePatterns) -> Mapping[str, _Model]:
        """The models of a wildcard, but for names that a more specific one takes."""
        deployment = route.deployments[0]
        upstream = self._upstream(deployment)
        if upstream is None or WILDCARD not in deployment.model:
            return {}
        listed, models = NamePatterns([deployment.model]), dict[str, _Model]()
        for model in await upstream.list_models():
            if (matched := listed.match(str(model["id"]))) is None:
                continue
            public = route.name.replace(WILDCARD, matched[1])
            leads_to = patterns.match(public)
            if public != AUTO and leads_to is not None and leads_to[0] == route.name:
                models[public] = {**model, "id": public}
        return models

    def _upstream(self, deployment: Deployment) -> UpstreamModelCatalog | None:
        """The provider's list, kept for as long as the provider is where it was."""
        endpoint = self._endpoints().get(deployment.provider)
        if endpoint is None:
            return None
        is_openrouter = deployment.walks_models
        key = deployment.provider, is_openrouter
        known = self._upstreams.get(key)
        if known is None or known[0] != endpoint:
            prices = self._prices if is_openrouter else None
            known = endpoint, UpstreamModelCatalog(self._session, endpoint, prices, self._ttl_seconds)
            self._upstreams[key] = known
        return known[1]


def _wildcards(catalog: Catalog) -> dict[str, ModelRoute]:
    return {route.name: route for route in catalog.routes if route.is_wildcard}


def _named(runtime: Runtime) -> dict[str, _Model]:
    """What has a name in the configuration: `auto`, models, aliases."""
    catalog = runtime.catalog
    named: dict[str, _Model] = {}
    if any(catalog.resolve(model) for model in runtime.policy.chain):
        named[AUTO] = AUTO_MODEL
    for route in catalog.routes:
        if not route.is_wildcard:
            named[route.name] = _described(route.name, route)
    return named | _aliases(catalog)


def _aliases(catalog: Catalog) -> dict[str, _Model]:
    named = ((alias, catalog.resolve(alias)) for alias in catalog.aliases)
    return {alias: {**_described(alias, route), "alias_of": route.name} for alias, route in named if route is not None}


def _described(name: str, route: ModelRoute) -> _Model:
    providers = dict.fromkeys(deployment.provider for deployment in route.deployments)
    windows = [deployment.context_window_tokens for deployment in route.deployments]
    known = [window for window in windows if window is not None]
    length = {"context_length": max(known)} if known else {}
    return {"id": name, "object": "model", "created": 0, "owned_by": ", ".join(providers), **length}
