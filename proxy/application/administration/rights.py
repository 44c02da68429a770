"""Who may administer what: rights only shrink on their way down.

A caller reaches a part of the gateway (Principal.reach), and changes only what lies within. Budgets and limits of what
it is part of are set by those above it. Nobody hands out a role, a model, an endpoint or a priority that it has not,
nor anything for longer than it has it itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from proxy.application.administration.objects import Entity, Kind
from proxy.application.administration.ports import Reading
from proxy.domain.access.model_scope import ModelGroups, ModelScope
from proxy.domain.access.permissions import Permission, Role, permissions_of
from proxy.domain.access.principals import Principal
from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.access.tenants import Organisation, Team, VirtualKey
from proxy.domain.errors import InvalidRequest, NotAllowed

READ: Final[Mapping[Kind, Permission]] = {
    Kind.ORGANISATIONS: Permission.TENANTS_READ,
    Kind.TEAMS: Permission.TENANTS_READ,
    Kind.KEYS: Permission.KEYS_READ,
    Kind.BUDGETS: Permission.BUDGETS_READ,
    Kind.LIMITS: Permission.LIMITS_READ,
}
WRITE: Final[Mapping[Kind, Permission]] = {
    Kind.ORGANISATIONS: Permission.TENANTS_WRITE,
    Kind.TEAMS: Permission.TENANTS_WRITE,
    Kind.KEYS: Permission.KEYS_WRITE,
    Kind.BUDGETS: Permission.BUDGETS_WRITE,
    Kind.LIMITS: Permission.LIMITS_WRITE,
}
_TENANTS = (Scope.ORGANISATION, Scope.TEAM, Scope.KEY)


async def check_reach(actor: Principal, entity: Entity, world: Reading) -> None:
    """Whether the actor may make, change or remove this at all; asked of what is there and of what is to be.

    Raises NotAllowed, and InvalidRequest for what refers to nothing.
    """
    match entity:
        case Organisation():
            _check_reaches_all(actor, "Organisations are administered by those who administer the gateway.")
        case Team():
            if actor.reach != GATEWAY and actor.reach != Subject(Scope.ORGANISATION, str(entity.organisation_id)):
                raise NotAllowed("This team is outside of what you administer.")
        case VirtualKey():
            if not await world.is_within(_place_of(entity), actor.reach):
                raise NotAllowed("This key is outside of what you administer.")
            _check_role(actor, entity)
        case _:
            await _check_subject(actor, entity.subject, world)


async def check_grants(
    actor: Principal, before: Entity | None, after: Entity, world: Reading, groups: ModelGroups
) -> None:
    """Whether the actor, and what is above the entity, has what the change gives. What stays is not asked about.

    Raises NotAllowed, and InvalidRequest for what refers to nothing.
    """
    if not isinstance(after, Organisation | Team | VirtualKey):
        return
    above = await _scopes_above(after, world)
    is_moved = before is None or _belonging(before) != _belonging(after)
    if is_moved or getattr(before, "models", None) != after.models:
        _check_models(after.models, actor.model_scopes, above, groups)
    if isinstance(after, VirtualKey):
        _check_key(actor, before if isinstance(before, VirtualKey) else None, after)


def gives_anew(before: Entity, after: Entity) -> bool:
    """Whether all that it may do is handed out by the change: it is good again, good for longer, or has a new secret.

    Else who is limited would rotate a key that is not, and use it.
    """
    if isinstance(before, Organisation | Team) and isinstance(after, Organisation | Team):
        return before.disabled and not after.disabled
    if not (isinstance(before, VirtualKey) and isinstance(after, VirtualKey)):
        return False
    if after.disabled:
        return False
    is_longer = before.expires_at is not None and (after.expires_at is None or after.expires_at > before.expires_at)
    return after.hash != before.hash or (before.disabled and not after.disabled) or is_longer


def _belonging(entity: Entity) -> tuple[object, object]:
    return getattr(entity, "organisation_id", None), getattr(entity, "team_id", None)


async def _scopes_above(entity: Organisation | Team | VirtualKey, world: Reading) -> list[ModelScope]:
    """What the models of the entity are limited by anyway."""
    if isinstance(entity, Organisation):
        return []
    scopes, organisation_id = [], entity.organisation_id
    if isinstance(entity, VirtualKey) and entity.team_id is not None:
        team = await world.get(Team, str(entity.team_id))
        if team is None:
            raise InvalidRequest(f"There is no team '{entity.team_id}'.", param="team")
        scopes.append(team.models)
        organisation_id = team.organisation_id
    if organisation_id is not None:
        organisation = await world.get(Organisation, str(organisation_id))
        if organisation is None:
            raise InvalidRequest(f"There is no organisation '{organisation_id}'.", param="organisation")
        scopes.append(organisation.models)
    return scopes


def _check_key(actor: Principal, before: VirtualKey | None, after: VirtualKey) -> None:
    is_changed = before is None or before.endpoints != after.endpoints
    has_more = actor.endpoints is not None and (after.endpoints is None or not after.endpoints <= actor.endpoints)
    if is_changed and has_more:
        raise NotAllowed("A key may use no endpoints that you may not use yourself.")
    is_moved = before is None or before.expires_at != after.expires_at
    if is_moved and actor.expires_at is not None and (after.expires_at is None or after.expires_at > actor.expires_at):
        raise NotAllowed(f"A key may be good for no longer than your own, until {actor.expires_at.isoformat()}.")
    is_raised = before is None or before.priority < after.priority
    if is_raised and actor.reach != GATEWAY and after.priority > actor.priority:
        raise NotAllowed(f"A key may have no higher priority than your own, {actor.priority.name.lower()}.")


def _check_reaches_all(actor: Principal, message: str) -> None:
    if actor.reach != GATEWAY:
        raise NotAllowed(message)


def _place_of(key: VirtualKey) -> Subject:
    """What the key belongs to."""
    if key.team_id is not None:
        return Subject(Scope.TEAM, str(key.team_id))
    if key.organisation_id is not None:
        return Subject(Scope.ORGANISATION, str(key.organisation_id))
    return GATEWAY


def _check_role(actor: Principal, key: VirtualKey) -> None:
    if key.role is Role.TEAM_ADMIN and key.team_id is None:
        raise InvalidRequest("A key with role team_admin needs a team.", param="team")
    if key.role is Role.ORGANISATION_ADMIN and key.organisation_id is None and key.team_id is None:
        raise InvalidRequest("A key with role organisation_admin needs an organisation.", param="organisation")
    if key.role is Role.MEMBER:
        return
    _check_reach_of_role(actor, key)
    granted = permissions_of(key.role, calls_models=key.calls_models)
    if key.calls_models and actor.reach != GATEWAY:
        raise NotAllowed(
            "That a key administers and calls models, too, is allowed by those who administer the gateway."
        )
    more = granted - actor.permissions - {Permission.MODELS_CALL}
    if more:
        raise NotAllowed(f"Role '{key.role.value}' may do what you may not: {', '.join(sorted(more))}.")


def _check_reach_of_role(actor: Principal, key: VirtualKey) -> None:
    """A role reaches a team, an organisation or all; nobody hands out a reach wider than its own."""
    reached = {Role.TEAM_ADMIN: Scope.TEAM, Role.ORGANISATION_ADMIN: Scope.ORGANISATION}.get(key.role, Scope.GATEWAY)
    if reached.width > actor.reach.scope.width:
        raise NotAllowed(f"Role '{key.role.value}' reaches further than you do.")


def _check_models(
    models: ModelScope, own: Sequence[ModelScope], above: Sequence[ModelScope], groups: ModelGroups
) -> None:
    """Models that are left open are those of what is above; and the actor may be limited further than that."""
    for scope in (*above, *own):
        if models.allowed is None and scope.allowed is not None and scope not in above:
            raise NotAllowed("Name the models: you may not use all of them yourself.")
        for name in models.allowed or ():
            if not scope.includes(ModelScope((name,)), groups):
                raise NotAllowed(f"Model '{name}' is not among those that may be granted here.")


async def _check_subject(actor: Principal, subject: Subject, world: Reading) -> None:
    if subject.scope not in _TENANTS:
        _check_reaches_all(actor, "Budgets and limits for the gateway, its models and end users are not yours to set.")
        return
    if not await world.is_within(subject, GATEWAY):
        raise InvalidRequest(f"There is no {subject.scope.value} '{subject.id}'.", param="subject")
    if actor.reach == GATEWAY:
        return
    own = (actor.reach, *actor.subjects())
    if subject in own or not await world.is_within(subject, actor.reach):
        raise NotAllowed("Budgets and limits of what you are part of yourself are set by those above you.")
