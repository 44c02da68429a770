"""Letting a request in: may it use the model, is there room in its rate limits, and which budgets will pay for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from proxy.application.admission import Admission
from proxy.application.allowances import (
    AppliedBudget,
    AppliedLimit,
    BudgetBook,
    Purse,
    RateGate,
    RateLimiter,
    Rulebook,
)
from proxy.application.model_access import check_models, models_of
from proxy.domain.access.principals import Principal
from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.budgets import Budget
from proxy.domain.chat import ChatRequest
from proxy.domain.errors import NotServing
from proxy.domain.json_bytes import look_into
from proxy.domain.rate_limits import RateLimit, TokenEstimate
from proxy.domain.routing import choices, max_output_tokens, mentioned_parts

USER_HEADER: Final = "x-gateway-user"
_END_USER_CHARACTERS = 255
_BYTES_PER_TOKEN = 3
_AUDIO_BYTES_PER_TOKEN = 30  # of MP3 at 8 kbit/s, in base64, are 42 of Gemini's tokens, and more of all others
_TOKENS_PER_MENTION = 1000  # of a part that is elsewhere: each has its kind twice, as its type and as a member
_MOST_OUTPUT_TOKENS, _MOST_CHOICES = 2_000_000, 128  # more than anybody answers; what asks for more is refused there
_MOST_KNOWN = 4096
_MOST_BUDGETS = 16  # their charges must fit into a record of the spool


class _Terms(NamedTuple):
    """What counts a principal's requests for a model, whose public name it is, and what pays for them."""

    principal: Principal
    rules: Rulebook
    model: str
    gate: RateGate | None
    purse: Purse | None


@dataclass(frozen=True, slots=True)
class Gatekeeper:
    """Decides on admission. `rules` gives what holds for everyone now, `public_name` the model that a name leads to."""

    limiter: RateLimiter
    book: BudgetBook
    rules: Callable[[], Rulebook]
    default_output_tokens: int
    public_name: Callable[[str], str] = str
    known: dict[int | tuple[int, str, str | None], _Terms] = field(default_factory=dict, repr=False, compare=False)

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
        terms = self._terms(principal, rules, request.model, end_user)
        estimate = token_estimate(request, self.default_output_tokens)
        rate_pass = None
        if terms.gate is not None:
            rate_pass = terms.gate.enter_at_once(estimate, principal.priority)
            if rate_pass is None:
                rate_pass = await terms.gate.enter(estimate, principal.priority)
        return Admission(principal, end_user, rate_pass, terms.purse, estimate)

    def _terms(self, principal: Principal, rules: Rulebook, named: str, end_user: str | None) -> _Terms:
        """Kept while principal and rules are the same objects. Raises NotServing."""
        is_ruled = bool(rules.limits or rules.budgets)  # else neither model nor end user makes a difference
        model = self.public_name(named) if is_ruled else ""
        key = (id(principal), named, end_user) if is_ruled else id(principal)
        known = self.known.get(key)
        if known is not None and known.principal is principal and known.rules is rules and known.model == model:
            return known
        subjects, alias = _subjects(model, end_user), Subject(Scope.MODEL, named) if model != named else None
        limits = [AppliedLimit(limit, limit.subject) for limit in principal.limits]
        limits += [AppliedLimit(rule, each) for rule in rules.limits for each in _counted(rule, subjects, alias)]
        budgets = [AppliedBudget(budget, budget.subject) for budget in principal.budgets]
        budgets += [AppliedBudget(rule, each) for rule in rules.budgets for each in _counted(rule, subjects, alias)]
        if len(budgets) > _MOST_BUDGETS:
            raise NotServing(f"More than {_MOST_BUDGETS} budgets apply to this request; tell the operator.", 60.0)
        gate = self.limiter.gate(tuple(limits)) if limits else None
        purse = self.book.purse(tuple(budgets)) if budgets else None
        if len(self.known) >= _MOST_KNOWN:
            self.known.clear()
        terms = self.known[key] = _Terms(principal, rules, model, gate, purse)
        return terms


def _subjects(model: str, end_user: str | None) -> list[Subject]:
    """For whom a request counts besides its principal."""
    subjects = [GATEWAY, Subject(Scope.MODEL, model)]
    return subjects if end_user is None else [*subjects, Subject(Scope.END_USER, end_user)]


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

    Images and files that are only named have as much added as most of them are; so have images that are in it, whose
    own bytes do not count. Of sounds it takes more bytes.
    """
    output = min(max_output_tokens(request) or default_output_tokens, _MOST_OUTPUT_TOKENS)
    body_bytes = len(request.body)
    if "n" in request.members:
        output *= min(choices(request), _MOST_CHOICES)
    if not request.has_parts:
        estimate = TokenEstimate(-(-body_bytes // _BYTES_PER_TOKEN), output)
    else:
        fetched, has_media, image_bytes, audio_bytes = mentioned_parts(request)
        tokens = -(-(body_bytes - image_bytes - audio_bytes) // _BYTES_PER_TOKEN)
        tokens += -(-audio_bytes // _AUDIO_BYTES_PER_TOKEN)
        estimate = TokenEstimate(tokens + _TOKENS_PER_MENTION * fetched, output, has_media)
    if "service_tier" in request.members:
        estimate = estimate._replace(service_tier=request.service_tier())
    return estimate
