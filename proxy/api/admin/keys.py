"""/admin/keys"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from aiohttp import web

from proxy.api.admin.bodies import KeyBody, KeyPatch, RotateBody, changed
from proxy.api.admin.context import ADMIN, actor_of, body_of, page_answer, page_of, with_one_more
from proxy.api.permissions import needs
from proxy.application.administration.administration import Actor, Administration
from proxy.application.administration.objects import view
from proxy.application.administration.ports import Page
from proxy.domain.access.keys import PREFIX, generate_key
from proxy.domain.access.permissions import Permission
from proxy.domain.access.tenants import Organisation, Team, VirtualKey

_CREATED = 201


@needs(Permission.KEYS_READ)
async def list_keys(request: web.Request) -> web.Response:
    administration, actor = request.app[ADMIN].administration, actor_of(request)
    page = page_of(request, "name", "team", "organisation", "owner", "role", "disabled")
    page = await _with_ids(administration, actor, page)
    found = await administration.page(actor, VirtualKey, with_one_more(page))
    return page_answer([view(each) for each in found], page)


async def _with_ids(administration: Administration, actor: Actor, page: Page) -> Page:
    """Teams and organisations may be named."""
    ids: dict[str, str] = {}
    if "team" in page.filters:
        ids["team"] = str((await administration.get(actor, Team, page.filters["team"])).id)
    if "organisation" in page.filters:
        ids["organisation"] = str((await administration.get(actor, Organisation, page.filters["organisation"])).id)
    return replace(page, filters={**page.filters, **ids})


@needs(Permission.KEYS_WRITE)
async def create_key(request: web.Request) -> web.Response:
    """The secret is in this answer and nowhere else. Without a team the actor's own is the key's."""
    administration, actor = request.app[ADMIN].administration, actor_of(request)
    body = await body_of(request, KeyBody)
    team, organisation_id = await _place(administration, actor, body)
    if body.hash is not None:
        key, rules = body.made(body.hash, f"{PREFIX}…", actor.name, team, organisation_id)
        told: dict[str, Any] = {}
    else:
        secret = generate_key()
        key, rules = body.made(secret.hash, secret.hint, actor.name, team, organisation_id)
        told = {"key": secret.secret}
    await administration.create(actor, key, *rules)
    return web.json_response({**view(key), **told}, status=_CREATED)


async def _place(administration: Administration, actor: Actor, body: KeyBody) -> tuple[Team | None, UUID | None]:
    if body.team is not None:
        return await administration.get(actor, Team, body.team), None
    if body.organisation is not None:
        return None, (await administration.get(actor, Organisation, body.organisation)).id
    if actor.principal.team_id is not None:
        return await administration.get(actor, Team, str(actor.principal.team_id)), None
    return None, actor.principal.organisation_id


@needs(Permission.KEYS_READ)
async def get_key(request: web.Request) -> web.Response:
    administration = request.app[ADMIN].administration
    return web.json_response(view(await administration.get(actor_of(request), VirtualKey, request.match_info["id"])))


@needs(Permission.KEYS_WRITE)
async def update_key(request: web.Request) -> web.Response:
    changes = (await body_of(request, KeyPatch)).changes()
    updated = await request.app[ADMIN].administration.update(
        actor_of(request), VirtualKey, request.match_info["id"], lambda before: changed(before, changes)
    )
    return web.json_response(view(updated))


@needs(Permission.KEYS_WRITE)
async def rotate_key(request: web.Request) -> web.Response:
    """The new secret is in this answer and nowhere else."""
    grace_seconds = (await body_of(request, RotateBody)).grace_seconds if request.can_read_body else 0.0
    key, secret = await request.app[ADMIN].administration.rotate(
        actor_of(request), request.match_info["id"], grace_seconds
    )
    return web.json_response({**view(key), "key": secret.secret})


@needs(Permission.KEYS_WRITE)
async def revoke_key(request: web.Request) -> web.Response:
    """Within a second no process takes it any more."""
    return web.json_response(
        view(await request.app[ADMIN].administration.revoke(actor_of(request), request.match_info["id"]))
    )


def add_routes(app: web.Application) -> None:
    app.router.add_get("/keys", list_keys)
    app.router.add_post("/keys", create_key)
    app.router.add_get("/keys/{id}", get_key)
    app.router.add_patch("/keys/{id}", update_key)
    app.router.add_post("/keys/{id}/rotate", rotate_key)
    app.router.add_post("/keys/{id}/revoke", revoke_key)
