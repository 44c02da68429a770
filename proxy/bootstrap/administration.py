"""Composing the admin API: of a running gateway, or for a command that works on the database itself."""

from __future__ import annotations

import getpass
import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.api.admin.app import create_admin
from proxy.api.admin.context import AdminApi
from proxy.api.admin.problems import PREFIX
from proxy.api.app_keys import PRINCIPAL
from proxy.api.middlewares.errors import errors
from proxy.api.middlewares.request_id import request_id
from proxy.application.administration.administration import Administration, nobody_heeds_them
from proxy.application.administration.ports import DeploymentSwitches
from proxy.application.administration.prices import nobody_uses_them
from proxy.application.ports import ConfigurationControl
from proxy.application.siblings import NoSiblings, Siblings
from proxy.bootstrap.config_file import configuration_file, read_configuration
from proxy.bootstrap.storage import existing_database, migrated_database
from proxy.domain.access.model_scope import ModelGroups
from proxy.domain.access.permissions import Role, permissions_of
from proxy.domain.access.principals import Principal, PrincipalKind
from proxy.domain.access.scopes import GATEWAY
from proxy.domain.errors import NotAuthenticated
from proxy.infrastructure.budgets.reports import SqlBudgetReports
from proxy.infrastructure.persistence.access_store import SqlAccessStore
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.model_pricing import AdministeredPrices
from proxy.infrastructure.persistence.request_list import LedgerRequestList
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports
from proxy.settings import Settings


def admin_api(
    database: Database,
    groups: Callable[[], ModelGroups],
    deployments: DeploymentSwitches | None = None,
    configuration: ConfigurationControl | None = None,
    siblings: Siblings | None = None,
    take_up_prices: Callable[[], Awaitable[None]] = nobody_uses_them,
    take_up_access: Callable[[], Awaitable[None]] = nobody_heeds_them,
) -> AdminApi:
    store = SqlAccessStore(database)
    return AdminApi(
        administration=Administration(store, store, groups, take_up_access),
        budgets=SqlBudgetReports(database),
        prices=AdministeredPrices(database),
        usage=LedgerUsageReports(database),
        requests=LedgerRequestList(database),
        deployments=deployments,
        configuration=configuration,
        siblings=siblings or NoSiblings(),
        take_up_prices=take_up_prices,
    )


@dataclass(frozen=True, slots=True)
class LocalAdminApi:
    """Where it is for as long as the command runs, and what only the command knows."""

    url: str
    token: str


@asynccontextmanager
async def local_admin_api(settings: Settings, *, may_create: bool) -> AsyncIterator[LocalAdminApi]:
    """The same admin API over the database, without a gateway. Whoever may open the database is an administrator.

    `may_create`: a SQLite database that is not there is made. Raises InvalidValue, ConfigErrors or DATABASE_ERRORS.
    """
    path = configuration_file(settings)
    groups: ModelGroups = read_configuration(path, settings).model_groups if path is not None else {}
    token = secrets.token_urlsafe(32)
    opened = migrated_database if may_create else existing_database
    async with opened(settings) as database:
        app = web.Application(middlewares=[request_id, errors, _letting_in(token)])
        app.add_subapp(f"{PREFIX}/", create_admin(admin_api(database, lambda: groups)))
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            yield LocalAdminApi(f"http://{host}:{port}", token)
        finally:
            await runner.cleanup()


def command_principal() -> Principal:
    """Whoever runs a command on the database itself."""
    return Principal(
        kind=PrincipalKind.MASTER,
        id="cli",
        name=getpass.getuser(),
        permissions=permissions_of(Role.ADMIN, calls_models=False),
        reach=GATEWAY,
    )


def _letting_in(token: str) -> Middleware:
    actor = command_principal()

    @web.middleware
    async def local_authentication(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise NotAuthenticated("This is another program's.")
        request[PRINCIPAL] = actor
        return await handler(request)

    return local_authentication
