"""What can be allowed, and the roles that allow it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Permission(StrEnum):
    """What a route may ask for. Reach (whose keys, whose usage) is the principal's, not the permission's."""

    MODELS_CALL = "models:call"
    MODELS_READ = "models:read"
    SELF_READ = "self:read"  # its own usage, limits, budgets and requests
    TENANTS_READ = "tenants:read"  # organisations and teams
    TENANTS_WRITE = "tenants:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    BUDGETS_READ = "budgets:read"
    BUDGETS_WRITE = "budgets:write"
    LIMITS_READ = "limits:read"
    LIMITS_WRITE = "limits:write"
    USAGE_READ = "usage:read"  # of all within reach, with their requests
    AUDIT_READ = "audit:read"
    PRICES_READ = "prices:read"
    PRICES_WRITE = "prices:write"
    DEPLOYMENTS_READ = "deployments:read"
    DEPLOYMENTS_WRITE = "deployments:write"
    CONFIG_WRITE = "config:write"


class Role(StrEnum):
    """What a key or a token is for."""

    MEMBER = "member"  # calls models and sees itself
    TEAM_ADMIN = "team_admin"  # hands out keys within its team
    ORGANISATION_ADMIN = "organisation_admin"  # the same for all teams of its organisation
    AUDITOR = "auditor"  # reads everything, changes nothing
    ADMIN = "admin"  # everything but calling models


_P = Permission
_OWN = frozenset({_P.MODELS_READ, _P.SELF_READ})
_WITHIN_A_TEAM = _OWN | {
    _P.TENANTS_READ,
    _P.KEYS_READ,
    _P.KEYS_WRITE,
    _P.BUDGETS_READ,
    _P.BUDGETS_WRITE,
    _P.LIMITS_READ,
    _P.LIMITS_WRITE,
    _P.USAGE_READ,
    _P.AUDIT_READ,
}
_READING = frozenset(permission for permission in Permission if permission.value.endswith(":read"))

ROLE_PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = {
    Role.MEMBER: _OWN | {_P.MODELS_CALL},
    Role.TEAM_ADMIN: _WITHIN_A_TEAM,
    Role.ORGANISATION_ADMIN: _WITHIN_A_TEAM | {_P.TENANTS_WRITE},
    Role.AUDITOR: _READING,
    Role.ADMIN: frozenset(Permission) - {_P.MODELS_CALL},
}


def permissions_of(role: Role, *, calls_models: bool) -> frozenset[Permission]:
    """A role's permissions; those who administer call models only if that is allowed on its own."""
    granted = ROLE_PERMISSIONS[role]
    return granted | {_P.MODELS_CALL} if calls_models else granted
