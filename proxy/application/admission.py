"""Letting a request in: may it use the model, is there room in its rate limits, and money for it in its budgets.

A request is admitted once it has been read. Its money is set aside when it is known whom it may be sent to, for that
decides the price; what it really cost is charged when it is booked, by whatever way it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from proxy.application.booking import Costs
from proxy.application.model_access import check_models, models_of
from proxy.domain.access.principals import ANONYMOUS, Principal
from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.budgets import Budget, Charge, picodollars
from proxy.domain.chat import ChatRequest
from proxy.domain.errors import NotServing
from proxy.domain.json_bytes import look_into
from proxy.domain.rate_limits import NO_TOKENS, Priority, RateLimit, TokenEstimate
from proxy.domain.request_log import CostSource, RequestLog
from proxy.domain.routing import choices, max_output_tokens, mentioned_parts

USER_HEADER: Final = "x-gateway-user"
_END_USER_CHARACTERS = 255
_BYTES_PER_TOKEN = 3
_TOKENS_PER_MENTION = 1000  # of a part that is elsewhere: each has its kind twice, as its type and as a member
_MOST_OUTPUT_TOKENS, _MOST_CHOICES = 2_000_000, 128  # more than anybody answers; what asks for more is refused there
_MOST_KNOWN = 4096
_MOST_BUDGETS = 16  # their charges must fit into a record of the spool


_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class AppliedLimit(NamedTuple):
    """A rate limit, and the one subject of it that a request counts for."""

    limit: RateLimit
    subject: Subject


class AppliedBudget(NamedTuple):
    """A budget, and the one subject of it that a request counts for."""

    budget: Budget
    subject: Subject


class RatePass(Protocol):
    """What a request has taken of its rate limits. `headers` are OpenAI's `x-ratelimit-*` for its answer."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    def leave(self, input_tokens: int, output_tokens: int) -> None:
        """The request has ended: its place is free, and what it used is counted in the place of the estimate."""
        ...


class RateLimiter(Protocol):
    """Counts requests, tokens and places."""

    async def enter(self, limits: Sequence[AppliedLimit], estimate: TokenEstimate, priority: Priority) -> RatePass:
        """Take one request, its tokens and a place of all of them, or nothing of any. Raises RateLimited."""
        ...


class BudgetBook(Protocol):
    """The budgets' money as this process has it: leased from the database in slices, set aside here."""

    async def set_aside(
        self, budgets: Sequence[AppliedBudget], amount_picodollars: int, moment: datetime
    ) -> Sequence[Charge]:
        """Set the amount aside in all of them, or in none. Returns what was set aside, one for each budget.

        Raises:
            BudgetExceeded: a hard budget has not that much
            NotServing: a hard budget's lease is used up, and the database does not answer
        """
        ...

    def settle(
        self, budgets: Sequence[AppliedBudget], set_aside: Sequence[Charge], charged_picodollars: Sequence[int]
    ) -> None:
        """The request is booked: give back what was set aside. What each budget is charged is with its rows, too."""
        ...

    def headers(self, budgets: Sequence[AppliedBudget]) -> Mapping[str, str]:
        """`x-gateway-budget-warning` for budgets that are spent beyond their warning."""
        ...


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Rules that do not come with a principal: those for the gateway, its models and end users; and model groups."""

    budgets: Sequence[Budget] = ()
    limits: Sequence[RateLimit] = ()
    model_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Admission:
    """One request that was let in, until it is booked."""

    __slots__ = ("_book", "_budgets", "_of_each_call", "_pass", "_set_aside", "end_user", "estimate", "principal")

    def __init__(
        self,
        principal: Principal,
        end_user: str | None = None,
        rate_pass: RatePass | None = None,
        book: BudgetBook | None = None,
        budgets: Sequence[AppliedBudget] = (),
        estimate: TokenEstimate = NO_TOKENS,
    ) -> None:
        self.principal = principal
        self.end_user = end_user
        self.estimate = estimate
        self._pass = rate_pass
        self._book = book
        self._budgets = budgets
        self._set_aside: Sequence[Charge] = ()
        self._of_each_call: Sequence[Charge] = ()

    @property
    def needs_money(self) -> bool:
        """Whether `set_aside` is to be called before the request is sent."""
        return bool(self._budgets)

    @property
    def holds(self) -> Sequence[Charge]:
        """What is set aside for one call, for its intent in the spool: if the process dies that is what is charged."""
        return self._of_each_call

    async def set_aside(self, call_picodollars: int, calls: int, moment: datetime) -> None:
        """So much for each of the calls that may run at once. Raises as BudgetBook.set_aside does."""
        if self._book is not None and self._budgets:
            held = await self._book.set_aside(self._budgets, call_picodollars * calls, moment)
            self._set_aside = self._of_each_call = held
            if calls > 1:
                self._of_each_call = [held._replace(picodollars=call_picodollars) for held in self._set_aside]

    def charges(self, costs: Costs) -> Sequence[Charge]:
        """What a call is charged: its cost; nothing if there was none; all that was set aside if it is not known."""
        if not self._set_aside or costs.source is CostSource.NONE:
            return ()
        cost = costs.reported if costs.reported is not None else costs.estimated
        if cost is None:
            return self._of_each_call
        amount = picodollars(cost.usd)
        return [Charge(held.budget_id, held.subject_id, held.bucket, amount) for held in self._set_aside]

    def leave(self, rows: Sequence[RequestLog]) -> None:
        """The request is booked in these rows (those after the first are of calls that lost a race)."""
        if self._pass is not None:
            input_tokens, output_tokens = rows[0].input_tokens.value, rows[0].output_tokens.value
            for row in rows[1:]:
                input_tokens += row.input_tokens.value
                output_tokens += row.output_tokens.value
            self._pass.leave(input_tokens, output_tokens)
        if self._book is not None and self._set_aside:
            self._book.settle(self._budgets, self._set_aside, self._charged(rows))

    def _charged(self, rows: Sequence[RequestLog]) -> Sequence[int]:
        """Picodollars for each budget: a row's charges are in the order of what was set aside, or none at all."""
        if len(rows) == 1 and rows[0].charges:
            return [charge.picodollars for charge in rows[0].charges]
        charged = [0] * len(self._set_aside)
        for row in rows:
            for place, charge in enumerate(row.charges):
                charged[place] += charge.picodollars
        return charged

    def headers(self) -> Mapping[str, str]:
        """For the answer, also when it is an error."""
        headers = self._pass.headers if self._pass is not None else _NO_HEADERS
        if self._budgets and self._book is not None and (warning := self._book.headers(self._budgets)):
            return {**headers, **warning}
        return headers


UNLIMITED: Final = Admission(ANONYMOUS)


class _Applied(NamedTuple):
    """The limits and budgets that count a principal's requests for a model. `model` is its public name."""

    principal: Principal
    rules: Rulebook
    model: str
    limits: tuple[AppliedLimit, ...]
    budgets: tuple[AppliedBudget, ...]


@dataclass(frozen=True, slots=True)
class Gatekeeper:
    """Decides on admission. `rules` gives what holds for everyone now, `public_name` the model that a name leads to."""

    limiter: RateLimiter
    book: BudgetBook
    rules: Callable[[], Rulebook]
    default_output_tokens: int
    public_name: Callable[[str], str] = str
    known: dict[tuple[int, str, str | None], _Applied] = field(default_factory=dict, repr=False, compare=False)

    def check(self, principal: Principal, request: ChatRequest) -> None:
        """Only whether the models are allowed. Raises what check_models raises."""
        check_models(principal, request, self.rules().model_groups)

    def models_of(self, principal: Principal) -> Callable[[str], bool]:
        """Whether the principal may use a model, by its public name."""
        return models_of(principal, self.rules().model_groups)

    async def admit(self, principal: Principal, request: ChatRequest, headers: Mapping[str, str]) -> Admission:
        """Raises what check_models raises, RateLimited and NotServing."""
        rules = self.rules()
        check_models(principal, request, rules.model_groups)
        end_user = end_user_of(request, headers)
        if not (principal.limits or principal.budgets or rules.limits or rules.budgets):
            return Admission(principal, end_user)
        limits, budgets = self._applied(principal, rules, request.model, end_user)
        if len(budgets) > _MOST_BUDGETS:
            raise NotServing(f"More than {_MOST_BUDGETS} budgets apply to this request; tell the operator.", 60.0)
        estimate = token_estimate(request, self.default_output_tokens)
        rate_pass = await self.limiter.enter(limits, estimate, principal.priority) if limits else None
        return Admission(principal, end_user, rate_pass, self.book, budgets, estimate)

    def _applied(
        self, principal: Principal, rules: Rulebook, named: str, end_user: str | None
    ) -> tuple[Sequence[AppliedLimit], Sequence[AppliedBudget]]:
        """Which limits and budgets count the request. Kept while principal and rules are the same objects."""
        is_ruled = bool(rules.limits or rules.budgets)  # else neither model nor end user makes a difference
        model = self.public_name(named) if is_ruled else ""
        key = (id(principal), named, end_user) if is_ruled else (id(principal), "", None)
        known = self.known.get(key)
        if known is not None and known.principal is principal and known.rules is rules and known.model == model:
            return known.limits, known.budgets
        limits = [AppliedLimit(limit, limit.subject) for limit in principal.limits]
        budgets = [AppliedBudget(budget, budget.subject) for budget in principal.budgets]
        if is_ruled:
            subjects = [GATEWAY, Subject(Scope.MODEL, model)]
            if end_user is not None:
                subjects.append(Subject(Scope.END_USER, end_user))
            alias = Subject(Scope.MODEL, named) if model != named else None
            limits += [AppliedLimit(rule, each) for rule in rules.limits for each in _counted(rule, subjects, alias)]
            budgets += [AppliedBudget(rule, each) for rule in rules.budgets for each in _counted(rule, subjects, alias)]
        if len(self.known) >= _MOST_KNOWN:
            self.known.clear()
        applied = _Applied(principal, rules, model, tuple(limits), tuple(budgets))
        self.known[key] = applied
        return applied.limits, applied.budgets


def _counted(rule: Budget | RateLimit, subjects: Sequence[Subject], alias: Subject | None) -> Iterator[Subject]:
    """For whom the rule counts a request: another name of a model is no way around its rules, and may have its own."""
    for subject in subjects:
        if rule.subject.covers(subject):
            yield subject
    if alias is not None and rule.subject == alias:
        yield alias


def end_user_of(request: ChatRequest, headers: Mapping[str, str]) -> str | None:
    """Who uses the application that sends the request: the header, else the member `user`; None if it does not say."""
    named = headers.get(USER_HEADER)
    if not named:
        raw = request.member("user")
        found = look_into(raw) if raw is not None else None
        named = found if isinstance(found, str) else None
    return named[:_END_USER_CHARACTERS] if named else None


def token_estimate(request: ChatRequest, default_output_tokens: int) -> TokenEstimate:
    """A token for each three bytes of the body, and for each answer the request's own limit, else the default.

    Images and files that are only named have as much added as most of them are.
    """
    output = min(max_output_tokens(request) or default_output_tokens, _MOST_OUTPUT_TOKENS)
    tokens = -(-len(request.body) // _BYTES_PER_TOKEN) + _TOKENS_PER_MENTION * mentioned_parts(request)
    return TokenEstimate(tokens, output * min(choices(request), _MOST_CHOICES))
