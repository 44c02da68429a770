"""Purse and BudgetHold: setting money aside for one caller's requests, and giving it back."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from proxy.application.allowances import AppliedBudget
from proxy.domain.budgets import Charge
from proxy.infrastructure.budgets.account import Account, AccountKey
from proxy.infrastructure.budgets.words import warning_of

_LOW_WATER = 4  # requests' worth: with less than that more is leased ahead


class Accounts(Protocol):
    """The book, as purses need it. Accounts stay the same until the next generation."""

    generation: int
    clock: Callable[[], float]

    @property
    def refusals(self) -> MutableMapping[AccountKey, Any]: ...

    def accounts_of(self, budgets: Sequence[AppliedBudget]) -> Sequence[Account]: ...

    async def leased(self, current: Callable[[], Sequence[Account]], amount: int) -> None: ...

    def lease_ahead(self, account: Account, amount: int) -> None: ...


class LeasedPurse:
    """Purse over the accounts of some budgets."""

    __slots__ = ("_accounts", "_book", "_budgets", "_generation")

    def __init__(self, book: Accounts, budgets: Sequence[AppliedBudget]) -> None:
        self._book = book
        self._budgets = budgets
        self._accounts: Sequence[Account] = ()
        self._generation = -1

    def set_aside_at_once(self, amount_picodollars: int, moment: datetime) -> Hold | None:
        accounts = self._accounts if self._generation == self._book.generation else self._current()
        book, charges, enough = self._book, list[Charge](), _LOW_WATER * amount_picodollars
        now = book.clock()
        for account in accounts:
            charge = account.hold(amount_picodollars, moment, now)
            if charge is None:
                for held in accounts[: len(charges)]:
                    held.held -= amount_picodollars
                return None
            charges.append(charge)
        for account in accounts:
            if account.granted - account.consumed - account.held < enough and account.is_hard:
                book.lease_ahead(account, enough)
        return Hold(book, accounts, charges)

    async def set_aside(self, amount_picodollars: int, moment: datetime) -> Hold:
        while True:
            await self._book.leased(self._current, amount_picodollars)
            hold = self.set_aside_at_once(amount_picodollars, moment)
            if hold is not None:
                return hold

    def warning(self) -> str | None:
        return warning_of(self._current())

    def _current(self) -> Sequence[Account]:
        if self._generation != self._book.generation:
            self._accounts = self._book.accounts_of(self._budgets)
            self._generation = self._book.generation
        return self._accounts


class Hold:
    """`charges` are in the order of the accounts, none of which is forgotten while anything is set aside in it."""

    __slots__ = ("_accounts", "_book", "charges")

    def __init__(self, book: Accounts, accounts: Sequence[Account], charges: Sequence[Charge]) -> None:
        self._book = book
        self._accounts = accounts
        self.charges = charges

    def settle(self, charged: Sequence[Charge]) -> None:
        """To be called once. Whoever was refused lately may fit now."""
        now, refusals = self._book.clock(), self._book.refusals
        for account, held in zip(self._accounts, self.charges, strict=True):
            account.held -= held.picodollars
            account.used_seconds = now
            if refusals:
                refusals.pop(account.key, None)
        if charged:
            for account, charge in zip(self._accounts, charged, strict=True):
                account.consumed += charge.picodollars

    def warning(self) -> str | None:
        for account in self._accounts:
            if account.consumed >= account.warned_from:
                return warning_of(self._accounts)
        return None
