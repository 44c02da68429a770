"""One request that was let in: what it takes of its caller's limits and budgets, until it is booked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

from proxy.application.allowances import BudgetHold, Purse, RatePass
from proxy.application.booking import Costs
from proxy.domain.access.principals import ANONYMOUS, Principal
from proxy.domain.budgets import Charge, charged_picodollars
from proxy.domain.rate_limits import NO_TOKENS, TokenEstimate
from proxy.domain.request_log import CostSource, RequestLog

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_WARNING: Final = "x-gateway-budget-warning"


class Admission:
    """Its money is set aside when it is known whom it may be sent to, for that decides the price; what it really cost
    is charged when it is booked, by whatever way it ended."""

    __slots__ = ("_hold", "_pass", "_purse", "end_user", "estimate", "holds", "principal")

    def __init__(
        self,
        principal: Principal,
        end_user: str | None = None,
        rate_pass: RatePass | None = None,
        purse: Purse | None = None,
        estimate: TokenEstimate = NO_TOKENS,
    ) -> None:
        self.principal = principal
        self.end_user = end_user
        self.estimate = estimate
        self._pass = rate_pass
        self._purse = purse
        self._hold: BudgetHold | None = None
        self.holds: Sequence[Charge] = ()  # for one call, for its intent: if the process dies that is what is charged

    @property
    def needs_money(self) -> bool:
        """Whether it is to be set aside before the request is sent."""
        return self._purse is not None

    def set_aside_at_once(self, call_picodollars: int, calls: int, moment: datetime) -> bool:
        """`set_aside`, if that needs no waiting; False, and nothing is set aside, if it does."""
        hold = None if self._purse is None else self._purse.set_aside_at_once(call_picodollars * calls, moment)
        if hold is None:
            return False
        if calls == 1:
            self._hold, self.holds = hold, hold.charges
        else:
            self._holding(hold, call_picodollars, calls)
        return True

    async def set_aside(self, call_picodollars: int, calls: int, moment: datetime) -> None:
        """So much for each of the calls that may run at once. Raises as Purse.set_aside does."""
        if self._purse is not None:
            hold = await self._purse.set_aside(call_picodollars * calls, moment)
            self._holding(hold, call_picodollars, calls)

    def _holding(self, hold: BudgetHold, call_picodollars: int, calls: int) -> None:
        self._hold = hold
        charges = hold.charges
        self.holds = charges if calls == 1 else [each._replace(picodollars=call_picodollars) for each in charges]

    def charges(self, costs: Costs) -> Sequence[Charge]:
        """What a call is charged: its cost; nothing if there was none; all that was set aside if it is not known."""
        if self._hold is None or costs.source is CostSource.NONE:
            return ()
        cost = costs.reported if costs.reported is not None else costs.estimated
        if cost is None:
            return self.holds
        amount = charged_picodollars(cost.usd)
        charges = []
        for budget_id, subject_id, bucket, _held in self.holds:
            charges.append(Charge(budget_id, subject_id, bucket, amount))  # a call less
        return charges

    def leave(self, rows: Sequence[RequestLog]) -> None:
        """The request is booked in these rows (those after the first are of calls that lost a race)."""
        if self._pass is not None and not self._pass.is_counted:
            input_tokens, output_tokens = rows[0].input_tokens.value, rows[0].output_tokens.value
            for row in rows[1:]:
                input_tokens += row.input_tokens.value
                output_tokens += row.output_tokens.value
            self._pass.leave(input_tokens, output_tokens)
        if self._hold is not None:
            self._hold.settle(rows[0].charges if len(rows) == 1 else self._together(rows))

    def _together(self, rows: Sequence[RequestLog]) -> Sequence[Charge]:
        """A row's charges are in the order of what was set aside, or none at all."""
        sums = [charge._replace(picodollars=0) for charge in self.holds]
        for row in rows:
            for place, charge in enumerate(row.charges):
                sums[place] = charge._replace(picodollars=sums[place].picodollars + charge.picodollars)
        return sums

    def headers(self) -> Mapping[str, str]:
        """For the answer, also when it is an error."""
        headers = _NO_HEADERS if self._pass is None else self._pass.headers
        payer = self._hold or self._purse
        warning = None if payer is None else payer.warning()
        return headers if warning is None else {**headers, _WARNING: warning}


UNLIMITED: Final = Admission(ANONYMOUS)
