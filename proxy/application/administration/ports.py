"""What administration needs of a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from proxy.application.administration.objects import AuditEntry, Entity
from proxy.application.ports import LiveDeployment
from proxy.domain.access.scopes import GATEWAY, Subject
from proxy.domain.budgets import Budget
from proxy.domain.rate_limits import RateLimit

E = TypeVar("E", bound=Entity)


@dataclass(frozen=True, slots=True)
class Page:
    """At most `limit` of what `within` reaches and `filters` (column and value) leave, newest first.

    `after` is the id of the last one of the page before.
    """

    within: Subject = GATEWAY
    filters: Mapping[str, str] = field(default_factory=dict)
    limit: int = 50
    after: str | None = None


class Reading(Protocol):
    """What is there, as of the transaction."""

    async def get(self, kind: type[E], id_or_name: str, within: Subject = GATEWAY) -> E | None:
        """None also for what is not within: names are looked for there only.

        Raises InvalidRequest for a name that several have.
        """
        ...

    async def page(self, kind: type[E], page: Page) -> Sequence[E]: ...

    async def is_within(self, subject: Subject, reach: Subject) -> bool:
        """Whether an organisation, team or key belongs to what is reached, or is it."""
        ...


class Changing(Reading, Protocol):
    """Changes of one transaction."""

    async def limit_for(self, subject: Subject) -> RateLimit | None:
        """The limit for exactly this subject; until the transaction ends nobody else who asks is answered."""
        ...

    async def add(self, entity: Entity) -> None:
        """Raises AlreadyThere for a name or a hash that is taken."""
        ...

    async def replace(self, entity: Entity) -> None:
        """Raises AlreadyThere."""
        ...

    async def remove(self, entity: Entity) -> None: ...

    async def note(self, entry: AuditEntry) -> None: ...


class AccessStore(Protocol):
    """Where all of it is kept. Entering either raises NotServing while the database is away."""

    def reading(self) -> AbstractAsyncContextManager[Reading]: ...

    def changing(self) -> AbstractAsyncContextManager[Changing]:
        """All changes are made when the block ends, or none."""
        ...


class AuditLog(Protocol):
    """Who changed what. `within` as in Page: what is reached, and what the actor did itself."""

    async def entries(self, page: Page, actor: str) -> Sequence[AuditEntry]: ...


class BudgetReports(Protocol):
    """How budgets stand, for people."""

    async def report(self, budget: Budget) -> Mapping[str, Any]:
        """Spent, leased and reserved in USD, by whom, and when it resets; by subject where each has its own.

        Raises NotServing while the database is away.
        """
        ...


class RequestList(Protocol):
    """The ledger's rows."""

    async def page(self, page: Page) -> Sequence[Mapping[str, Any]]:
        """Newest first; filters are key, team (ids), model, provider, status, end_user, request_id, since, until.

        Raises NotServing while the database is away.
        """
        ...


DeploymentSwitches = Callable[[], Mapping[str, LiveDeployment]]  # those of the configuration in force, by name
