"""The models of the catalog: public names, aliases, and what stands behind wildcards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import ClientSession

from proxy.application.ports import PriceBook
from proxy.application.runtime import RuntimeSource
from proxy.domain.catalog import AUTO, WILDCARD, Catalog, ModelRoute
from proxy.infrastructure.endpoint import ProviderEndpoint
from proxy.infrastructure.model_catalog import AUTO_MODEL, UpstreamModelCatalog

_Model = Mapping[str, Any]


class ServedModels:
    """ModelCatalog over the configuration of the moment.

    A wildcard's models are those that its first deployment's provider lists, under the names that lead to them; a
    provider that does not answer just has none.
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
        self._upstreams: dict[str, tuple[ProviderEndpoint, UpstreamModelCatalog]] = {}

    async def list_models(self) -> Sequence[_Model]:
        return list((await self._served()).values())

    async def get_model(self, model_id: str) -> _Model | None:
        return (await self._served()).get(model_id)

    async def _served(self) -> Mapping[str, _Model]:
        runtime = self._runtime.current()
        catalog = runtime.catalog
        served: dict[str, _Model] = {}
        if any(catalog.resolve(model) for model in runtime.policy.chain):
            served[AUTO] = AUTO_MODEL
        for route in catalog.routes:
            if not route.is_wildcard:
                served[route.name] = _described(route.name, route)
        served |= _aliases(catalog)
        for route in catalog.routes:
            if route.is_wildcard:
                for name, model in (await self._behind(route)).items():
                    served.setdefault(name, model)
        return served

    async def _behind(self, route: ModelRoute) -> Mapping[str, _Model]:
        deployment = route.deployments[0]
        upstream = self._upstream(deployment.provider)
        if upstream is None or WILDCARD not in deployment.model:
            return {}
        before, after = deployment.model.split(WILDCARD, 1)
        found: dict[str, _Model] = {}
        for model in await upstream.list_models():
            named = str(model["id"])
            matched = named[len(before) : len(named) - len(after)]
            if matched and named == f"{before}{matched}{after}":
                public = route.name.replace(WILDCARD, matched)
                found[public] = {**model, "id": public}
        return found

    def _upstream(self, provider: str) -> UpstreamModelCatalog | None:
        """The provider's list, kept for as long as the provider is where it was."""
        endpoint = self._endpoints().get(provider)
        if endpoint is None:
            return None
        known = self._upstreams.get(provider)
        if known is None or known[0] != endpoint:
            known = endpoint, UpstreamModelCatalog(self._session, endpoint, self._prices, self._ttl_seconds)
            self._upstreams[provider] = known
        return known[1]


def _aliases(catalog: Catalog) -> dict[str, _Model]:
    named = ((alias, catalog.resolve(alias)) for alias in catalog.aliases)
    return {alias: {**_described(alias, route), "alias_of": route.name} for alias, route in named if route is not None}


def _described(name: str, route: ModelRoute) -> _Model:
    providers = dict.fromkeys(deployment.provider for deployment in route.deployments)
    windows = [deployment.context_window_tokens for deployment in route.deployments]
    known = [window for window in windows if window is not None]
    length = {"context_length": max(known)} if known else {}
    return {"id": name, "object": "model", "created": 0, "owned_by": ", ".join(providers), **length}
