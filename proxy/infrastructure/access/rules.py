"""What holds for everyone, in memory: rules for the gateway, its models and end users, and whether there are keys."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol, TypeVar

from proxy.application.allowances import Rulebook
from proxy.infrastructure.access.changes import Changes
from proxy.infrastructure.persistence.access_rows import BUDGET_COLUMNS, LIMIT_COLUMNS, budget_of, limit_of
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS
from proxy.infrastructure.persistence.sessions import Session, session

_logger = logging.getLogger(__name__)
_Rule = TypeVar("_Rule")
_TIMEOUT_SECONDS, _GRACE_SECONDS = 5.0, 2.0
_AGAIN_SECONDS = 1.0
_FOR_EVERYONE: Final = "SELECT {} FROM {} WHERE scope IN ('gateway', 'model', 'end_user') ORDER BY id"
_BUDGETS: Final = _FOR_EVERYONE.format(", ".join(BUDGET_COLUMNS), "budgets")
_LIMITS: Final = _FOR_EVERYONE.format(", ".join(LIMIT_COLUMNS), "rate_limits")
_ANY_KEY: Final = "SELECT 1 FROM virtual_keys LIMIT 1"
_KINDS = ("budgets", "rate_limits", "virtual_keys")


class Confirmation(Protocol):
    """Until when all changes have been told."""

    @property
    def confirmed_at(self) -> float: ...


class StandingRules:
    """Read at the start and after each change; kept as they are while the database is away."""

    def __init__(
        self,
        database: Database,
        feed: Confirmation,
        staleness_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._feed = feed
        self._staleness_seconds = staleness_seconds
        self._clock = clock
        self._changed = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()  # or what was read before a change could replace what was read after it
        self._rules = Rulebook()
        self._has_keys: bool | None = None
        self._read_at = 0.0
        self._is_ending = False

    def rulebook(self, model_groups: Mapping[str, Sequence[str]]) -> Rulebook:
        """With the configuration's groups, of which the database knows nothing."""
        if self._rules.model_groups is not model_groups:
            self._rules = Rulebook(self._rules.budgets, self._rules.limits, model_groups)
        return self._rules

    def has_keys(self) -> bool | None:
        """Whether there is any virtual key. None if that is not known, or was known too long ago to be relied on."""
        if self._has_keys is False:
            confirmed_at = max(self._read_at, self._feed.confirmed_at)
            if self._clock() - confirmed_at > self._staleness_seconds:
                return None
        return self._has_keys

    def heed(self, changes: Changes) -> None:
        """A Subscriber: has the rules read again."""
        if changes is None or any(change.kind in _KINDS for change in changes):
            self._changed.set()

    async def load(self) -> None:
        """Raises DATABASE_ERRORS."""
        async with asyncio.timeout(_TIMEOUT_SECONDS), self._one_at_a_time:
            began = self._clock()
            async with session(self._database) as reader:
                budgets = await _read(reader, _BUDGETS, budget_of)
                limits = await _read(reader, _LIMITS, limit_of)
                has_keys = bool(await reader.fetch(_ANY_KEY))
            self._rules = Rulebook(budgets, limits, self._rules.model_groups)
            self._has_keys, self._read_at = has_keys, began

    async def load_or_later(self) -> bool:
        """Whether they were read; if not, `keep_up` tries again."""
        try:
            await self.load()
        except DATABASE_ERRORS as problem:
            _logger.warning("budgets and limits not read", extra={"reason": type(problem).__name__})
            self._changed.set()
            return False
        return True

    def end(self) -> None:
        self._is_ending = True
        self._changed.set()

    async def keep_up(self) -> None:
        """Runs until the end."""
        while True:
            await self._changed.wait()
            if self._is_ending:
                return
            self._changed.clear()
            if not await self.load_or_later():
                await asyncio.sleep(_AGAIN_SECONDS)


async def _read(reader: Session, statement: str, of: Callable[[Sequence[Any]], _Rule]) -> list[_Rule]:
    """What a row that makes no sense to this version says cannot be heeded; the others are."""
    rules: list[_Rule] = []
    for row in await reader.fetch(statement):
        try:
            rules.append(of(row))
        except ValueError as problem:
            _logger.error("budget or limit cannot be read", extra={"id": str(row[0]), "reason": str(problem)})
    return rules


@asynccontextmanager
async def keeping_rules(rules: StandingRules) -> AsyncIterator[None]:
    """Reads them again in the background whenever they change."""
    task = asyncio.create_task(rules.keep_up(), name="standing rules")
    try:
        yield
    finally:
        rules.end()
        await asyncio.wait([task], timeout=_GRACE_SECONDS)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
