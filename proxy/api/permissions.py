"""What each route asks of its callers. A route that does not say is nobody's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from aiohttp import web

from proxy.domain.access.permissions import Permission
from proxy.domain.access.principals import Principal, PrincipalKind
from proxy.domain.access.scopes import GATEWAY
from proxy.domain.errors import NotAllowed

_Handler = TypeVar("_Handler", bound=Callable[[web.Request], Awaitable[web.StreamResponse]])
_ATTRIBUTE: Final = "__route_access__"


@dataclass(frozen=True, slots=True)
class RouteAccess:
    """A permission; and the word that a key's `endpoints` need to have for it, if they are limited.

    Without a word the route is closed to keys with such a list. `whole_gateway` asks for a reach over all tenants: for
    what is not told apart by tenant.
    """

    permission: Permission
    endpoint: str | None = None
    whole_gateway: bool = False


@dataclass(frozen=True, slots=True)
class Open:
    """For everyone, without a key."""


OPEN: Final = Open()


def open_to_all(handler: _Handler) -> _Handler:
    """Declares that a handler holds no data of anybody's."""
    setattr(handler, _ATTRIBUTE, OPEN)
    return handler


def needs(
    permission: Permission, endpoint: str | None = None, *, whole_gateway: bool = False
) -> Callable[[_Handler], _Handler]:
    """Declares what a handler asks of its callers, on whatever paths it answers."""

    def declare(handler: _Handler) -> _Handler:
        setattr(handler, _ATTRIBUTE, RouteAccess(permission, endpoint, whole_gateway))
        return handler

    return declare


def access_to(handler: object) -> RouteAccess | Open | None:
    """What the handler declares; None if nothing."""
    found = getattr(handler, _ATTRIBUTE, None)
    return found if isinstance(found, RouteAccess | Open) else None


def check_access(principal: Principal, access: RouteAccess) -> None:
    """Raises NotAllowed."""
    if not principal.may(access.permission):
        raise NotAllowed(_refusal(principal, access.permission))
    if principal.endpoints is not None and access.endpoint not in principal.endpoints:
        allowed = ", ".join(sorted(principal.endpoints)) or "none"
        raise NotAllowed(f"This key is limited to some endpoints, and this is none of them. Its endpoints: {allowed}.")
    if access.whole_gateway and principal.reach != GATEWAY:
        raise NotAllowed("This is about the whole gateway, and this key reaches a part of it only.")


def _refusal(principal: Principal, permission: Permission) -> str:
    if principal.kind is PrincipalKind.ANONYMOUS:
        return NO_STRANGERS
    if principal.kind is PrincipalKind.MASTER and permission is Permission.MODELS_CALL:
        return (
            "The master key administers the gateway and calls no models. Create a key for that with "
            "`llmgateway keys create`, or set LLMGATEWAY_MASTER_KEY_CALLS_MODELS=true."
        )
    return f"This key lacks the permission {permission.value}."


NO_STRANGERS: Final = (
    "The gateway is not administered without a key: set LLMGATEWAY_MASTER_KEY, restart, and send it as "
    "'Authorization: Bearer <key>'."
)
