"""From a key, its team and its organisation to the principal that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from proxy.domain.access.permissions import Permission, Role, permissions_of
from proxy.domain.access.principals import Principal, PrincipalKind
from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.access.tenants import Organisation, Team, VirtualKey
from proxy.domain.budgets import Budget
from proxy.domain.rate_limits import RateLimit

# What these change is nobody's own: whoever reaches less than the whole gateway is not given them.
_OF_THE_GATEWAY: Final = frozenset({Permission.PRICES_WRITE, Permission.DEPLOYMENTS_WRITE, Permission.CONFIG_WRITE})


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key as it was read, with the principal that it stands for while it is good."""

    key: VirtualKey
    principal: Principal
    is_disabled: bool

    @property
    def is_lasting(self) -> bool:
        """Whether it admits whoever has either of its hashes, at whatever time."""
        key = self.key
        return not self.is_disabled and key.expires_at is None and key.previous_hash is None

    def admits(self, key_hash: str, now: datetime) -> bool:
        """Whether the key of this hash, the current or the one before the last rotation, is good at the moment."""
        key = self.key
        if self.is_disabled or (key.expires_at is not None and key.expires_at <= now):
            return False
        if key_hash == key.hash:
            return True
        return key_hash == key.previous_hash and key.previous_until is not None and now < key.previous_until


def known_key(
    key: VirtualKey,
    team: Team | None,
    organisation: Organisation | None,
    budgets: Sequence[Budget] = (),
    limits: Sequence[RateLimit] = (),
) -> KnownKey:
    """The organisation is the team's, if that has one. A disabled one disables its teams, and these their keys."""
    owners = [owner for owner in (organisation, team) if owner is not None]
    reach = reach_of(key, team, organisation)
    granted = permissions_of(key.role, calls_models=key.calls_models)
    principal = Principal(
        kind=PrincipalKind.KEY,
        id=f"key:{key.id}",
        name=key.name,
        permissions=granted if reach == GATEWAY else granted - _OF_THE_GATEWAY,
        reach=reach,
        key_id=key.id,
        team_id=None if team is None else team.id,
        organisation_id=None if organisation is None else organisation.id,
        model_scopes=tuple(scope for scope in (*(owner.models for owner in owners), key.models) if not scope.is_all),
        endpoints=key.endpoints,
        priority=key.priority,
        tags=key.tags,
        budgets=tuple(budgets),
        limits=tuple(limits),
        expires_at=key.expires_at,
    )
    return KnownKey(key, principal, key.disabled or any(owner.disabled for owner in owners))


def reach_of(key: VirtualKey, team: Team | None, organisation: Organisation | None) -> Subject:
    """Whose things it may see: itself for members; for others the team or organisation that it belongs to, if any.

    Only who audits or administers the gateway, and belongs to nobody, reaches all of it.
    """
    itself = Subject(Scope.KEY, str(key.id))
    if key.role is Role.MEMBER:
        return itself
    if team is not None and key.role is not Role.ORGANISATION_ADMIN:
        return Subject(Scope.TEAM, str(team.id))
    if organisation is not None and key.role is not Role.TEAM_ADMIN:
        return Subject(Scope.ORGANISATION, str(organisation.id))
    return GATEWAY if key.role in (Role.AUDITOR, Role.ADMIN) else itself
