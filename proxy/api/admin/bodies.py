"""What the admin API takes, and the objects that come of it.

A PATCH changes what it names; null takes a value away where there may be none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID, uuid4

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

from proxy.domain.access.model_scope import ModelScope
from proxy.domain.access.permissions import Role
from proxy.domain.access.scopes import EACH, Scope, Subject
from proxy.domain.access.tenants import Organisation, Team, VirtualKey
from proxy.domain.budgets import MOST_USD, Budget, Period, Window
from proxy.domain.rate_limits import Priority, RateLimit

_MOST_METADATA_BYTES: Final = 16_384
_MOST_COUNT: Final = 2**53
_HASH: Final = r"^[0-9a-f]{64}$"
_PERIOD: Final = r"^(hour|day|week|month|total|rolling:([6-9][0-9]|[1-9][0-9]{2,8}))$"


def _printable(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("must be printable text")
    return text


def _fitting(pattern: str, words: str) -> Callable[[str], str]:
    """Says in words what is accepted; the pattern is for the schema."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(words)
        return text

    return check


def _storable(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError:
        raise ValueError("must be JSON: no NaN, no infinity, no lone surrogates") from None
    if len(text) > _MOST_METADATA_BYTES or "\\u0000" in text:
        raise ValueError(f"must be JSON of at most {_MOST_METADATA_BYTES} characters, without NUL")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time that the calendar has in UTC") from None


def no_list(value: object) -> object:
    """pydantic makes a Decimal of a list of its parts, and lets what is wrong with those out as it comes."""
    if isinstance(value, list):
        raise ValueError("must be a number, or one as a string")  # noqa: TRY004  # which pydantic would let through
    return value


Hash = Annotated[
    str,
    AfterValidator(_fitting(_HASH, "must be a SHA-256 in hexadecimal: 64 digits, letters in lower case")),
    WithJsonSchema({"type": "string", "pattern": _HASH}),
]
PeriodName = Annotated[
    str,
    AfterValidator(_fitting(_PERIOD, "must be hour, day, week, month, total, or rolling:<seconds> (60 to 999999999)")),
    WithJsonSchema({"type": "string", "pattern": _PERIOD}),
]
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Name = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_printable)]
Names = Annotated[list[Name], Field(max_length=1000)]
Metadata = Annotated[dict[str, JsonValue], AfterValidator(_storable)]
Count = Annotated[int, Field(ge=1, le=_MOST_COUNT, strict=True)]
Usd = Annotated[Decimal, Field(ge=0, le=MOST_USD, max_digits=19, decimal_places=12), BeforeValidator(no_list)]
PriorityName = Literal["low", "normal", "high"]
ScopeName = Literal["gateway", "organisation", "team", "key", "end_user", "model"]
Endpoint = Literal["chat.completions", "models", "route", "usage", "requests", "me"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def given(self, *names: str) -> dict[str, Any]:
        """Those members that the client sent."""
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}


class TenantBody(_Body):
    name: Name
    models: Names | None = Field(
        None, description="names, patterns with one `*`, and `group:<name>`; null: every model"
    )
    metadata: Metadata = Field(default_factory=dict)
    disabled: bool = False


class OrganisationBody(TenantBody):
    """An organisation."""

    def made(self) -> Organisation:
        return Organisation(
            id=uuid4(),
            name=self.name,
            created_at=datetime.now(UTC),
            models=_scope(self.models),
            metadata=self.metadata,
            disabled=self.disabled,
        )


class TeamBody(TenantBody):
    """A team."""

    organisation: Name | None = Field(None, description="by name or id")

    def made(self, organisation_id: UUID | None) -> Team:
        return Team(
            id=uuid4(),
            name=self.name,
            created_at=datetime.now(UTC),
            organisation_id=organisation_id,
            models=_scope(self.models),
            metadata=self.metadata,
            disabled=self.disabled,
        )


class TenantPatch(_Body):
    """Changes to an organisation or a team."""

    name: Name = ""
    models: Names | None = None
    metadata: Metadata = Field(default_factory=dict)
    disabled: bool = False

    def changes(self) -> dict[str, Any]:
        changes = self.given("name", "metadata", "disabled")
        return changes | ({"models": _scope(self.models)} if "models" in self.model_fields_set else {})


class _KeyFields(_Body):
    owner: Name | None = None
    models: Names | None = Field(
        None, description="names, patterns with one `*`, and `group:<name>`; null: every model"
    )
    endpoints: Annotated[list[Endpoint], Field(max_length=20)] | None = Field(None, description="null: all of its role")
    tags: Names = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)
    priority: PriorityName = "normal"
    expires_at: Moment | None = None
    disabled: bool = False

    def _typed(self) -> dict[str, Any]:
        return {
            "owner": self.owner,
            "models": _scope(self.models),
            "endpoints": None if self.endpoints is None else frozenset(self.endpoints),
            "tags": tuple(self.tags),
            "metadata": self.metadata,
            "priority": Priority[self.priority.upper()],
            "expires_at": self.expires_at,
            "disabled": self.disabled,
        }


class KeyBody(_KeyFields):
    """A key; with `hash` one that exists elsewhere, known by its SHA-256 in hexadecimal."""

    name: Name
    team: Name | None = Field(None, description="by name or id")
    organisation: Name | None = Field(None, description="by name or id, for keys without a team")
    role: Role = Role.MEMBER
    calls_models: bool = Field(False, description="also a key of an administrator may call models")
    hash: Hash | None = None
    monthly_budget_usd: Usd | None = Field(None, description="makes a hard budget with it")
    requests_per_minute: Count | None = Field(None, description="makes a limit with it")
    tokens_per_minute: Count | None = Field(None, description="makes a limit with it")

    @model_validator(mode="after")
    def _belongs_once(self) -> Self:
        if self.team is not None and self.organisation is not None:
            raise ValueError("give a team or an organisation: a team's organisation is known")
        return self

    def made(
        self, hash_: str, hint: str, created_by: str, team: Team | None, organisation_id: UUID | None
    ) -> tuple[VirtualKey, list[Budget | RateLimit]]:
        """The key, and what is made with it."""
        key = VirtualKey(
            id=uuid4(),
            hash=hash_,
            hint=hint,
            name=self.name,
            created_at=datetime.now(UTC),
            created_by=created_by[:255],
            role=self.role,
            calls_models=self.calls_models or self.role is Role.MEMBER,
            team_id=team.id if team else None,
            organisation_id=team.organisation_id if team else organisation_id,
            **self._typed(),
        )
        subject = Subject(Scope.KEY, str(key.id))
        rules: list[Budget | RateLimit] = []
        if self.monthly_budget_usd is not None:
            name = f"{self.name}: monthly"[:255]
            window = Window(Period.MONTH)
            rules.append(
                Budget(id=uuid4(), name=name, subject=subject, amount_usd=self.monthly_budget_usd, window=window)
            )
        if self.requests_per_minute is not None or self.tokens_per_minute is not None:
            rules.append(
                RateLimit(
                    id=uuid4(),
                    subject=subject,
                    requests_per_minute=self.requests_per_minute,
                    tokens_per_minute=self.tokens_per_minute,
                )
            )
        return key, rules


class KeyPatch(_KeyFields):
    """Changes to a key. Its team and its role stay: make another key."""

    name: Name = ""

    def changes(self) -> dict[str, Any]:
        typed = self._typed() | {"name": self.name}
        return {name: typed[name] for name in self.model_fields_set}


class RotateBody(_Body):
    """How long the old secret stays good; 400 while an earlier one is. With 0 all old ones end at once."""

    grace_seconds: Annotated[float, Field(ge=0, le=90 * 86_400, allow_inf_nan=False)] = 0.0


class BudgetBody(_Body):
    """A budget."""

    name: Name
    scope: ScopeName
    subject: Annotated[str, Field(max_length=255)] = Field("", description="whose, by name or id; `*`: each of them")
    amount_usd: Usd
    period: PeriodName = Field("month", description="hour, day, week, month, total, or rolling:<seconds>")
    hard: bool = Field(True, description="refuse what does not fit; a soft one only warns")
    warn_percent: Annotated[int, Field(ge=1, le=100, strict=True)] = 80

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        _check_subject(self.scope, self.subject)
        return self

    def made(self, subject: Subject) -> Budget:
        return Budget(
            id=uuid4(),
            name=self.name,
            subject=subject,
            amount_usd=self.amount_usd,
            window=_window(self.period),
            is_hard=self.hard,
            warn_percent=self.warn_percent,
        )


class BudgetPatch(_Body):
    """Changes to a budget. Whose it is and its period stay: what is spent is kept by them."""

    name: Name = ""
    amount_usd: Usd = Decimal(0)
    hard: bool = True
    warn_percent: Annotated[int, Field(ge=1, le=100, strict=True)] = 80

    def changes(self) -> dict[str, Any]:
        changes = self.given("name", "amount_usd", "warn_percent")
        return changes | ({"is_hard": self.hard} if "hard" in self.model_fields_set else {})


class _Limits(_Body):
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    input_tokens_per_minute: Count | None = None
    output_tokens_per_minute: Count | None = None
    concurrent_requests: Count | None = None


class LimitBody(_Limits):
    """A rate limit; what it does not name is not limited."""

    scope: ScopeName
    subject: Annotated[str, Field(max_length=255)] = Field("", description="whose, by name or id; `*`: each of them")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        _check_subject(self.scope, self.subject)
        if all(getattr(self, name) is None for name in _Limits.model_fields):
            raise ValueError(f"limit something: {', '.join(_Limits.model_fields)}")
        return self

    def made(self, subject: Subject) -> RateLimit:
        return RateLimit(id=uuid4(), subject=subject, **{name: getattr(self, name) for name in _Limits.model_fields})


class LimitPatch(_Limits):
    """Changes to a limit."""

    def changes(self) -> dict[str, Any]:
        return self.given(*_Limits.model_fields)


def changed(entity: Any, changes: Mapping[str, Any]) -> Any:
    """The object with the changes made."""
    return replace(entity, **changes)


def _check_subject(scope: str, subject: str) -> None:
    if (scope == Scope.GATEWAY.value) != (subject == ""):
        raise ValueError("subject: name whom it is for; the gateway needs no name")
    if subject == EACH and scope not in (Scope.END_USER.value, Scope.MODEL.value):
        raise ValueError("subject: `*` is for end users and models")
    if subject and not subject.isprintable():
        raise ValueError("subject: must be printable text")


def _scope(models: list[str] | None) -> ModelScope:
    return ModelScope(None if models is None else tuple(models))


def _window(period: str) -> Window:
    name, _, seconds = period.partition(":")
    return Window(Period(name), int(seconds) if seconds else None)
