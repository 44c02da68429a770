"""/admin/budgets and /admin/limits"""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from proxy.api.admin.bodies import BudgetBody, BudgetPatch, LimitBody, LimitPatch, changed
from proxy.api.admin.context import ADMIN, actor_of, body_of, page_answer, page_of, with_one_more
from proxy.api.permissions import needs
from proxy.application.administration.objects import view
from proxy.application.administration.ports import Page
from proxy.domain.access.permissions import Permission
from proxy.domain.access.scopes import Scope
from proxy.domain.budgets import Budget
from proxy.domain.errors import InvalidRequest
from proxy.domain.rate_limits import RateLimit

_CREATED, _NO_CONTENT = 201, 204


@needs(Permission.BUDGETS_READ)
async def list_budgets(request: web.Request) -> web.Response:
    page = await _by_subject(request, page_of(request, "name", "scope", "subject"))
    found = await request.app[ADMIN].administration.page(actor_of(request), Budget, with_one_more(page))
    return page_answer([view(each) for each in found], page)


@needs(Permission.BUDGETS_WRITE)
async def create_budget(request: web.Request) -> web.Response:
    administration = request.app[ADMIN].administration
    body = await body_of(request, BudgetBody)
    budget = body.made(await administration.subject(actor_of(request), Scope(body.scope), body.subject))
    await administration.create(actor_of(request), budget)
    return web.json_response(view(budget), status=_CREATED)


@needs(Permission.BUDGETS_READ)
async def get_budget(request: web.Request) -> web.Response:
    """With how it stands: what is spent, reserved and leased, and by whom."""
    admin = request.app[ADMIN]
    budget = await admin.administration.get(actor_of(request), Budget, request.match_info["id"])
    return web.json_response({**view(budget), **await admin.budgets.report(budget)})


@needs(Permission.BUDGETS_WRITE)
async def update_budget(request: web.Request) -> web.Response:
    changes = (await body_of(request, BudgetPatch)).changes()
    updated = await request.app[ADMIN].administration.update(
        actor_of(request), Budget, request.match_info["id"], lambda before: changed(before, changes)
    )
    return web.json_response(view(updated))


@needs(Permission.BUDGETS_WRITE)
async def delete_budget(request: web.Request) -> web.Response:
    await request.app[ADMIN].administration.remove(actor_of(request), Budget, request.match_info["id"])
    return web.Response(status=_NO_CONTENT)


@needs(Permission.LIMITS_READ)
async def list_limits(request: web.Request) -> web.Response:
    page = await _by_subject(request, page_of(request, "scope", "subject"))
    found = await request.app[ADMIN].administration.page(actor_of(request), RateLimit, with_one_more(page))
    return page_answer([view(each) for each in found], page)


@needs(Permission.LIMITS_WRITE)
async def create_limit(request: web.Request) -> web.Response:
    administration = request.app[ADMIN].administration
    body = await body_of(request, LimitBody)
    limit = body.made(await administration.subject(actor_of(request), Scope(body.scope), body.subject))
    await administration.create(actor_of(request), limit)
    return web.json_response(view(limit), status=_CREATED)


@needs(Permission.LIMITS_READ)
async def get_limit(request: web.Request) -> web.Response:
    administration = request.app[ADMIN].administration
    return web.json_response(view(await administration.get(actor_of(request), RateLimit, request.match_info["id"])))


@needs(Permission.LIMITS_WRITE)
async def update_limit(request: web.Request) -> web.Response:
    changes = (await body_of(request, LimitPatch)).changes()
    updated = await request.app[ADMIN].administration.update(
        actor_of(request), RateLimit, request.match_info["id"], lambda before: changed(before, changes)
    )
    return web.json_response(view(updated))


@needs(Permission.LIMITS_WRITE)
async def delete_limit(request: web.Request) -> web.Response:
    await request.app[ADMIN].administration.remove(actor_of(request), RateLimit, request.match_info["id"])
    return web.Response(status=_NO_CONTENT)


async def _by_subject(request: web.Request, page: Page) -> Page:
    """Subjects may be named, if it is told what they are."""
    if "subject" not in page.filters:
        return page
    try:
        scope = Scope(page.filters["scope"])
    except (KeyError, ValueError):
        known = ", ".join(scope.value for scope in Scope)
        raise InvalidRequest(f"subject needs scope, one of {known}.", param="scope") from None
    subject = await request.app[ADMIN].administration.subject(actor_of(request), scope, page.filters["subject"])
    return replace(page, filters={**page.filters, "subject": subject.id})


def add_routes(app: web.Application) -> None:
    app.router.add_get("/budgets", list_budgets)
    app.router.add_post("/budgets", create_budget)
    app.router.add_get("/budgets/{id}", get_budget)
    app.router.add_patch("/budgets/{id}", update_budget)
    app.router.add_delete("/budgets/{id}", delete_budget)
    app.router.add_get("/limits", list_limits)
    app.router.add_post("/limits", create_limit)
    app.router.add_get("/limits/{id}", get_limit)
    app.router.add_patch("/limits/{id}", update_limit)
    app.router.add_delete("/limits/{id}", delete_limit)
