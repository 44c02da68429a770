"""/admin/deployments, /admin/prices, /admin/usage, /admin/requests, /admin/audit and /admin/config"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from aiohttp import web

from proxy.api.admin.context import ADMIN, AdminApi, actor_of, body_of, named_page, page_answer, page_of, with_one_more
from proxy.api.admin.price_bodies import PriceBody
from proxy.api.permissions import needs
from proxy.application.administration import prices
from proxy.application.administration.objects import AUDITED_KINDS
from proxy.application.administration.prices import price_view
from proxy.application.ports import ConfigurationControl, LiveDeployment
from proxy.domain.access.permissions import Permission
from proxy.domain.access.tenants import Team, VirtualKey
from proxy.domain.errors import AlreadyThere, InvalidRequest, ObjectNotFound, RouteNotFound
from proxy.domain.usage_report import usage_query

_CREATED = 201


@needs(Permission.PRICES_READ, whole_gateway=True)
async def list_prices(request: web.Request) -> web.Response:
    page = page_of(request, "name")
    return named_page([price_view(each) for each in await request.app[ADMIN].prices.get_all()], "model", page)


@needs(Permission.PRICES_WRITE, whole_gateway=True)
async def set_price(request: web.Request) -> web.Response:
    admin, body = request.app[ADMIN], await body_of(request, PriceBody)
    price = body.made()
    is_set = await prices.set_price(admin.administration, admin.prices, actor_of(request), price, admin.take_up_prices)
    if not is_set:
        raise AlreadyThere(f"'{body.model}' has a price from that very moment on already; prices are never changed.")
    return web.json_response(price_view(price), status=_CREATED)


@needs(Permission.DEPLOYMENTS_READ, whole_gateway=True)
async def list_deployments(request: web.Request) -> web.Response:
    """Of this process."""
    page = page_of(request, "name")
    deployments = _running(request.app[ADMIN]).items()
    return named_page([{"name": name, **live.report()} for name, live in deployments], "name", page)


@needs(Permission.DEPLOYMENTS_READ, whole_gateway=True)
async def get_deployment(request: web.Request) -> web.Response:
    live = _deployment(request)
    return web.json_response({"name": live.name, **live.report()})


@needs(Permission.DEPLOYMENTS_WRITE, whole_gateway=True)
async def drain_deployment(request: web.Request) -> web.Response:
    """It gets no new requests; those that run end as they would. Until it is enabled, or the gateway restarted."""
    return await _switched(request, "drain", is_drained=True)


@needs(Permission.DEPLOYMENTS_WRITE, whole_gateway=True)
async def enable_deployment(request: web.Request) -> web.Response:
    return await _switched(request, "enable", is_drained=False)


async def _switched(request: web.Request, action: str, *, is_drained: bool) -> web.Response:
    live = _deployment(request)
    before = {"drained": live.report()["drained"]}
    after = {"drained": is_drained}
    live.drain(is_drained=is_drained)  # first: it is needed also, and most, while there is no database
    await request.app[ADMIN].siblings.drain(live.name, is_drained=is_drained)
    await request.app[ADMIN].administration.note(
        actor_of(request), action, "deployments", live.name[:255], before, after
    )
    return web.json_response({"name": live.name, **live.report()})


def _deployment(request: web.Request) -> LiveDeployment:
    name = request.match_info["name"]
    found = _running(request.app[ADMIN]).get(name)
    if found is None:
        raise ObjectNotFound("deployment", name[:255])
    return found


def _running(admin: AdminApi) -> Mapping[str, LiveDeployment]:
    if admin.deployments is None:
        raise RouteNotFound("No gateway runs here: ask a running one.")
    return admin.deployments()


@needs(Permission.USAGE_READ)
async def get_usage(request: web.Request) -> web.Response:
    """As GET /v1/usage, over all that is reached."""
    arguments = {name: request.query.getall(name) for name in request.query}
    query = usage_query(arguments, actor_of(request).principal.reach)
    report = await request.app[ADMIN].usage.report(query)
    return web.json_response(report.as_dict())


@needs(Permission.USAGE_READ)
async def list_requests(request: web.Request) -> web.Response:
    """Rows of the ledger, newest first."""
    admin, actor = request.app[ADMIN], actor_of(request)
    page = page_of(request, "key", "team", "model", "provider", "status", "end_user", "request_id", "since", "until")
    ids: dict[str, str] = {}
    if "key" in page.filters:
        ids["key"] = str((await admin.administration.get(actor, VirtualKey, page.filters["key"])).id)
    if "team" in page.filters:
        ids["team"] = str((await admin.administration.get(actor, Team, page.filters["team"])).id)
    page = replace(page, filters={**_with_times(page.filters), **ids}, within=actor.principal.reach)
    return page_answer([dict(each) for each in await admin.requests.page(with_one_more(page))], page)


@needs(Permission.AUDIT_READ)
async def list_audit(request: web.Request) -> web.Response:
    """Who changed what, newest first."""
    page = page_of(request, "actor", "action", "kind", "object", "since", "until")
    if (kind := page.filters.get("kind")) is not None and kind not in AUDITED_KINDS:
        raise InvalidRequest(f"kind must be one of: {', '.join(AUDITED_KINDS)}.", param="kind")
    page = replace(page, filters=_with_times(page.filters))
    found = await request.app[ADMIN].administration.audited(actor_of(request), with_one_more(page))
    return page_answer([each.view() for each in found], page)


def _with_times(filters: Mapping[str, str]) -> dict[str, str]:
    """With `since` and `until` in UTC. Raises InvalidRequest."""
    times = {}
    for name in ("since", "until"):
        if name in filters:
            try:
                moment = datetime.fromisoformat(filters[name])
                times[name] = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).isoformat()
            except (ValueError, OverflowError):
                raise InvalidRequest(f"{name} must be a time as in ISO 8601, 2026-11-23T12:00Z.", param=name) from None
    return {**filters, **times}


@needs(Permission.CONFIG_WRITE, whole_gateway=True)
async def reload_config(request: web.Request) -> web.Response:
    """Loads the configuration file anew, or tells all that is wrong with it and changes nothing.

    Once this worker has it the others are told, and answered for.
    """
    admin = request.app[ADMIN]
    if admin.configuration is None:
        raise RouteNotFound("No gateway runs here: ask a running one.")
    control: ConfigurationControl = admin.configuration
    before = dict(control.state())
    after = dict(await control.reload())
    if others := await admin.siblings.reload():
        own = {"pid": os.getpid(), "took_it": True, "version": after["version"], "problems": []}
        after["workers"] = sorted([own, *others], key=lambda each: int(each["pid"]))
    await admin.administration.note(actor_of(request), "reload", "configuration", "file", before, after)
    return web.json_response(after)


def add_routes(app: web.Application) -> None:
    app.router.add_get("/prices", list_prices)
    app.router.add_post("/prices", set_price)
    app.router.add_get("/deployments", list_deployments)
    app.router.add_get("/deployments/{name:.+}", get_deployment)
    app.router.add_post("/deployments/{name:.+}/drain", drain_deployment)
    app.router.add_post("/deployments/{name:.+}/enable", enable_deployment)
    app.router.add_get("/usage", get_usage)
    app.router.add_get("/requests", list_requests)
    app.router.add_get("/audit", list_audit)
    app.router.add_post("/config/reload", reload_config)
