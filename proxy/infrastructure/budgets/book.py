"""The BudgetBook port: setting money aside in memory, and leasing more of it in time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

from proxy.application.admission import AppliedBudget
from proxy.domain.budgets import Charge, usd
from proxy.domain.errors import BudgetExceeded, NotServing
from proxy.infrastructure.budgets.account import Account, AccountKey, account_key
from proxy.infrastructure.budgets.bank import Bank, Lease
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS
from proxy.infrastructure.persistence.rows import LedgerRow

_logger = logging.getLogger(__name__)
_RECALL_LOOKS, _RECALL_STEP_SECONDS = 12, 0.1
_REMEMBERED_SECONDS = 0.25  # a refusal, so that a crowd does not ask the database one by one
_SOON_SECONDS = 1.0
_AWAY_SECONDS = 5.0
_LOW_WATER = 4  # requests' worth: with less than that more is leased ahead
_TOLD_CHARACTERS = 80
_MOST_KNOWN = 4096
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


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
        self._of_budgets: dict[int, tuple[Sequence[AppliedBudget], Sequence[Account]]] = {}
        self._leasing: WeakValueDictionary[AccountKey, asyncio.Lock] = WeakValueDictionary()
        self._asking: dict[AccountKey, asyncio.Event] = {}
        self._refusals: dict[AccountKey, _Refusal] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # The port.

    async def set_aside(
        self, budgets: Sequence[AppliedBudget], amount_picodollars: int, moment: datetime
    ) -> Sequence[Charge]:
        now = self.clock()
        accounts = self._accounts(budgets, now)
        for account in accounts:
            if not account.may_set_aside(amount_picodollars, now):
                accounts, now = await self._leased(budgets, amount_picodollars)
                break
        charges, enough = [], _LOW_WATER * amount_picodollars
        for account in accounts:
            charges.append(account.hold(amount_picodollars, moment, now))
            if account.is_hard and account.granted - account.consumed - account.held < enough:
                self._lease_ahead(account, enough)
        return charges

    async def _leased(self, budgets: Sequence[AppliedBudget], amount: int) -> tuple[Sequence[Account], float]:
        """All the accounts when each of them has enough, and the moment. Raises as `set_aside` does."""
        while True:
            now = self.clock()
            accounts = self._accounts(budgets, now)
            lacking = [account for account in accounts if not account.may_set_aside(amount, now)]
            if not lacking:
                return accounts, now
            for account in lacking:
                await self._lease(account, amount)

    def settle(
        self, budgets: Sequence[AppliedBudget], set_aside: Sequence[Charge], charged_picodollars: Sequence[int]
    ) -> None:
        now = self.clock()
        accounts = self._accounts(budgets, now)
        for account, held, charged in zip(accounts, set_aside, charged_picodollars, strict=True):
            account.settle(held.picodollars, charged, now)
            if self._refusals:
                self._refusals.pop(account.key, None)

    def headers(self, budgets: Sequence[AppliedBudget]) -> Mapping[str, str]:
        passed = [account for account in self._accounts(budgets, self.clock()) if is_warned_of(account)]
        return {"x-gateway-budget-warning": ", ".join(_told(account) for account in passed)} if passed else _NO_HEADERS

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

    def forget(self, account: Account) -> None:
        """The account is over; who holds its lock is the last to know of it."""
        del self.accounts[account.key]
        self._refusals.pop(account.key, None)
        self._of_budgets.clear()

    def _accounts(self, budgets: Sequence[AppliedBudget], now: float) -> Sequence[Account]:
        """Those of a request's budgets, which are the same object for the same caller's requests."""
        known = self._of_budgets.get(id(budgets))
        if known is not None and known[0] is budgets:
            return known[1]
        accounts = [self._account(applied, now) for applied in budgets]
        if isinstance(budgets, tuple):
            if len(self._of_budgets) >= _MOST_KNOWN:
                self._of_budgets.clear()
            self._of_budgets[id(budgets)] = budgets, accounts
        return accounts

    def _account(self, applied: AppliedBudget, now: float) -> Account:
        key = account_key(applied.budget, applied.subject.id)
        account = self.accounts.get(key)
        if account is None:
            account = self.accounts[key] = Account(key, applied.budget, now)
        elif account.budget is not applied.budget and account.budget != applied.budget:
            account.put(applied.budget)
            account.is_removed = False
            account.granted -= max(0, account.free)  # the database knows the amount that counts now
            self._refusals.pop(key, None)
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
            self._refusals[account.key] = _Refusal(amount, error, self.clock() + _REMEMBERED_SECONDS)
            raise

    def _refused(self, account: Account) -> _Refusal | None:
        refusal = self._refusals.get(account.key)
        return refusal if refusal is not None and self.clock() < refusal.until_seconds else None

    async def _ask(self, account: Account, amount: int) -> None:
        put_in = max(0, account.free)  # again: together with what others leave it may be enough
        account.granted -= put_in
        try:
            lease = await self._more(account, amount)
            if not account.may_set_aside(amount, self.clock()) and lease.standing.leased_elsewhere > 0:
                lease = await self._recalled(account, amount, lease)
        except DATABASE_ERRORS as problem:
            account.granted += put_in  # nobody was told of it, and smaller requests may do with it
            raise NotServing(
                f"Budget '{account.budget.name}' cannot be checked: the database does not answer.", _AWAY_SECONDS
            ) from problem
        if not account.may_set_aside(amount, self.clock()):
            raise _exceeded(account, amount, lease)

    async def _more(self, account: Account, amount: int) -> Lease:
        asked_at = self.clock()
        lease = await self.bank.lease(account, amount - account.free)
        account.granted = lease.granted
        account.is_removed = lease.is_removed
        account.has_lease = not lease.is_removed
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

    def _lease_ahead(self, account: Account, amount: int) -> None:
        is_wanted = self.clock() - account.recalled_seconds < _SOON_SECONDS  # by others: who has enough takes no more
        if account.is_removed or is_wanted or self._refused(account) or self.leasing(account.key).locked():
            return
        task = asyncio.get_running_loop().create_task(self._ahead(account, amount))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ahead(self, account: Account, amount: int) -> None:
        async with self.leasing(account.key):
            if account.free >= amount:
                return
            try:
                lease = await self._more(account, amount)
            except DATABASE_ERRORS as problem:
                _logger.warning("budget not leased ahead", extra={"reason": type(problem).__name__})
                return
            if account.free < amount:  # so much there is not: what is left is asked for when it is needed
                error = _exceeded(account, amount, lease)
                self._refusals[account.key] = _Refusal(amount, error, self.clock() + _REMEMBERED_SECONDS)

    # Its end.

    async def finish(self) -> None:
        """Nothing is leased any more; what is left is the ledger's to give up, when all is booked."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))  # each statement has a deadline


def is_warned_of(account: Account) -> bool:
    """Whether its warning share is spent."""
    return account.spent() >= account.warns_at


def _told(account: Account) -> str:
    name = "".join(c if c.isascii() and c.isprintable() and c != "," else "?" for c in account.budget.name)
    spent, amount = usd(account.spent()), account.budget.amount_usd
    return f"{name[:_TOLD_CHARACTERS]}; spent={spent:f}; amount={amount:f}"


def _exceeded(account: Account, amount: int, lease: Lease) -> BudgetExceeded:
    """Names the budget, and says what is spent, what others have set aside, and when there is more."""
    budget, standing, now = account.budget, lease.standing, datetime.now(UTC)
    reserved = standing.leased_elsewhere + account.held + account.consumed - account.booked + max(0, account.free)
    resets = budget.window.resets_at(now)
    until = f"It resets at {resets.isoformat()}." if resets else "It does not reset."
    message = (
        f"Budget '{budget.name}' of {_dollars(standing.amount)} is used up for this request, which may cost up to "
        f"{_dollars(amount)}: {_dollars(standing.spent)} spent, {_dollars(reserved)} reserved by running requests. "
        f"{until}"
    )
    if standing.spent + amount <= standing.amount:  # it would fit when those that run cost less than they may
        return BudgetExceeded(message, _SOON_SECONDS, scope=budget.subject.scope.value)
    wait = None if resets is None else (resets - now).total_seconds()
    return BudgetExceeded(message, wait, {"x-should-retry": "false"}, budget.subject.scope.value)


def _dollars(picodollars: int) -> str:
    return f"${usd(picodollars).normalize():f}"
