"""Everything that can go wrong, named once. HTTP statuses are given in `proxy/api/openai/errors.py`.

GatewayError
├── InvalidValue                 a value object was given something it cannot hold
├── InvalidRequest               the client's request cannot be served as it was sent
│   ├── MalformedHttp            no HTTP/1.x, or one that others might read differently
│   ├── HeadTooLarge
│   ├── RequestTooSlow           its head or body did not arrive in time
│   ├── BodyTooLarge
│   ├── UnsupportedMediaType
│   ├── UnsupportedContentEncoding
│   ├── UnsupportedExpectation
│   ├── IdempotencyKeyReused     with another body than the first time
│   ├── IdempotentAnswerNotKept  the request was carried out, but its answer was too large to be sent again
│   ├── IdempotentRequestRunning another worker or gateway is still at it
│   ├── TokenLimitExceeded
│   └── NoSuitableDeployment     no deployment of the model can do what the request needs
├── InvalidConfiguration         a configuration that was to be loaded cannot be used
├── NotAuthenticated             no key, or not one of ours
├── NotAllowed                   the caller is known, but may not do this
│   ├── ModelNotAllowed          nor use this model
│   └── FieldNotAllowed          nor send this field, which could choose another one
├── Exceeded                     the caller has had as much as it may
│   ├── BudgetExceeded
│   └── RateLimited
├── RouteNotFound                no such path
├── MethodNotAllowed             the path exists, the method does not
├── ModelNotFound                no provider serves that model
├── RequestNotFound              no such request is booked
├── ObjectNotFound               nothing of that name is administered, or it is not the caller's to see
├── AlreadyThere                 a name is taken
├── NotServing                   the gateway itself cannot take the request now
│   ├── Overloaded               it serves as many as it can already
│   ├── LedgerFull               a row could not be promised, so nothing is sent upstream
│   ├── CircuitOpen              the upstream failed too often; it is left alone for a while
│   ├── DeploymentBusy           it has as many calls as it may have, and enough wait already
│   └── NoDeploymentAvailable    no deployment of the model may be asked now
├── DeadlineExceeded             the request's time was up before an upstream could be asked
├── AllProvidersFailed           every candidate of a plan with fallbacks failed
└── UpstreamError                the upstream answered with an error, or not at all
    ├── TransientUpstreamError   429, 5xx, time-outs, lost connections: worth another try
    ├── PermanentUpstreamError   everything else
    │   └── InvalidUpstreamAnswer    a 2xx whose body is not a chat completion
    └── StreamBroken             the answer stopped after its first bytes had been relayed
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.domain.error_words import says_content_policy, says_context_window


class GatewayError(Exception):
    """Root of all errors that the gateway raises on purpose."""


class InvalidValue(GatewayError, ValueError):
    """A value object refused its argument."""


class InvalidRequest(GatewayError):
    """The client's request cannot be served as sent.

    `param` is the path of the offending field (`messages[0].role`), None if it is none in particular.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class MalformedHttp(InvalidRequest):
    """The request is refused before anybody looks at what it asks for. `reason` is a word for logs."""

    def __init__(self, message: str, reason: str = "framing") -> None:
        super().__init__(message)
        self.reason = reason


class HeadTooLarge(InvalidRequest):
    """The request line and headers, or one of them, are more than the gateway takes."""

    def __init__(self, limit: int, unit: str = "bytes") -> None:
        super().__init__(f"The request's head or one of its lines is larger than the limit of {limit} {unit}.")


class RequestTooSlow(InvalidRequest):
    """The client took too long to send its request."""


class BodyTooLarge(InvalidRequest):
    """The body is longer than the gateway takes."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"Request body is larger than the limit of {limit_bytes} bytes (MAX_BODY_BYTES).",
            code="request_too_large",
        )


class UnsupportedMediaType(InvalidRequest):
    """The body's content type is not JSON."""


class UnsupportedContentEncoding(InvalidRequest):
    """The body is compressed; the gateway relays bytes and does not unpack them."""


class UnsupportedExpectation(InvalidRequest):
    """The request has an Expect header that asks for something other than 100-continue."""


class IdempotencyKeyReused(InvalidRequest):
    """The key came before, with another body."""

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used with another request body before. "
            "Send the same bytes again, or a new key for a new request.",
            code="idempotency_key_reused",
        )


class IdempotentAnswerNotKept(InvalidRequest):
    """The key came before, and there is no room for the answer that it got."""

    def __init__(self) -> None:
        super().__init__(
            "A request with this Idempotency-Key was carried out, but its answer was too large to be kept. "
            "Send a new key to carry the request out once more.",
            code="idempotent_answer_not_kept",
        )


class IdempotentRequestRunning(InvalidRequest):
    """The key came before, to another process, and its answer cannot be had from there (yet)."""

    def __init__(self) -> None:
        super().__init__(
            "A request with this Idempotency-Key is being carried out, or its answer cannot be reached just now. "
            "Send it again later.",
            code="idempotent_request_running",
        )


class TokenLimitExceeded(InvalidRequest):
    """The estimated prompt is longer than any model of the `auto` policy takes."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(
            f"Token count {count} exceeds limit {limit}",
            param="messages",
            code="context_length_exceeded",
        )
        self.count = count
        self.limit = limit


class NoSuitableDeployment(InvalidRequest):
    """No deployment can do what the request needs. `reasons` says for each what it lacks."""

    def __init__(self, model: str, reasons: Sequence[tuple[str, str]]) -> None:
        super().__init__(
            f"No deployment of model '{model}' can serve this request: {_joined(reasons)}.",
            param="model",
            code="no_suitable_deployment",
        )
        self.reasons = tuple(reasons)


class InvalidConfiguration(GatewayError):
    """A configuration cannot be used; `problems` has a line for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("The configuration was not loaded, the last one stays in force: " + "; ".join(problems))
        self.problems = tuple(problems)


class NotAuthenticated(GatewayError):
    """The request carries no key, or one that the gateway does not know."""


class NotAllowed(GatewayError):
    """The caller is known, but may not do this."""


class ModelNotAllowed(NotAllowed):
    """The key, its team or its organisation may not use the model."""

    kind = "model_not_allowed"

    def __init__(self, model: str) -> None:
        super().__init__(f"This key may not use model '{model}'. GET /v1/models lists those that it may use.")
        self.model = model


class FieldNotAllowed(NotAllowed):
    """The key may use some models only, and the field could choose others."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"This key is limited to some models and may not send '{field}': {reason}.")
        self.field = field


class Exceeded(GatewayError):
    """The caller has had as much as it may; `retry_after_seconds` says when there is more, None if never.

    `headers` say how much there is and was, `scope` whose it is (key, team, …).
    """

    def __init__(
        self,
        message: str,
        retry_after_seconds: float | None,
        headers: Mapping[str, str] | None = None,
        scope: str | None = None,
    ) -> None:
        super().__init__(message)
        self.scope = scope
        self.retry_after_seconds = retry_after_seconds
        self.headers = dict(headers or {})


class BudgetExceeded(Exceeded):
    """What the request may cost does not fit into a budget; the message names it and says what is spent, what is
    reserved, and until when."""

    kind = "budget_exceeded"


class RateLimited(Exceeded):
    """A rate limit has nothing left for the request now."""

    kind = "rate_limit_exceeded"


class RouteNotFound(GatewayError):
    """No handler for that path."""


class MethodNotAllowed(GatewayError):
    """The path takes other methods: `allowed`."""

    def __init__(self, method: str, path: str, allowed: Sequence[str]) -> None:
        super().__init__(f"Method {method} is not allowed for {path}; use {', '.join(allowed)}.")
        self.allowed = tuple(allowed)


class ModelNotFound(GatewayError):
    """No provider serves the model."""

    def __init__(self, model: str) -> None:
        super().__init__(f"Model '{model}' not found in any provider")
        self.model = model


class RequestNotFound(GatewayError):
    """No row of the ledger has that id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"No request '{request_id}' is booked. A row is found a moment after its request has ended, and until "
            "retention takes it."
        )


class ObjectNotFound(GatewayError):
    """Nothing of that kind (`key`) and name is administered, or it is not the caller's to see."""

    def __init__(self, kind: str, named: str) -> None:
        super().__init__(f"There is no {kind} '{named}'.")
        self.kind = kind


class AlreadyThere(GatewayError):
    """Something else has that name, or that hash. `param` is the field, None if it is none in particular."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotServing(GatewayError):
    """The gateway cannot take the request now; `retry_after_seconds` says when to come back."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Overloaded(NotServing):
    """The gateway has as much to do as it can do in time."""


class LedgerFull(NotServing):
    """The ledger cannot promise to book one more request."""


class CircuitOpen(NotServing):
    """The circuit breaker of a deployment refuses calls until its cool-down is over."""

    def __init__(self, deployment: str, retry_after_seconds: float) -> None:
        super().__init__(
            f"Provider '{deployment}' is unavailable: its circuit breaker is open after repeated failures.",
            retry_after_seconds,
        )
        self.deployment = deployment


class DeploymentBusy(NotServing):
    """A deployment has as many calls as it may have at a time, and no place became free."""

    def __init__(self, deployment: str, reason: str, retry_after_seconds: float) -> None:
        super().__init__(f"Provider '{deployment}' is busy: {reason}.", retry_after_seconds)
        self.deployment = deployment


class NoDeploymentAvailable(NotServing):
    """No deployment may be asked now. `reasons` says for each why; one of them may be asked again after the wait."""

    def __init__(self, model: str, reasons: Sequence[tuple[str, str]], retry_after_seconds: float) -> None:
        super().__init__(f"No deployment of model '{model}' is available now: {_joined(reasons)}.", retry_after_seconds)
        self.reasons = tuple(reasons)


def _joined(reasons: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{deployment}: {reason}" for deployment, reason in reasons)


class DeadlineExceeded(GatewayError):
    """The request's time was up before an upstream could be asked (again)."""


@dataclass(eq=False)
class UpstreamError(GatewayError):
    """The upstream failed a call.

    `status` is the upstream's HTTP status (or the code inside a 200 answer's error body), None when there was no
    answer. `body` holds the bytes that came. `kind` is a short stable word for logs and the ledger (`http_429`,
    `timeout`, `connection`, `invalid_answer`, …). `details` are the members of the upstream's error object,
    and `beside` what stands next to it and was asked for by the client. `is_final` is True where the upstream itself
    says that asking it again is in vain.
    """

    message: str
    status: int | None = None
    kind: str = "upstream_error"
    provider: str = ""
    body: bytes = b""
    details: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after_seconds: float | None = None
    is_final: bool = False
    beside: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.message)
        self.retries_exhausted = False

    @property
    def is_context_window(self) -> bool:
        """Whether the prompt does not fit the model's context window: a model with a larger one may take it."""
        return says_context_window(self.status, self.message, self.details)

    @property
    def is_content_policy(self) -> bool:
        """Whether a filter or policy refused the content: another provider's may not."""
        return says_content_policy(self.status, self.message, self.details)


class TransientUpstreamError(UpstreamError):
    """429, any 5xx, a time-out or a lost connection: another attempt may succeed."""


class PermanentUpstreamError(UpstreamError):
    """The upstream refused the request; sending it again would change nothing."""


class InvalidUpstreamAnswer(PermanentUpstreamError):
    """The upstream answered 2xx with something that is not a chat completion."""


class StreamBroken(UpstreamError):
    """A stream ended before its end. `told` is True when the upstream itself has said so in an error event."""

    told: bool = False


class AllProvidersFailed(GatewayError):
    """Every candidate was tried. `attempted` has their models in order, `deployments` where each was tried, and
    `failures` why it failed."""

    def __init__(
        self, attempted: Sequence[str], failures: Sequence[GatewayError] = (), deployments: Sequence[str] = ()
    ) -> None:
        super().__init__(f"All providers failed: {', '.join(attempted)}")
        self.attempted = tuple(attempted)
        self.failures = tuple(failures)
        self.deployments = tuple(deployments)


def reasons_among(failures: Iterable[BaseException | None]) -> list[GatewayError]:
    """Without those whose dialect has no words for a request: they are no reason why it failed elsewhere."""
    return [each for each in failures if isinstance(each, GatewayError) and not isinstance(each, InvalidRequest)]


def kind_of(error: GatewayError) -> str:
    """A short stable word for logs and the ledger. Never the message: an upstream may quote the prompt in it."""
    return getattr(error, "kind", None) or getattr(error, "code", None) or type(error).__name__


_FIRST_SERVER_ERROR = 500
_TOO_MANY_REQUESTS = 429


def is_transient_status(status: int) -> bool:
    """429 and every 5xx, also the non-standard ones (520-524 edge, 529 overloaded)."""
    return status == _TOO_MANY_REQUESTS or status >= _FIRST_SERVER_ERROR
