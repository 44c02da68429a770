"""What a process does for its leases in the background."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial

from proxy.infrastructure.budgets.account import Account
from proxy.infrastructure.budgets.book import LeasedBudgets
from proxy.infrastructure.budgets.notices import Notice, notices_of
from proxy.infrastructure.periodic import repeating
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS

_logger = logging.getLogger(__name__)
_RECALL_SECONDS = 0.25
_TELL_SECONDS = 1.0
_LOOK_SECONDS = 5.0
_RENEW_SECONDS = 30.0
_FORGET_SECONDS = 6 * 3600.0
_IDLE_SECONDS = 2.0  # after which what is not needed is given back
_KEPT_SECONDS = 60.0  # how long an account without money is remembered
_MOST_LOOKS = 200
_STEP_SECONDS = 1.0
_NOTIFIED_SECONDS = 30.0  # longer than between two looks


class Upkeep:
    """Gives back what is recalled or idle, says that this process lives, and looks at what others have spent."""

    def __init__(
        self,
        book: LeasedBudgets,
        tell: Callable[[Notice], None] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._wall_clock = wall_clock
        self._ahead = wall_clock() - book.clock()
        self._book = book
        self._tell_of = tell
        self._bank = book.bank

    async def mind_the_clock(self) -> None:
        """Lets leases age by a step of the time of day, by which others tell whether this process lives.

        Its own clock stands still while the machine sleeps or is paused, and knows nothing of clocks that are set.
        """
        ahead = self._wall_clock() - self._book.clock()
        step, self._ahead = ahead - self._ahead, ahead
        if step < _STEP_SECONDS:
            return
        for account in self._book.accounts.values():
            account.renewed_seconds -= step
        _logger.warning("the time of day has moved on by itself", extra={"seconds": round(step, 1)})

    async def answer_recalls(self) -> None:
        """Gives back all that is not set aside of what others ask for."""
        if not any(account.has_lease for account in self._book.accounts.values()):
            return
        try:
            for key in await self._bank.recalled():
                account = self._book.accounts.get(key)
                if account is not None:
                    account.recalled_seconds = self._book.clock()
                    await self._give_back(account)
        except DATABASE_ERRORS as problem:
            _logger.debug("recalls not read", extra={"reason": type(problem).__name__})

    async def settle_idle(self) -> None:
        """Gives back what was not used lately, closes what is over, and tells what is set aside."""
        now = self._book.clock()
        try:
            for account in list(self._book.accounts.values()):
                is_idle = now - account.used_seconds > _IDLE_SECONDS
                if account.has_lease and is_idle and account.free > 0:
                    await self._bank.look(account)  # while nobody takes it back it is kept, to go on with
                    await self._give_back(account)
                elif account.has_lease and account.held != account.told_held:
                    async with self._book.leasing(account.key):
                        if self._book.is_known(account):
                            await self._tell(account)
                elif self._is_over(account):
                    await self._close(account)
        except DATABASE_ERRORS as problem:
            _logger.debug("leases not given back", extra={"reason": type(problem).__name__})

    async def _give_back(self, account: Account) -> None:
        async with self._book.leasing(account.key):
            if self._book.is_known(account):
                account.granted -= max(0, account.free)  # first: whoever sets aside meanwhile must not have it, too
                await self._tell(account)

    async def _tell(self, account: Account) -> None:
        """After a failure the next statement says it again: it is a whole sum."""
        held = account.held
        account.told_held = -1
        await self._bank.tell(account)
        account.told_held = held

    async def _close(self, account: Account) -> None:
        async with self._book.leasing(account.key):
            if not self._book.is_known(account) or not self._is_over(account):
                return
            if account.has_lease:
                await self._bank.close(account.key)
                account.has_lease = False
            if self._is_over(account):  # still: what costs nothing can be set aside meanwhile
                self._book.forget(account)

    def _is_over(self, account: Account) -> bool:
        unused_seconds = self._book.clock() - account.used_seconds
        return account.is_settled and account.free <= 0 and unused_seconds > _KEPT_SECONDS

    async def renew(self) -> None:
        asked_at = self._book.clock()
        leases = [account for account in self._book.accounts.values() if account.has_lease]
        if not leases:
            return
        try:
            await self._bank.renew()
        except DATABASE_ERRORS as problem:
            _logger.warning("leases of budgets not renewed", extra={"reason": type(problem).__name__})
            return
        for account in leases:
            if account.is_trusted(asked_at):
                account.renewed_seconds = asked_at

    async def look(self) -> None:
        """What has been spent by now of the budgets in use: for warnings, and for soft budgets, that lease nothing.

        Also of rolling ones that are not in use: what is known of them would count for ever else.
        """
        since = self._book.clock() - _LOOK_SECONDS
        in_use = [
            each
            for each in self._book.accounts.values()
            if each.used_seconds >= since or each.standing is None or each.is_rolling
        ]
        try:
            for account in in_use[:_MOST_LOOKS]:
                standing = await self._bank.look(account)
                if standing is not None:
                    account.learn(standing)
        except DATABASE_ERRORS as problem:
            _logger.debug("budgets not looked at", extra={"reason": type(problem).__name__})

    async def notify(self) -> None:
        """Offers what there is to tell of budgets that were used lately; who tells it knows what it was offered."""
        if self._tell_of is None:
            return
        since, now = self._book.clock() - _NOTIFIED_SECONDS, datetime.now(UTC)
        for account in list(self._book.accounts.values()):
            if account.used_seconds < since or account.is_removed:
                continue
            account.bucket(now)  # when a period has begun, nothing is known of it until the next look
            if account.standing is not None and account.is_warned_of:
                for notice in notices_of(account.budget, account.key.subject_id, account.spent(), now):
                    self._tell_of(notice)

    async def forget(self) -> None:
        try:
            await self._bank.forget_the_past()
        except DATABASE_ERRORS as problem:
            _logger.warning("old budget sums not removed", extra={"reason": type(problem).__name__})


@asynccontextmanager
async def keeping(book: LeasedBudgets, tell: Callable[[Notice], None] | None = None) -> AsyncIterator[None]:
    """All of it, until the end. What is leased then goes with the spool of this process, when all is booked."""
    upkeep = Upkeep(book, tell)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(book.finish)
        for step, seconds in (
            (upkeep.mind_the_clock, _RECALL_SECONDS),
            (upkeep.answer_recalls, _RECALL_SECONDS),
            (upkeep.settle_idle, _TELL_SECONDS),
            (upkeep.look, _LOOK_SECONDS),
            (upkeep.notify, _TELL_SECONDS),
            (upkeep.renew, _RENEW_SECONDS),
            (upkeep.forget, _FORGET_SECONDS),
        ):
            await stack.enter_async_context(repeating(step, partial(float, seconds), f"budgets {step.__name__}"))
        yield
