"""The use cases. Every change is checked, made and noted in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import uuid4

from proxy.application.administration.objects import KINDS, AuditEntry, Entity, view
from proxy.application.administration.ports import AccessStore, AuditLog, Changing, Page, Reading
from proxy.application.administration.rights import READ, WRITE, check_grants, check_reach, gives_anew
from proxy.domain.access.keys import NewKey, generate_key
from proxy.domain.access.model_scope import ModelGroups
from proxy.domain.access.permissions import Permission
from proxy.domain.access.principals import Principal
from proxy.domain.access.scopes import Scope, Subject
from proxy.domain.access.tenants import Organisation, Team, VirtualKey
from proxy.domain.budgets import Budget
from proxy.domain.errors import AlreadyThere, InvalidRequest, NotAllowed, NotServing, ObjectNotFound
from proxy.domain.rate_limits import RateLimit
from proxy.domain.storable import storable

_logger = logging.getLogger(__name__)
E = TypeVar("E", bound=Entity)
_ACTOR_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and in which request."""

    principal: Principal
    request_id: str | None = None

    @property
    def name(self) -> str:
        """For the audit log; what a token says of its holder may be any text."""
        return storable(f"{self.principal.id} ({self.principal.name})")[:_ACTOR_CHARACTERS]

    def must(self, permission: Permission) -> None:
        if not self.principal.may(permission):
            raise NotAllowed(f"This key lacks the permission {permission.value}.")


async def nobody_heeds_them() -> None:
    """Where changes are made without a gateway."""


@dataclass(frozen=True, slots=True)
class Administration:
    """`groups` gives the configuration's model groups; `take_up` has this process heed what was changed."""

    store: AccessStore
    audit: AuditLog
    groups: Callable[[], ModelGroups]
    take_up: Callable[[], Awaitable[None]] = nobody_heeds_them
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    # Reading.

    async def page(self, actor: Actor, kind: type[E], page: Page) -> Sequence[E]:
        actor.must(READ[KINDS[kind]])
        async with self.store.reading() as world:
            return await world.page(kind, replace(page, within=actor.principal.reach))

    async def get(self, actor: Actor, kind: type[E], id_or_name: str) -> E:
        """Raises ObjectNotFound, also for what the actor does not reach."""
        actor.must(READ[KINDS[kind]])
        async with self.store.reading() as world:
            return await self._get(actor, kind, id_or_name, world)

    async def audited(self, actor: Actor, page: Page) -> Sequence[AuditEntry]:
        actor.must(Permission.AUDIT_READ)
        return await self.audit.entries(replace(page, within=actor.principal.reach), actor.name)

    async def subject(self, actor: Actor, scope: Scope, named: str) -> Subject:
        """By id or name. Raises ObjectNotFound, also for what the actor does not reach."""
        kinds: Mapping[Scope, type[Organisation | Team | VirtualKey]] = {
            Scope.ORGANISATION: Organisation,
            Scope.TEAM: Team,
            Scope.KEY: VirtualKey,
        }
        if scope not in kinds:
            return Subject(scope, "" if scope is Scope.GATEWAY else named)
        async with self.store.reading() as world:
            found = await self._get(actor, kinds[scope], named, world)
        return Subject(scope, str(found.id))

    # Changing.

    async def create(self, actor: Actor, *entities: Entity) -> None:
        """Adds all of them, or none. Raises NotAllowed, InvalidRequest, AlreadyThere."""
        async with self.store.changing() as world:
            for entity in entities:
                actor.must(WRITE[KINDS[type(entity)]])
                if not _is_rule_for(entity, entities[0]):
                    await check_reach(actor.principal, entity, world)
                await check_grants(actor.principal, None, entity, world, self.groups())
                self._check_lives(entity)
                await _check_only_limit(entity, world)
                await world.add(entity)
                await self._note(actor, world, "create", None, entity)
        await self.take_up()

    def _check_lives(self, entity: Entity) -> None:
        """An end in the past is a mistake in a new key; in a change it is a way to end it."""
        if isinstance(entity, VirtualKey) and entity.expires_at is not None and entity.expires_at <= self.clock():
            raise InvalidRequest("The key would have ended already: 'expires_at' is in the past.", param="expires_at")

    async def update(
        self, actor: Actor, kind: type[E], id_or_name: str, change: Callable[[E], E], action: str = "update"
    ) -> E:
        """Raises ObjectNotFound, NotAllowed, InvalidRequest, AlreadyThere."""
        actor.must(WRITE[KINDS[kind]])
        async with self.store.changing() as world:
            before = await self._get(actor, kind, id_or_name, world)
            if action == "update" and isinstance(before, VirtualKey) and before.id == actor.principal.key_id:
                raise NotAllowed("A key does not change itself, its own end not either; that is for those above it.")
            after = change(before)
            for entity in (before, after):
                await check_reach(actor.principal, entity, world)
            held = None if gives_anew(before, after) else before
            await check_grants(actor.principal, held, after, world, self.groups())
            await world.replace(after)
            await self._note(actor, world, action, before, after)
        await self.take_up()
        return after

    async def remove(self, actor: Actor, kind: type[Budget | RateLimit], id_: str) -> None:
        """Raises ObjectNotFound, NotAllowed."""
        actor.must(WRITE[KINDS[kind]])
        async with self.store.changing() as world:
            entity = await self._get(actor, kind, id_, world)
            await check_reach(actor.principal, entity, world)
            await world.remove(entity)
            await self._note(actor, world, "delete", entity, None)
        await self.take_up()

    async def rotate(self, actor: Actor, id_or_name: str, grace_seconds: float) -> tuple[VirtualKey, NewKey]:
        """A new secret; the old one is good for as long as that. A key has one old secret: no grace is cut short."""
        secret, now = generate_key(), self.clock()
        keeps, until = grace_seconds > 0, now + timedelta(seconds=grace_seconds)

        def rotated(key: VirtualKey) -> VirtualKey:
            if key.disabled:
                raise InvalidRequest("The key is revoked; make another one.", param="id")
            if keeps and key.previous_until is not None and now < key.previous_until:
                raise InvalidRequest(
                    f"The secret before the last rotation is good until {key.previous_until.isoformat()}, and another "
                    "rotation with a grace would end it now. Wait until then, make another key, or rotate without a "
                    "grace, which ends both old secrets at once.",
                    param="grace_seconds",
                )
            return replace(
                key,
                hash=secret.hash,
                hint=secret.hint,
                previous_hash=key.hash if keeps else None,
                previous_until=until if keeps else None,
            )

        return await self.update(actor, VirtualKey, id_or_name, rotated, "rotate"), secret

    async def revoke(self, actor: Actor, id_or_name: str) -> VirtualKey:
        """Kills the key, and the one that it replaced, for good: if it is enabled again, nobody has its secret."""
        nobodys = generate_key()

        def revoked(key: VirtualKey) -> VirtualKey:
            return replace(key, hash=nobodys.hash, disabled=True, previous_hash=None, previous_until=None)

        return await self.update(actor, VirtualKey, id_or_name, revoked, "revoke")

    async def note(
        self,
        actor: Actor,
        action: str,
        object_kind: str,
        object_id: str,
        before: Mapping[str, object] | None,
        after: Mapping[str, object] | None,
    ) -> None:
        """For what has been changed elsewhere: prices, deployments, the configuration.

        It is done already, so nobody is told that it failed: without a database the log has it.
        """
        try:
            async with self.store.changing() as world:
                await world.note(self._entry(actor, action, object_kind, object_id, before, after))
        except NotServing as problem:
            entry = {"actor": actor.name, "action": action, "object": f"{object_kind}/{object_id}"}
            _logger.error("a change is not in the audit log", extra={**entry, "reason": str(problem)})

    async def _get(self, actor: Actor, kind: type[E], id_or_name: str, world: Reading) -> E:
        found = await world.get(kind, id_or_name, actor.principal.reach)
        if found is None:
            raise ObjectNotFound(KINDS[kind].value.removesuffix("s"), id_or_name)
        return found

    async def _note(
        self, actor: Actor, world: Changing, action: str, before: Entity | None, after: Entity | None
    ) -> None:
        entity = after or before
        if entity is not None:
            views = [None if each is None else view(each) for each in (before, after)]
            await world.note(self._entry(actor, action, KINDS[type(entity)].value, str(entity.id), *views))

    def _entry(
        self,
        actor: Actor,
        action: str,
        object_kind: str,
        object_id: str,
        before: Mapping[str, object] | None,
        after: Mapping[str, object] | None,
    ) -> AuditEntry:
        return AuditEntry(
            id=uuid4(),
            timestamp=self.clock(),
            actor=actor.name,
            action=action,
            object_kind=object_kind,
            object_id=object_id,
            before=before,
            after=after,
            request_id=actor.request_id,
        )


async def _check_only_limit(entity: Entity, world: Changing) -> None:
    """Who changes one of two limits for a subject sees no change: the lower one counts."""
    if not isinstance(entity, RateLimit):
        return
    found = await world.limit_for(entity.subject)
    if found is not None:
        scope = entity.subject.scope.value
        raise AlreadyThere(
            f"This {scope} has a limit already, '{found.id}': change it with PATCH /admin/limits/{found.id}, or with "
            "`llmgateway limits set`."
        )


def _is_rule_for(entity: Entity, first: Entity) -> bool:
    """A budget or limit that is made together with its subject is as much the actor's to make."""
    return entity is not first and isinstance(entity, Budget | RateLimit) and entity.subject.id == str(first.id)
