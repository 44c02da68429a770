"""Admission: who is let in, for how much, and what is given back and charged in the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from proxy.api.openai.envelope import read_chat_request
from proxy.application.admission import Admission
from proxy.application.allowances import AppliedBudget, AppliedLimit, RatePass, Rulebook
from proxy.application.booking import Accounting
from proxy.application.exchange import Exchange
from proxy.application.gatekeeper import Gatekeeper, end_user_of, token_estimate
from proxy.application.orchestrator import KernelOrchestrator
from proxy.application.unpriced import UnpricedModels
from proxy.domain.access.model_scope import ModelScope
from proxy.domain.access.permissions import ROLE_PERMISSIONS, Role
from proxy.domain.access.principals import Principal, PrincipalKind
from proxy.domain.access.scopes import EACH, GATEWAY, Scope, Subject
from proxy.domain.budgets import Budget, Charge, Period, Window, picodollars
from proxy.domain.chat import AnswerFacts, ChatRequest, Usage
from proxy.domain.errors import BudgetExceeded, ModelNotAllowed, PermanentUpstreamError, RateLimited
from proxy.domain.price_tiers import PriceTier
from proxy.domain.rate_limits import Priority, RateLimit, TokenEstimate
from proxy.domain.request_log import CostSource, RequestStatus
from tests.application.conftest import FakeLedger, FakePrices, price
from tests.application.test_exchange import GLM, Said, called, raise_in, upstream_is_called, used
from tests.catalogs import candidate, deployment
from tests.harness import Upstream, fails, says

KEY, TEAM, ORGANISATION = uuid4(), uuid4(), uuid4()
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@dataclass
class CountingPass:
    headers: Mapping[str, str]
    is_counted: bool = False
    left: list[tuple[int, int]] = field(default_factory=list)

    def leave(self, input_tokens: int, output_tokens: int) -> None:
        self.left.append((input_tokens, output_tokens))


@dataclass
class CountingLimiter:
    """A RateLimiter that remembers what was asked of it."""

    is_full: bool = False
    asked: list[tuple[Sequence[AppliedLimit], TokenEstimate, Priority]] = field(default_factory=list)
    given: list[CountingPass] = field(default_factory=list)

    def gate(self, limits: Sequence[AppliedLimit]) -> CountingGate:
        return CountingGate(self, limits)


@dataclass
class CountingGate:
    """The RateGate of that, where everyone has to wait."""

    limiter: CountingLimiter
    limits: Sequence[AppliedLimit]

    def enter_at_once(self, _estimate: TokenEstimate, _priority: Priority) -> None:
        return None

    async def enter(self, estimate: TokenEstimate, priority: Priority) -> RatePass:
        self.limiter.asked.append((self.limits, estimate, priority))
        if self.limiter.is_full:
            raise RateLimited("full", 2.0)
        self.limiter.given.append(CountingPass({"x-ratelimit-remaining-requests": "4"}))
        return self.limiter.given[-1]


@dataclass
class Held:
    """A BudgetHold of that."""

    purse: Money
    charges: Sequence[Charge]

    def settle(self, charged: Sequence[Charge]) -> None:
        self.purse.settled.append((self.charges, [each.picodollars for each in charged]))

    def warning(self) -> str | None:
        return "held"


@dataclass
class Money:
    """A BudgetBook with so much money for all budgets together, some of which is to be waited for."""

    has_picodollars: int = 10**15
    at_once_picodollars: int = 10**15
    set_aside_picodollars: list[int] = field(default_factory=list)
    settled: list[tuple[Sequence[Charge], Sequence[int]]] = field(default_factory=list)

    def purse(self, budgets: Sequence[AppliedBudget]) -> Purse:
        return Purse(self, budgets)


@dataclass
class Purse:
    """A Purse of that."""

    money: Money
    budgets: Sequence[AppliedBudget]

    def set_aside_at_once(self, amount_picodollars: int, moment: datetime) -> Held | None:
        if amount_picodollars > min(self.money.at_once_picodollars, self.money.has_picodollars):
            return None
        self.money.set_aside_picodollars.append(amount_picodollars)
        charges = [Charge(each.budget.id, each.subject.id, moment, amount_picodollars) for each in self.budgets]
        return Held(self.money, charges)

    async def set_aside(self, amount_picodollars: int, moment: datetime) -> Held:
        if amount_picodollars > self.money.has_picodollars:
            raise BudgetExceeded("nothing left", 60.0)
        self.money.at_once_picodollars = self.money.has_picodollars
        held = self.set_aside_at_once(amount_picodollars, moment)
        assert held is not None
        return held

    def warning(self) -> str | None:
        return self.budgets[0].budget.name


def budget(subject: Subject, id_: UUID | None = None) -> Budget:
    return Budget(id=id_ or uuid4(), name="b", subject=subject, amount_usd=Decimal(10), window=Window(Period.MONTH))


def limit(subject: Subject) -> RateLimit:
    return RateLimit(id=uuid4(), subject=subject, requests_per_minute=60)


def member(**members: Any) -> Principal:
    return Principal(
        kind=PrincipalKind.KEY,
        id=f"key:{KEY}",
        name="app",
        permissions=ROLE_PERMISSIONS[Role.MEMBER],
        reach=Subject(Scope.KEY, str(KEY)),
        key_id=KEY,
        team_id=TEAM,
        organisation_id=ORGANISATION,
        **members,
    )


def asking(**members: Any) -> ChatRequest:
    payload = {"model": GLM, "messages": [{"role": "user", "content": "hello"}], **members}
    raw = {name: json.dumps(value).encode() for name, value in payload.items()}
    return ChatRequest(
        body=json.dumps(payload).encode(),
        model=payload["model"],
        stream=False,
        members=raw,
    )


@pytest.fixture
def limiter() -> CountingLimiter:
    return CountingLimiter()


@pytest.fixture
def money() -> Money:
    return Money()


@pytest.fixture
def gatekeeper(limiter: CountingLimiter, money: Money) -> Gatekeeper:
    return Gatekeeper(limiter, money, Rulebook, 1000)


# Models


@pytest.mark.parametrize(
    "members",
    [
        {"model": "big"},
        {"models": ["small", "big"]},
        {"models": ["small"] * 20 + ["big"]},
        {"models": "big"},
        {"models": [{"id": "small"}]},
        {"models": [None]},
    ],
)
async def test_every_model_that_a_request_names_must_be_allowed(
    gatekeeper: Gatekeeper, members: dict[str, Any]
) -> None:
    principal = member(model_scopes=(ModelScope(("small",)), ModelScope()))
    with pytest.raises(ModelNotAllowed):
        await gatekeeper.admit(principal, asking(**{"model": "small", **members}), {})


async def test_a_model_must_be_allowed_by_key_team_and_organisation(gatekeeper: Gatekeeper) -> None:
    principal = member(model_scopes=(ModelScope(("a", "b")), ModelScope(("b", "c")), ModelScope()))
    for refused in ("a", "c"):
        with pytest.raises(ModelNotAllowed, match=refused):
            await gatekeeper.admit(principal, asking(model=refused), {})
    assert (await gatekeeper.admit(principal, asking(model="b"), {})).principal is principal


async def test_groups_are_those_of_the_configuration(limiter: CountingLimiter, money: Money) -> None:
    rules = Rulebook(model_groups={"cheap": ("small",)})
    gatekeeper = Gatekeeper(limiter, money, lambda: rules, 1000)
    principal = member(model_scopes=(ModelScope(("group:cheap",)),))
    await gatekeeper.admit(principal, asking(model="small"), {})
    with pytest.raises(ModelNotAllowed):
        await gatekeeper.admit(principal, asking(model="large"), {})


# Rules


async def test_rules_apply_to_the_subjects_of_the_request_and_no_others(limiter: CountingLimiter, money: Money) -> None:
    of_key, of_team = limit(Subject(Scope.KEY, str(KEY))), limit(Subject(Scope.TEAM, str(TEAM)))
    everyone, each_user = limit(GATEWAY), limit(Subject(Scope.END_USER, EACH))
    this_model, other_model = limit(Subject(Scope.MODEL, GLM)), limit(Subject(Scope.MODEL, "other"))
    other_user = limit(Subject(Scope.END_USER, "bob"))
    rules = Rulebook(limits=(everyone, each_user, this_model, other_model, other_user))
    gatekeeper = Gatekeeper(limiter, money, lambda: rules, 1000)
    await gatekeeper.admit(member(limits=(of_key, of_team), priority=Priority.HIGH), asking(user="alice"), {})
    ((applied, _estimate, priority),) = limiter.asked
    assert [(each.limit, str(each.subject)) for each in applied] == [
        (of_key, f"key:{KEY}"),
        (of_team, f"team:{TEAM}"),
        (everyone, "gateway"),
        (each_user, "end_user:alice"),
        (this_model, f"model:{GLM}"),
    ]
    assert priority is Priority.HIGH


async def test_another_name_of_a_model_is_no_way_around_its_rules(limiter: CountingLimiter, money: Money) -> None:
    of_model, of_alias = limit(Subject(Scope.MODEL, "chat")), limit(Subject(Scope.MODEL, "fast"))
    each, other = limit(Subject(Scope.MODEL, EACH)), limit(Subject(Scope.MODEL, "other"))
    rules = Rulebook(limits=(of_model, of_alias, each, other))
    names = {"fast": "chat"}
    gatekeeper = Gatekeeper(limiter, money, lambda: rules, 1000, lambda model: names.get(model, model))
    for model in ("fast", "chat"):
        await gatekeeper.admit(member(), asking(model=model), {})
    counted = [[(one.limit, one.subject.id) for one in applied] for applied, _estimate, _priority in limiter.asked]
    of_both = [(of_model, "chat"), (each, "chat")]
    assert [sorted(map(str, one)) for one in counted] == [
        sorted(map(str, [*of_both, (of_alias, "fast")])),
        sorted(map(str, of_both)),
    ]


async def test_what_is_remembered_of_rules_ends_with_them(limiter: CountingLimiter, money: Money) -> None:
    """The same caller and model, asked for again after the rules, the alias, the caller or its user have changed."""
    first, second = limit(GATEWAY), limit(Subject(Scope.MODEL, "chat"))
    each_user = limit(Subject(Scope.END_USER, EACH))
    standing, names, caller = [Rulebook(limits=(first, second, each_user))], {"fast": "chat"}, member()
    gatekeeper = Gatekeeper(limiter, money, lambda: standing[0], 1000, lambda model: names.get(model, model))

    async def counted(caller: Principal, **members: Any) -> list[RateLimit]:
        await gatekeeper.admit(caller, asking(model="fast", **members), {})
        return [one.limit for one in limiter.asked[-1][0]]

    assert await counted(caller) == await counted(caller) == [first, second]
    assert await counted(caller, user="alice") == [first, second, each_user]
    names["fast"] = "other"
    assert await counted(caller) == [first]
    standing[0] = Rulebook(limits=(each_user, first))
    assert await counted(caller) == [first]
    own = limit(Subject(Scope.KEY, str(KEY)))
    assert await counted(replace(caller, limits=(own,))) == [own, first]
    standing[0] = Rulebook()
    assert await counted(replace(caller, limits=(own,))) == [own]


async def test_no_more_is_remembered_than_fits(limiter: CountingLimiter, money: Money) -> None:
    rules = Rulebook(limits=(limit(Subject(Scope.END_USER, EACH)),))
    gatekeeper = Gatekeeper(limiter, money, lambda: rules, 1000)
    caller = member()
    for number in range(5000):
        await gatekeeper.admit(caller, asking(), {"x-gateway-user": f"user {number}"})
    assert len(gatekeeper.known) <= 4096


async def test_without_rules_nobody_counts(gatekeeper: Gatekeeper, limiter: CountingLimiter) -> None:
    admission = await gatekeeper.admit(member(), asking(user="alice"), {})
    assert (admission.end_user, admission.needs_money, limiter.asked) == ("alice", False, [])
    assert admission.headers() == {}


@pytest.mark.parametrize(
    ("members", "headers", "found"),
    [
        ({}, {}, None),
        ({"user": "alice"}, {}, "alice"),
        ({"user": "alice"}, {"x-gateway-user": "bob"}, "bob"),
        ({"user": ""}, {}, None),
        ({"user": 7}, {}, None),
        ({"user": None}, {"x-gateway-user": ""}, None),
        ({"user": "u" * 300}, {}, "u" * 255),
    ],
)
def test_the_end_user_is_named_by_header_or_body(
    members: dict[str, Any], headers: dict[str, str], found: str | None
) -> None:
    assert end_user_of(asking(**members), headers) == found


@pytest.mark.parametrize(
    ("members", "output_tokens"),
    [
        ({}, 1000),
        ({"max_tokens": 20}, 20),
        ({"max_tokens": 20, "max_completion_tokens": 30}, 30),
        ({"max_tokens": 20, "n": 3}, 60),
        ({"n": 2}, 2000),
        ({"max_tokens": 0}, 1000),
        ({"max_tokens": 10, "n": True}, 10),
        ({"max_tokens": 10, "n": 3.0}, 30),
        ({"max_completion_tokens": 1, "max_tokens": 500}, 500),
        ({"max_tokens": 10**400, "n": 10**400}, 2_000_000 * 128),
    ],
)
def test_the_estimate_is_what_the_request_allows(members: dict[str, Any], output_tokens: int) -> None:
    request = asking(**members)
    estimate = token_estimate(request, 1000)
    assert estimate == TokenEstimate(-(-len(request.body) // 3), output_tokens)


@pytest.mark.parametrize("kind", ["image_url", "file"])
def test_what_is_only_named_in_a_prompt_counts_for_more_than_its_name(kind: str) -> None:
    part = {"type": kind, kind: {"url": "https://example.com/a"}}
    request = asking(messages=[{"role": "user", "content": [part, part]}])
    assert token_estimate(request, 0) == TokenEstimate(-(-len(request.body) // 3) + 4000, 0, has_media=True)


PICTURE = "data:image/png;base64," + "A" * 900_000


@pytest.mark.parametrize("image", [{"url": PICTURE, "detail": "high"}, PICTURE], ids=["object", "text"])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", " : ")], ids=["tight", "wide"])
@pytest.mark.parametrize("slash", ["/", r"\/"])
def test_a_picture_counts_for_as_much_however_large_its_file_is(
    image: Any, separators: tuple[str, str], slash: str
) -> None:
    """It was a token for each three bytes of it, for which no budget and no limit on tokens had room."""
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": image}]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}, separators=separators)
    estimate = token_estimate(read_chat_request(body.replace("/", slash).encode()), 0)
    assert 2000 < estimate.input_tokens < 2100
    assert estimate.has_media


@pytest.mark.parametrize(
    "sound",
    [{"data": "A" * 900_000, "format": "wav"}, {"format": "mp3", "data": "A" * 900_000}],
    ids=["data", "format"],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", " : ")], ids=["tight", "wide"])
def test_a_sound_counts_for_less_than_a_text_of_its_length(sound: dict[str, str], separators: tuple[str, str]) -> None:
    parts = [{"type": "input_audio", "input_audio": sound}, {"type": "text", "text": "who speaks?"}]
    messages = [{"role": "user", "content": [*parts, *parts]}]
    body = json.dumps({"model": "m", "messages": messages}, separators=separators).encode()
    estimate = token_estimate(read_chat_request(body), 0)
    assert 60_000 < estimate.input_tokens < 60_200
    assert estimate.has_media


@pytest.mark.parametrize("text", ["Here it is.", "\ud83d"], ids=["sound", "cut"])
def test_a_picture_that_a_model_has_made_counts_for_no_more_when_it_is_sent_back(text: str) -> None:
    """It is beside the texts then, as it was in the answer, and nothing else need have parts."""
    image = {"type": "image_url", "image_url": {"url": PICTURE}, "index": 0}
    hello = {"role": "user", "content": "Draw it."}
    drawn = {"role": "assistant", "content": text, "images": [image]}
    body = json.dumps({"model": "m", "messages": [hello, drawn, hello]}).encode()
    estimate = token_estimate(read_chat_request(body), 0)
    assert estimate.input_tokens < 2200
    assert estimate.has_media


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": PICTURE},
        {"type": "text", "text": f'"url": "{PICTURE}"'},
        {"type": "text", "text": f'{{"image_url": {{"url":"{PICTURE}"}}}}'},
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml," + "a" * 900_000}},
        {"type": "image_url", "image_url": {"url": "data:text/plain;base64," + "a" * 900_000}},
        {"type": "file", "file": {"file_data": PICTURE}},
        {"type": "text", "text": f'"input_audio": {{"data": "{PICTURE}"}}'},
        {"type": "input_audio", "input_audio": {"text": PICTURE, "data": "AAAA"}},
        {"type": "x", "data": PICTURE, "input_audio": {}},
    ],
)
def test_what_may_be_text_counts_in_full(part: Any) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a"}}
    request = asking(messages=[{"role": "user", "content": [part, image]}])
    assert token_estimate(request, 0).input_tokens > 300_000


@pytest.mark.parametrize(
    ("content", "has_media"),
    [
        ("text", False),
        ('"input_audio"', False),
        ([{"type": "text", "text": 'an "image_url"'}], False),
        ([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}], True),
        ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}], True),
    ],
)
def test_what_may_be_priced_otherwise_than_text_is_known(content: Any, has_media: bool) -> None:
    request = asking(messages=[{"role": "user", "content": content}])
    assert token_estimate(request, 0).has_media is has_media


# Money


def served(ledger: FakeLedger, prices: Any, admission: Admission) -> Exchange:
    exchange = Exchange(ledger, Accounting(prices, UnpricedModels()), "req-1", lambda: True)
    exchange.admitted(admission)
    return exchange


async def admitted(money: Money, *subjects: Subject, calls: int = 1) -> Admission:
    budgets = [AppliedBudget(budget(subject), subject) for subject in subjects]
    admission = Admission(member(), "alice", CountingPass({}), money.purse(budgets))
    await admission.set_aside(500, calls, NOON)
    return admission


async def test_a_row_says_whose_it_is_and_is_charged_what_it_cost(
    ledger: FakeLedger, prices: FakePrices, money: Money
) -> None:
    admission = await admitted(money, GATEWAY, Subject(Scope.TEAM, str(TEAM)))
    with served(ledger, prices, admission) as exchange:
        exchange.asked(asking())
        exchange.calling(candidate(GLM, "test"), called(used(1000, 500)))
        exchange.answering(200)
    row, (intent,) = ledger.row, ledger.intents
    assert (row.key_id, row.team_id, row.organisation_id, row.end_user) == (KEY, TEAM, ORGANISATION, "alice")
    assert (intent.key_id, intent.team_id, intent.end_user) == (KEY, TEAM, "alice")
    assert [hold.picodollars for hold in intent.holds] == [500, 500]
    cost = picodollars(Decimal("0.0001") / 1000 + Decimal("0.0002") / 2000)
    assert [charge.picodollars for charge in row.charges] == [cost, cost]
    assert [charge.bucket for charge in row.charges] == [NOON, NOON]
    assert money.settled == [(list(intent.holds), [cost, cost])]


async def test_an_unknown_cost_is_charged_what_was_set_aside(
    ledger: FakeLedger, prices: FakePrices, money: Money
) -> None:
    exchange = served(ledger, prices, await admitted(money, GATEWAY))
    timed_out = PermanentUpstreamError("gone", kind="timeout")
    raise_in(exchange, timed_out, upstream_is_called, lambda x: x.failed(timed_out, 504))
    assert ledger.row.cost_source is CostSource.UNKNOWN
    assert [charge.picodollars for charge in ledger.row.charges] == [500]


async def test_what_cost_nothing_is_charged_nothing_and_given_back(
    ledger: FakeLedger, prices: FakePrices, money: Money
) -> None:
    exchange = served(ledger, prices, await admitted(money, GATEWAY))
    refused = PermanentUpstreamError("no", status=400, kind="http_400")
    call = called()
    call.refusals = 1
    raise_in(
        exchange,
        refused,
        lambda each: each.asked(asking()),
        lambda each: each.calling(candidate(GLM, "test"), call),
        lambda each: each.failed(refused, 400),
    )
    assert ledger.row.cost_source is CostSource.NONE
    ((set_aside, charged),) = money.settled
    assert ([held.picodollars for held in set_aside], charged) == ([500], [])


async def test_a_call_that_lost_a_race_is_charged_its_usage_or_its_share_of_what_was_set_aside(
    ledger: FakeLedger, prices: FakePrices, money: Money
) -> None:
    cost = picodollars(Decimal("0.0001") / 1000 + Decimal("0.0002") / 2000)
    for answer, source, charged in (
        (None, CostSource.UNKNOWN, 500),
        (Said(AnswerFacts(), output_tokens=3), CostSource.UNKNOWN, 500),
        (used(), CostSource.COMPUTED, cost),
    ):
        admission = await admitted(money, GATEWAY, calls=2)
        first, rival = called(answer), called(used())
        with served(ledger, prices, admission) as exchange:
            exchange.asked(asking())
            exchange.calling(candidate(GLM, "test"), first)
            exchange.hedging(candidate(GLM, "test"), rival, first)
            exchange.answered_by(rival)
            exchange.answering(200)
        own, lost = ledger.rows[-2:]
        assert (lost.cost_source, [charge.picodollars for charge in lost.charges]) == (source, [charged])
        assert (own.cost_source, [charge.picodollars for charge in own.charges]) == (CostSource.COMPUTED, [cost])
        assert money.settled[-1][1] == [cost + charged]


async def test_a_place_is_left_once_with_what_was_used(ledger: FakeLedger, prices: FakePrices) -> None:
    rate_pass = CountingPass({})
    with served(ledger, prices, Admission(member(), None, rate_pass)) as exchange:
        exchange.asked(asking())
        exchange.calling(candidate(GLM, "test"), called(used(70, 30)))
        exchange.answering(200)
        exchange.settle()
    assert rate_pass.left == [(70, 30)]


async def test_nobody_is_told_of_an_end_that_changes_nothing(ledger: FakeLedger, prices: FakePrices) -> None:
    rate_pass = CountingPass({}, is_counted=True)
    with served(ledger, prices, Admission(member(), None, rate_pass)) as exchange:
        exchange.asked(asking())
    assert rate_pass.left == []


async def test_money_is_set_aside_for_the_dearest_model_before_anything_is_sent(
    orchestrator: KernelOrchestrator, upstream: Upstream, money: Money
) -> None:
    upstream.answer(says())
    request = asking(max_tokens=1000, models=["moonshotai/Kimi-K2-Instruct-0905"])
    applied = [AppliedBudget(budget(GATEWAY), GATEWAY)]
    admission = Admission(member(), None, None, money.purse(applied), TokenEstimate(1_000_000, 1000))
    with orchestrator.exchange("req-1", lambda: True) as exchange:
        exchange.asked(request)
        exchange.admitted(admission)
        await orchestrator.complete(exchange, request, {})
        exchange.answering(200)
    # 1,000 tokens of prompt are all that the model's context window takes.
    assert money.set_aside_picodollars == [picodollars(Decimal("0.0005") / 1000 + Decimal("0.0010") / 1000)]
    assert len(money.settled) == 1


@pytest.mark.parametrize(
    ("input_tokens", "service_tier", "dollars"),
    [(1000, None, 1), (1001, None, 2), (1000, "priority", 3), (1001, "priority", 3), (1000, "flex", 1)],
)
def test_money_is_set_aside_for_the_tiers_that_a_request_may_be_in(
    input_tokens: int, service_tier: str | None, dollars: int
) -> None:
    """What flex would cost less is not counted on: who asks for it may be served otherwise."""
    prices: list[tuple[dict[str, Any], int]] = [
        ({"above_input_tokens": 1000}, 2),
        ({"service_tier": "priority"}, 3),
        ({"service_tier": "flex"}, 0),
    ]
    tiers = [PriceTier.from_told({**of, "request_fee_usd": str(usd)}) for of, usd in prices]
    base = replace(price(GLM, "0", "0"), request_fee_usd=Decimal(1), tiers=tiers, max_context_tokens=None)
    accounting = Accounting(FakePrices({GLM: base}), UnpricedModels())
    estimate = TokenEstimate(input_tokens, 10, service_tier=service_tier)
    assert accounting.most_cost([deployment("a", model=GLM)], [], estimate) == picodollars(Decimal(dollars))


def test_an_estimate_knows_the_service_tier_that_is_wished_for() -> None:
    assert token_estimate(asking(service_tier="fast"), 5).service_tier == "priority"
    parts = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    assert token_estimate(asking(service_tier="flex", messages=parts), 5).service_tier == "flex"
    for usual in ("default", "auto", None):
        assert token_estimate(asking(service_tier=usual), 5).service_tier is None
    assert token_estimate(asking(), 5).service_tier is None


async def test_money_that_is_not_there_yet_is_waited_for(
    orchestrator: KernelOrchestrator, upstream: Upstream, money: Money
) -> None:
    upstream.answer(says())
    money.at_once_picodollars = 0
    applied = [AppliedBudget(budget(GATEWAY), GATEWAY)]
    admission = Admission(member(), None, None, money.purse(applied), TokenEstimate(1, 1))
    with orchestrator.exchange("req-1", lambda: True) as exchange:
        exchange.asked(asking())
        exchange.admitted(admission)
        assert admission.headers() == {"x-gateway-budget-warning": "b"}
        await orchestrator.complete(exchange, asking(), {})
        assert admission.headers() == {"x-gateway-budget-warning": "held"}
        exchange.answering(200)
    assert len(money.set_aside_picodollars) == len(money.settled) == 1


async def test_without_money_nobody_is_asked(
    orchestrator: KernelOrchestrator, ledger: FakeLedger, upstream: Upstream, money: Money
) -> None:
    upstream.answer(fails(500))
    money.has_picodollars = 0
    applied = [AppliedBudget(budget(GATEWAY), GATEWAY)]
    admission = Admission(member(), None, None, money.purse(applied), TokenEstimate(1, 1))
    exchange = orchestrator.exchange("req-1", lambda: True)
    exchange.admitted(admission)
    with exchange:
        exchange.asked(asking())
        with pytest.raises(BudgetExceeded) as refusal:
            await orchestrator.complete(exchange, asking(), {})
        exchange.failed(refusal.value, 429)
    assert (upstream.calls, money.settled, ledger.row.charges) == (0, [], ())
    assert (ledger.row.status, ledger.row.error_type) == (RequestStatus.REFUSED, "budget_exceeded")


def test_a_model_without_a_price_has_so_much_set_aside(prices: FakePrices) -> None:
    accounting = Accounting(prices, UnpricedModels(), Decimal("0.07"))
    unheard, known = deployment("up", model="unheard/of"), deployment("up", model=GLM, walks_models=True)
    hold = picodollars(Decimal("0.07"))
    assert accounting.most_cost([unheard], (), TokenEstimate(5, 5)) == hold
    assert accounting.most_cost([unheard], [GLM], TokenEstimate(5, 5)) == hold
    assert accounting.most_cost([known], ["unheard/of"], TokenEstimate(5, 5)) == hold
    assert accounting.most_cost([known], [GLM], TokenEstimate(5, 5)) < hold
    assert accounting.most_cost([known], (), TokenEstimate(10**3, 0)) == picodollars(Decimal("0.0000001"))


def test_input_may_be_written_to_a_cache_and_output_be_reasoning(prices: FakePrices) -> None:
    dearer = replace(
        price("m", "1", "3"),
        max_context_tokens=None,
        cache_write_cost_per_1m_tokens=Decimal("1.25"),
        reasoning_cost_per_1m_tokens=Decimal(9),
    )
    for own in (
        "cache_write_1h_cost_per_1m_tokens",
        "audio_output_cost_per_1m_tokens",
        "image_output_cost_per_1m_tokens",
    ):
        changed: dict[str, Any] = {own: Decimal(20)}
        dearest = deployment("up", model="m", price=replace(dearer, **changed))
        held = Accounting(prices, UnpricedModels()).most_cost([dearest], (), TokenEstimate(10**6, 10**6))
        assert held == picodollars(Decimal(29) if own.startswith("cache") else Decimal("21.25"))
    priced = deployment("up", model="m", price=dearer)
    accounting = Accounting(prices, UnpricedModels())
    assert accounting.most_cost([priced], (), TokenEstimate(10**6, 10**6)) == picodollars(Decimal("10.25"))


def test_input_that_may_be_an_image_or_audio_is_at_the_dearest_price_of_input(prices: FakePrices) -> None:
    priced = replace(
        price("m", "2.5", "10"),
        max_context_tokens=None,
        image_input_cost_per_1m_tokens=Decimal(10),
        audio_input_cost_per_1m_tokens=Decimal(40),
    )
    accounting, behind = Accounting(prices, UnpricedModels()), [deployment("up", model="m", price=priced)]
    assert accounting.most_cost(behind, (), TokenEstimate(2000, 100)) == picodollars(Decimal("0.006"))
    held = accounting.most_cost(behind, (), TokenEstimate(2000, 100, has_media=True))
    assert held == picodollars(Decimal("0.081"))
    for usage in (Usage(2000, 100, image_tokens=2000), Usage(2000, 100, audio_tokens=2000)):
        assert picodollars(priced.cost_of(usage).usd) <= held


def test_a_price_for_images_alone_is_the_dearest_only_where_it_is(prices: FakePrices) -> None:
    for image, held in (("1", "3"), ("7", "7")):
        priced = replace(
            price("m", "2", "0"),
            max_context_tokens=None,
            cached_input_cost_per_1m_tokens=Decimal(3),
            image_input_cost_per_1m_tokens=Decimal(image),
        )
        accounting, behind = Accounting(prices, UnpricedModels()), [deployment("up", model="m", price=priced)]
        assert accounting.most_cost(behind, (), TokenEstimate(10**6, 0)) == picodollars(Decimal(3))
        assert accounting.most_cost(behind, (), TokenEstimate(10**6, 0, has_media=True)) == picodollars(Decimal(held))
