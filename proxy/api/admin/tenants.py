"""/admin/organisations and /admin/teams"""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from proxy.api.admin.bodies import OrganisationBody, TeamBody, TenantPatch, changed
from proxy.api.admin.context import ADMIN, actor_of, body_of, page_answer, page_of, with_one_more
from proxy.api.permissions import needs
from proxy.application.administration.objects import view
from proxy.domain.access.permissions import Permission
from proxy.domain.access.tenants import Organisation, Team

_CREATED = 201


@needs(Permission.TENANTS_READ)
async def list_organisations(request: web.Request) -> web.Response:
    page = page_of(request, "name", "disabled")
    found = await request.app[ADMIN].administration.page(actor_of(request), Organisation, with_one_more(page))
    return page_answer([view(each) for each in found], page)


@needs(Permission.TENANTS_WRITE, whole_gateway=True)
async def create_organisation(request: web.Request) -> web.Response:
    organisation = (await body_of(request, OrganisationBody)).made()
    await request.app[ADMIN].administration.create(actor_of(request), organisation)
    return web.json_response(view(organisation), status=_CREATED)


@needs(Permission.TENANTS_READ)
async def get_organisation(request: web.Request) -> web.Response:
    administration = request.app[ADMIN].administration
    return web.json_response(view(await administration.get(actor_of(request), Organisation, request.match_info["id"])))


@needs(Permission.TENANTS_WRITE, whole_gateway=True)
async def update_organisation(request: web.Request) -> web.Response:
    changes = (await body_of(request, TenantPatch)).changes()
    updated = await request.app[ADMIN].administration.update(
        actor_of(request), Organisation, request.match_info["id"], lambda before: changed(before, changes)
    )
    return web.json_response(view(updated))


@needs(Permission.TENANTS_READ)
async def list_teams(request: web.Request) -> web.Response:
    administration, page = request.app[ADMIN].administration, page_of(request, "name", "disabled", "organisation")
    if "organisation" in page.filters:
        organisation = await administration.get(actor_of(request), Organisation, page.filters["organisation"])
        page = replace(page, filters={**page.filters, "organisation": str(organisation.id)})
    found = await administration.page(actor_of(request), Team, with_one_more(page))
    return page_answer([view(each) for each in found], page)


@needs(Permission.TENANTS_WRITE)
async def create_team(request: web.Request) -> web.Response:
    administration, actor = request.app[ADMIN].administration, actor_of(request)
    body = await body_of(request, TeamBody)
    organisation_id = actor.principal.organisation_id
    if body.organisation is not None:
        organisation_id = (await administration.get(actor, Organisation, body.organisation)).id
    team = body.made(organisation_id)
    await administration.create(actor, team)
    return web.json_response(view(team), status=_CREATED)


@needs(Permission.TENANTS_READ)
async def get_team(request: web.Request) -> web.Response:
    administration = request.app[ADMIN].administration
    return web.json_response(view(await administration.get(actor_of(request), Team, request.match_info["id"])))


@needs(Permission.TENANTS_WRITE)
async def update_team(request: web.Request) -> web.Response:
    changes = (await body_of(request, TenantPatch)).changes()
    updated = await request.app[ADMIN].administration.update(
        actor_of(request), Team, request.match_info["id"], lambda before: changed(before, changes)
    )
    return web.json_response(view(updated))


def add_routes(app: web.Application) -> None:
    app.router.add_get("/organisations", list_organisations)
    app.router.add_post("/organisations", create_organisation)
    app.router.add_get("/organisations/{id}", get_organisation)
    app.router.add_patch("/organisations/{id}", update_organisation)
    app.router.add_get("/teams", list_teams)
    app.router.add_post("/teams", create_team)
    app.router.add_get("/teams/{id}", get_team)
    app.router.add_patch("/teams/{id}", update_team)
