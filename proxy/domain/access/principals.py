"""Who makes a request, and what it may do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from proxy.domain.access.model_scope import ModelScope
from proxy.domain.access.permissions import ROLE_PERMISSIONS, Permission, Role
from proxy.domain.access.scopes import Scope, Subject
from proxy.domain.budgets import Budget
from proxy.domain.rate_limits import Priority, RateLimit


class PrincipalKind(StrEnum):
    """How it has shown who it is."""

    ANONYMOUS = "anonymous"  # not at all: the gateway is open
    MASTER = "master"  # the key from the environment
    KEY = "key"  # a virtual key
    TOKEN = "token"  # noqa: S105  # a JWT of the configured issuer


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A caller with its rights, as the request path needs them: made once when a key is looked up, then kept.

    `id` is for audits and idempotency: `key:<uuid>`, `master`, `token:<subject>`. `reach` is whose keys, usage and
    requests it may see and, with the permission, change: the whole gateway, an organisation, a team or itself.
    All of `model_scopes` (its own, its team's, its organisation's) must allow a model; `endpoints` None is every one.
    `budgets` and `limits` are those of its key, team and organisation. `expires_at` is when its key runs out; tokens
    have none: they end within minutes, and their holders sign in again.
    """

    kind: PrincipalKind
    id: str
    name: str
    permissions: frozenset[Permission]
    reach: Subject
    key_id: UUID | None = None
    team_id: UUID | None = None
    organisation_id: UUID | None = None
    model_scopes: tuple[ModelScope, ...] = ()
    endpoints: frozenset[str] | None = None
    priority: Priority = Priority.NORMAL
    tags: tuple[str, ...] = ()
    budgets: tuple[Budget, ...] = ()
    limits: tuple[RateLimit, ...] = ()
    expires_at: datetime | None = None

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    def subjects(self) -> tuple[Subject, ...]:
        """Itself and what it belongs to, from wide to narrow."""
        of = ((Scope.ORGANISATION, self.organisation_id), (Scope.TEAM, self.team_id), (Scope.KEY, self.key_id))
        return tuple(Subject(scope, str(id_)) for scope, id_ in of if id_ is not None)


ANONYMOUS: Final = Principal(
    kind=PrincipalKind.ANONYMOUS,
    id="anonymous",
    name="anonymous",
    permissions=ROLE_PERMISSIONS[Role.MEMBER] | {Permission.USAGE_READ},
    reach=Subject(Scope.GATEWAY),
)
