"""What the use cases need of the outside world; implemented in `proxy/infrastructure`, chosen in `proxy/bootstrap`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from proxy.domain.access.scopes import Subject
from proxy.domain.errors import UpstreamError
from proxy.domain.pricing import ModelPricing, PriceChanges
from proxy.domain.request_log import RequestIntent, RequestLog
from proxy.domain.routing import DeploymentState
from proxy.domain.usage_report import UsageQuery, UsageReport
from proxy.domain.values import CostAmount


class RequestLogRepository(Protocol):
    """The booked requests."""

    async def save(self, row: RequestLog) -> RequestLog:
        """Book one row; booking the same id again changes nothing. Returns the row as saved."""
        ...

    async def get_recent(self, count: int, of: Sequence[Subject] = ()) -> Sequence[RequestLog]:
        """The last `count` rows, newest first. Raises InvalidValue unless count > 0.

        `of` are keys, teams and organisations by id or name, each of which must own a row; ObjectNotFound is raised if
        there is no row, and one of them is not there either.
        """
        ...

    async def key_names(self, rows: Sequence[RequestLog]) -> Mapping[UUID, str]:
        """The names of the rows' keys, as far as there still are such keys."""
        ...

    async def get_total_cost(self, since: datetime) -> CostAmount:
        """Known costs (billed, else estimated) of all rows at or after `since`, summed exactly."""
        ...


class ModelPricingRepository(Protocol):
    """The price table."""

    async def get_by_model(self, model: str) -> ModelPricing | None:
        """The model's prices, None if it has none."""
        ...

    async def get_all(self) -> Sequence[ModelPricing]:
        """All prices, ordered by model name."""
        ...


class ProviderHealthChecker(Protocol):
    """Asks providers whether they answer, by calls that cost nothing."""

    async def is_healthy(self, provider: str) -> bool:
        """False on any error or time-out; never raises for the provider's trouble."""
        ...

    async def check_all_providers(self) -> Mapping[str, bool]:
        """`{"OpenRouter": True}`."""
        ...


class PriceBook(Protocol):
    """The price table as it was last read, in memory: the request path never waits for a database."""

    def current(self) -> Mapping[str, ModelPricing]:
        """Prices by model name."""
        ...


class Ledger(Protocol):
    """Books one row for each admitted request: what was acknowledged has been booked, and survives the process."""

    def admit(self) -> None:
        """Promise room for one more request. Raises LedgerFull."""
        ...

    def begin(self, intent: RequestIntent) -> None:
        """Note an admitted request that is about to be sent upstream; at most once for each, before `settle`."""
        ...

    def generating(self, request: UUID, generation_id: str) -> None:
        """Note what the upstream calls the generation for a request that was begun, so that its bill can be found."""
        ...

    def settle(self, row: RequestLog) -> None:
        """Book the row of an admitted request; called exactly once for each."""
        ...

    @property
    def waits_for_disk(self) -> bool:
        """Whether `durable` may have to wait at all."""
        ...

    async def durable(self) -> None:
        """Return when what was noted so far is as safe as the operator has asked for.

        Raises LedgerFull when the disk does not take it; it is noted all the same, and survives the process.
        """
        ...


class LiveDeployment(Protocol):
    """One deployment as it lives: its chat completion service in the kernel, its limits, and what is known of it."""

    @property
    def name(self) -> str:
        """Also the id of its service."""
        ...

    @property
    def seems_well(self) -> bool:
        """Whether its last call went well, or there was none."""
        ...

    def state(self, model: str, *, stream: bool) -> DeploymentState:
        """What planning reads."""
        ...

    async def rest(self, model: str, most_seconds: float) -> None:
        """Wait until the model has cooled down here. Raises DeploymentBusy when that takes too long."""
        ...

    def enter_at_once(self) -> bool:
        """Take a place for a call, to be given back by `leave`, if one is free now; else nothing."""
        ...

    async def enter(self, most_seconds: float) -> None:
        """Take one as soon as it is free. Raises DeploymentBusy."""
        ...

    def leave(self) -> None: ...

    def answered(self, seconds: float, *, stream: bool) -> None:
        """A call was answered: the first byte of a stream, or the whole of another answer, came after that long."""
        ...

    def failed(self, error: UpstreamError, seconds: float, model: str, *, stream: bool) -> None:
        """A call failed in the end."""
        ...

    def used(self, tokens: int) -> None:
        """Towards its limit of tokens per minute."""
        ...

    def take_retry(self) -> bool:
        """Whether the provider's retry budget allows one more; if so it is ended by `give_back_retry`."""
        ...

    def give_back_retry(self) -> None: ...

    def p95_seconds(self, *, stream: bool) -> float | None:
        """95th percentile of the times to first byte; None while there are too few."""
        ...

    def drain(self, *, is_drained: bool) -> None:
        """Whether it gets no new requests, or gets some again."""
        ...

    def report(self) -> Mapping[str, Any]:
        """For people and programs."""
        ...


class ModelCatalog(Protocol):
    """The models that the gateway serves, in OpenAI's shape with the upstream's extra members kept."""

    async def list_models(self) -> Sequence[Mapping[str, Any]]: ...

    async def get_model(self, model_id: str) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What is known of the gateway's parts, from what was last seen; making it waits for nothing.

    `cannot_serve` holds the reasons why a request would be refused now; empty means ready. `cannot_accept` are those of
    them that are this gateway's own: another one might serve the request. `can_book` is whether rows reach the
    database; while they do not, they wait in the spool and requests are served all the same. `recent_calls` says of
    each deployment how many calls its success rate is of. `gives_way` is whether this worker ends for others that take
    its place: while one of them is there, it is no reason why a request would be refused.
    """

    cannot_serve: Sequence[str] = ()
    cannot_accept: Sequence[str] = ()
    can_book: bool = True
    degraded: Sequence[str] = ()
    database: Mapping[str, Any] = field(default_factory=dict)
    ledger: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    unpriced_requests: int = 0
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    deployments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    recent_calls: Mapping[str, int] = field(default_factory=dict)
    gives_way: bool = False


class HealthSource(Protocol):
    """Where the health endpoints get their report."""

    def report(self) -> HealthReport: ...

    def is_stopping(self) -> bool:
        """Whether the gateway serves on only for those who have not found another one yet."""
        ...


class ConfigurationControl(Protocol):
    """The configuration in force, and changing it while requests run."""

    async def reload(self) -> Mapping[str, Any]:
        """Load the file anew; its state, and whether it `changed`. Raises InvalidConfiguration: nothing has changed."""
        ...

    def state(self) -> Mapping[str, Any]:
        """For the health report: file, version, when it was loaded, and the problems of a later one that was not."""
        ...


class UsageReports(Protocol):
    """What was used and what it cost, of all time: also of requests whose rows are kept no more."""

    async def report(self, query: UsageQuery) -> UsageReport:
        """Raises NotServing while the database is away.

        Raises ObjectNotFound if there is nothing to tell, and an owner that is named is not there, or not to be seen.
        """
        ...


class PriceHistory(ModelPricingRepository, Protocol):
    """The price table with its past and its future: rows are added, never changed."""

    async def history(self, model: str) -> Sequence[ModelPricing]:
        """Every price the model ever had or will have, the latest first."""
        ...

    async def upcoming(self) -> Sequence[ModelPricing]:
        """Prices that are not in force yet, the next one first."""
        ...

    async def count(self) -> int:
        """How many there are, of all times. When there are as many as before, none has been added."""
        ...

    async def set(self, price: ModelPricing, valid_from: datetime) -> bool:
        """Add the operator's price; False, and nothing is done, when the model has one from that very moment on."""
        ...

    async def supersede(
        self, prices: Sequence[ModelPricing], valid_from: datetime, *, dry_run: bool = False
    ) -> PriceChanges:
        """Add those of the upstream's prices that differ from the ones in force; of two at once, one adds them."""
        ...
