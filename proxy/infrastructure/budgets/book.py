"""The BudgetBook port: setting money aside in memory, and leasing more of it in time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID
from weakref import WeakValueDictionary

from proxy.application.allowances import AppliedBudget
from proxy.domain.errors import BudgetExceeded, NotServing
from proxy.infrastructure.budgets.account import Account, AccountKey, account_key
from proxy.infrastructure.budgets.bank import Bank, Lease
from proxy.infrastructure.budgets.purse import LeasedPurse
from proxy.infrastructure.budgets.words import exceeded
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, kind_of
from proxy.infrastructure.persistence.rows import LedgerRow

_logger = logging.getLogger(__name__)
_RECALL_LOOKS, _RECALL_STEP_SECONDS = 12, 0.1
_REMEMBERED_SECONDS = 0.25  # a refusal, so that a crowd does not ask the database one by one
_SOON_SECONDS = 1.0
_AWAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why there was no more lately; whoever needs as much gets the same answer until then."""

    needed: int
    error: BudgetExceeded | NotServing
    until_seconds: float


class LeasedBudgets:
    """One for the process."""

    def __init__(self, bank: Bank, clock: Callable[[], float] = time.monotonic) -> None:
        self.bank = bank
        self.clock = clock
        self.accounts: dict[AccountKey, Account] = {}
        self.generation = 0
        self._leasing: WeakValueDictionary[AccountKey, asyncio.Lock] = WeakValueDictionary()
        self._asking: dict[AccountKey, asyncio.Event] = {}
        self.refusals: dict[AccountKey, _Refusal] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._trouble: str | None = None

    # The port.

    def purse(self, budgets: Sequence[AppliedBudget]) -> LeasedPurse:
        return LeasedPurse(self, budgets)

    async def leased(self, current: Callable[[], Sequence[Account]], amount: int) -> None:
        """Returns when each of the accounts has enough. Raises BudgetExceeded, NotServing."""
        while True:
            now, accounts = self.clock(), current()
            lacking = [account for account in accounts if not account.may_set_aside(amount, now)]
            if not lacking:
                return
            for account in lacking:
                await self._lease(account, amount)

    # From the ledger.

    def booked(self, rows: Sequence[LedgerRow]) -> None:
        """These rows of this process are in the database, and their charges with them."""
        charged: defaultdict[tuple[int, str], int] = defaultdict(int)
        for row in rows:
            for charge in row.charges:
                charged[charge.budget_id.int, charge.subject_id] += charge.picodollars  # a UUID's own hash is slow
        for (budget_id, subject_id), amount in charged.items():
            account = self.accounts.get(AccountKey(UUID(int=budget_id), subject_id))
            if account is not None:
                account.booked += amount

    # Leasing.

    def leasing(self, key: AccountKey) -> asyncio.Lock:
        """Held by whoever tells the database of the account's lease: each statement states the whole of it."""
        return self._leasing.setdefault(key, asyncio.Lock())

    def is_known(self, account: Account) -> bool:
        """To be asked by whoever has waited for the lock: of an account that is over nothing may be told any more."""
        return self.accounts.get(account.key) is account

    def forget(self, account: Account) -> None:
        """The account is over; who holds its lock is the last to know of it."""
        del self.accounts[account.key]
        self.refusals.pop(account.key, None)
        self.generation += 1

    def accounts_of(self, budgets: Sequence[AppliedBudget]) -> Sequence[Account]:
        """One for each. They are these until the next `generation`, in which some are forgotten."""
        now = self.clock()
        return [self._account(applied, now) for applied in budgets]

    def _account(self, applied: AppliedBudget, now: float) -> Account:
        key = account_key(applied.budget, applied.subject.id)
        account = self.accounts.get(key)
        if account is None:
            account = self.accounts[key] = Account(key, applied.budget, now)
        elif account.budget is not applied.budget and account.budget != applied.budget:
            account.put(applied.budget)
            account.is_removed = False
            account.granted -= max(0, account.free)  # the database knows the amount that counts now
            self.refusals.pop(key, None)
        return account

    async def _lease(self, account: Account, amount: int) -> None:
        """Returns when it is worth a look whether the account has enough. Raises BudgetExceeded, NotServing.

        One asks, and all others wait for that: in a queue for the lock each would wait for one more turn of the event
        loop than the one before it.
        """
        asking = self._asking.get(account.key)
        if asking is not None:
            await asking.wait()
            return
        self._asking[account.key] = asking = asyncio.Event()
        try:
            async with self.leasing(account.key):
                if self.is_known(account):
                    await self._lease_alone(account, amount)
        finally:
            del self._asking[account.key]
            asking.set()

    async def _lease_alone(self, account: Account, amount: int) -> None:
        if account.may_set_aside(amount, self.clock()):
            return
        refusal = self._refused(account)
        if refusal is not None and refusal.needed <= amount:
            raise refusal.error
        try:
            await self._ask(account, amount)
        except (BudgetExceeded, NotServing) as error:
            self.refusals[account.key] = _Refusal(amount, error, self.clock() + _REMEMBERED_SECONDS)
            raise

    def _refused(self, account: Account) -> _Refusal | None:
        refusal = self.refusals.get(account.key)
        return refusal if refusal is not None and self.clock() < refusal.until_seconds else None

    async def _ask(self, account: Account, amount: int) -> None:
        kept, put_in = account.granted, max(0, account.free)  # again: with what others leave it may be enough
        account.granted = asked = kept - put_in
        try:
            lease = await self._more(account, amount)
            if not account.may_set_aside(amount, self.clock()) and lease.standing.leased_elsewhere > 0:
                lease = await self._recalled(account, amount, lease)
        except (*DATABASE_ERRORS, asyncio.CancelledError) as problem:
            if account.granted == asked:  # nobody was told of it, and smaller requests may do with it
                account.granted = kept
            if isinstance(problem, asyncio.CancelledError):
                raise
            kind = self._trouble_is(kind_of(problem))
            message = f"Budget '{account.budget.name}' cannot be checked: the database does not answer ({kind})."
            raise NotServing(message, _AWAY_SECONDS) from problem
        self._trouble = None
        if not account.may_set_aside(amount, self.clock()):
            raise exceeded(account, amount, lease.standing)

    def _trouble_is(self, kind: str) -> str:
        """Tells the log once."""
        if kind != self._trouble:
            _logger.error("budgets cannot be leased, requests are refused", extra={"reason": kind})
        self._trouble = kind
        return kind

    async def _more(self, account: Account, amount: int) -> Lease:
        """If no answer comes the lease may be there: it counts as ours until all of it is told again."""
        asked_at = self.clock()
        account.has_lease, account.told_held = True, -1
        lease = await self.bank.lease(account, amount - account.free)
        account.granted = lease.granted
        account.is_removed = lease.is_removed  # what was leased of it before is still there, to be closed
        account.renewed_seconds = asked_at
        account.learn(lease.standing)
        return lease

    async def _recalled(self, account: Account, amount: int, lease: Lease) -> Lease:
        """What other processes hold and do not need they give back within moments."""
        for _ in range(_RECALL_LOOKS):
            await self.bank.recall(account.key)
            await asyncio.sleep(_RECALL_STEP_SECONDS)
            lease = await self._more(account, amount)
            if lease.standing.leased_elsewhere == 0 or account.may_set_aside(amount, self.clock()):
                break
        return lease

    def lease_ahead(self, account: Account, amount: int) -> None:
        """Begins to lease so much, if it makes sense."""
        is_wanted = self.clock() - account.recalled_seconds < _SOON_SECONDS  # by others: who has enough takes no more
        if account.is_removed or is_wanted or self._refused(account) or self.leasing(account.key).locked():
            return
        task = asyncio.get_running_loop().create_task(self._ahead(account, amount))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ahead(self, account: Account, amount: int) -> None:
        async with self.leasing(account.key):
            if account.free >= amount or not self.is_known(account):
                return
            try:
                lease = await self._more(account, amount)
            except DATABASE_ERRORS as problem:
                _logger.warning("budget not leased ahead", extra={"reason": type(problem).__name__})
                return
            if account.free < amount:  # so much there is not: what is left is asked for when it is needed
                error = exceeded(account, amount, lease.standing)
                self.refusals[account.key] = _Refusal(amount, error, self.clock() + _REMEMBERED_SECONDS)

    # Its end.

    async def finish(self) -> None:
        """Nothing is leased any more; what is left is the ledger's to give up, when all is booked."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))  # each statement has a deadline
