"""From a good token's claims to the principal that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from proxy.domain.access.known_keys import known_key
from proxy.domain.access.permissions import Permission, Role
from proxy.domain.access.principals import Principal, PrincipalKind
from proxy.domain.access.tenants import Organisation, Team, VirtualKey
from proxy.domain.budgets import Budget
from proxy.domain.errors import NotAllowed
from proxy.domain.rate_limits import RateLimit

ANY_ROLE: Final = "*"
_OF_THE_GATEWAY: Final = (Role.ADMIN, Role.AUDITOR)
_NAME_CLAIMS = ("preferred_username", "email")
_NAME_CHARACTERS = 255
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What claims mean. Of `roles`, by the claim's value, the first one that a token has counts; ANY_ROLE is for all.

    `team_claim` None does without teams. `calls_models` is whether members may call models; others never may.
    """

    issuer: str
    roles: Mapping[str, Role]
    role_claim: str = "role"
    team_claim: str | None = "team"
    calls_models: bool = True


@dataclass(frozen=True, slots=True)
class Holder:
    """Who a token says that it is for. `key_id` is what its requests are booked under: one for each subject."""

    subject: str
    name: str
    key_id: UUID
    role: Role
    team: str | None


@dataclass(frozen=True, slots=True)
class Membership:
    """What the database knows of a holder's team, and of the rules for both."""

    team: Team | None = None
    organisation: Organisation | None = None
    budgets: Sequence[Budget] = ()
    limits: Sequence[RateLimit] = ()


def holder_of(claims: Mapping[str, Any], rules: ClaimRules) -> Holder:
    """Raises NotAllowed for a token without a role, or without the one team that its role is for."""
    subject = str(claims["sub"])
    role = _role(claims, rules)
    name = next((text for claim in _NAME_CLAIMS if isinstance(text := claims.get(claim), str) and text), subject)
    team = None if role in _OF_THE_GATEWAY or rules.team_claim is None else _team(claims, rules.team_claim)
    return Holder(subject, name[:_NAME_CHARACTERS], uuid5(NAMESPACE_URL, f"{rules.issuer}#{subject}"), role, team)


def principal_of(holder: Holder, membership: Membership, rules: ClaimRules) -> Principal:
    """With the reach and the scopes that a virtual key of that role and team would have. Raises NotAllowed."""
    if holder.team is not None and membership.team is None:
        raise NotAllowed(f"The token's team '{holder.team}' does not exist here.")
    stand_in = VirtualKey(
        id=holder.key_id,
        hash="",
        hint="",
        name=holder.name,
        created_at=_LONG_AGO,
        created_by=rules.issuer,
        role=holder.role,
        calls_models=False,
    )
    known = known_key(stand_in, membership.team, membership.organisation, membership.budgets, membership.limits)
    if known.is_disabled:
        raise NotAllowed(f"The token's team '{holder.team}' is disabled.")
    granted = known.principal.permissions
    return replace(
        known.principal,
        kind=PrincipalKind.TOKEN,
        id=f"token:{holder.subject}",
        permissions=granted if rules.calls_models else granted - {Permission.MODELS_CALL},
    )


def _role(claims: Mapping[str, Any], rules: ClaimRules) -> Role:
    has = _words(_claim(claims, rules.role_claim))
    for word, role in rules.roles.items():
        if word == ANY_ROLE or word in has:
            return role
    raise NotAllowed(f"The token's claim '{rules.role_claim}' has no value that OIDC_ROLES gives a role to.")


def _team(claims: Mapping[str, Any], claim: str) -> str:
    teams = _words(_claim(claims, claim))
    if len(teams) != 1:
        raise NotAllowed(f"The token's claim '{claim}' must name one team; it names {len(teams)}.")
    return teams[0]


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """By its name; or, with dots, within others: `realm_access.roles`."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _words(value: Any) -> list[str]:
    """A text, or a list of such."""
    listed = value if isinstance(value, list) else [value]
    return [word for word in listed if isinstance(word, str) and word]
