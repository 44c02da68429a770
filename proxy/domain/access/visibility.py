"""Whose usage and requests a caller may see."""

from __future__ import annotations

from proxy.domain.access.permissions import Permission
from proxy.domain.access.principals import Principal
from proxy.domain.access.scopes import Scope, Subject


def sees_usage_of(principal: Principal) -> Subject:
    """All within its reach if it may read usage, else its own only; who has no key of its own then sees nobody's."""
    return principal.reach if principal.may(Permission.USAGE_READ) else itself(principal)


def itself(principal: Principal) -> Subject:
    """The key that its requests are booked under: one with an empty id, which no request has, if there is none."""
    return Subject(Scope.KEY, "" if principal.key_id is None else str(principal.key_id))
