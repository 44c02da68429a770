"""Messages and facts of every error that the domain names."""

from __future__ import annotations

import pytest

from proxy.domain import errors
from proxy.domain.errors import (
    AllProvidersFailed,
    AlreadyThere,
    BodyTooLarge,
    BudgetExceeded,
    CircuitOpen,
    DeadlineExceeded,
    DeploymentBusy,
    Exceeded,
    FieldNotAllowed,
    GatewayError,
    HeadTooLarge,
    IdempotencyKeyReused,
    IdempotentAnswerNotKept,
    IdempotentRequestRunning,
    InvalidConfiguration,
    InvalidRequest,
    InvalidUpstreamAnswer,
    InvalidValue,
    LedgerFull,
    MalformedHttp,
    MethodNotAllowed,
    ModelNotAllowed,
    ModelNotFound,
    NoDeploymentAvailable,
    NoSuitableDeployment,
    NotAllowed,
    NotAuthenticated,
    NotServing,
    ObjectNotFound,
    Overloaded,
    PermanentUpstreamError,
    RateLimited,
    RequestNotFound,
    RequestTooSlow,
    RouteNotFound,
    StreamBroken,
    TokenLimitExceeded,
    TransientUpstreamError,
    UnsupportedContentEncoding,
    UnsupportedExpectation,
    UnsupportedMediaType,
    UpstreamError,
    is_transient_status,
)

TREE: dict[type[GatewayError], type[Exception]] = {
    GatewayError: Exception,
    InvalidValue: GatewayError,
    InvalidConfiguration: GatewayError,
    InvalidRequest: GatewayError,
    MalformedHttp: InvalidRequest,
    HeadTooLarge: InvalidRequest,
    RequestTooSlow: InvalidRequest,
    BodyTooLarge: InvalidRequest,
    UnsupportedMediaType: InvalidRequest,
    UnsupportedContentEncoding: InvalidRequest,
    UnsupportedExpectation: InvalidRequest,
    IdempotencyKeyReused: InvalidRequest,
    IdempotentAnswerNotKept: InvalidRequest,
    IdempotentRequestRunning: InvalidRequest,
    TokenLimitExceeded: InvalidRequest,
    NoSuitableDeployment: InvalidRequest,
    NotAuthenticated: GatewayError,
    NotAllowed: GatewayError,
    ModelNotAllowed: NotAllowed,
    FieldNotAllowed: NotAllowed,
    Exceeded: GatewayError,
    BudgetExceeded: Exceeded,
    RateLimited: Exceeded,
    RouteNotFound: GatewayError,
    MethodNotAllowed: GatewayError,
    ModelNotFound: GatewayError,
    RequestNotFound: GatewayError,
    ObjectNotFound: GatewayError,
    AlreadyThere: GatewayError,
    NotServing: GatewayError,
    Overloaded: NotServing,
    LedgerFull: NotServing,
    CircuitOpen: NotServing,
    DeploymentBusy: NotServing,
    NoDeploymentAvailable: NotServing,
    DeadlineExceeded: GatewayError,
    AllProvidersFailed: GatewayError,
    UpstreamError: GatewayError,
    TransientUpstreamError: UpstreamError,
    PermanentUpstreamError: UpstreamError,
    InvalidUpstreamAnswer: PermanentUpstreamError,
    StreamBroken: UpstreamError,
}


def test_every_error_stands_in_the_tree() -> None:
    """Handlers catch by branch: an error that moves, or a new one, changes what clients are told."""
    named = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert named == set(TREE)
    assert {error: error.__bases__[0] for error in named} == TREE


def test_every_error_stands_in_the_drawing() -> None:
    drawing = errors.__doc__ or ""
    assert [error.__name__ for error in TREE if error.__name__ not in drawing] == []


REASONS = [("a", "no vision"), ("b", "breaker open, 12 s left")]


def test_no_suitable_deployment_says_what_each_lacks() -> None:
    error = NoSuitableDeployment("m", REASONS)
    assert str(error) == (
        "No deployment of model 'm' can serve this request: a: no vision; b: breaker open, 12 s left."
    )
    assert (error.param, error.code, error.reasons) == ("model", "no_suitable_deployment", tuple(REASONS))


def test_no_deployment_available_says_why_and_when_to_come_back() -> None:
    error = NoDeploymentAvailable("m", REASONS, 12.0)
    assert str(error) == "No deployment of model 'm' is available now: a: no vision; b: breaker open, 12 s left."
    assert (error.retry_after_seconds, error.reasons) == (12.0, tuple(REASONS))


@pytest.mark.parametrize(
    ("attempted", "message"),
    [
        (["a", "b"], "All providers failed: a, b"),
        (["a"], "All providers failed: a"),
        (["z-ai/glm-4.6", "b/c", "d"], "All providers failed: z-ai/glm-4.6, b/c, d"),
    ],
)
def test_all_providers_failed_names_what_was_attempted_in_order(attempted: list[str], message: str) -> None:
    error = AllProvidersFailed(attempted)
    assert str(error) == message
    assert error.attempted == tuple(attempted)
    assert error.failures == ()


def test_all_providers_failed_keeps_the_reasons_and_not_the_list() -> None:
    attempted, reasons = ["a"], [CircuitOpen("OpenRouter", 1)]
    error = AllProvidersFailed(attempted, reasons)
    attempted.append("b")
    assert error.attempted == ("a",)
    assert error.failures == tuple(reasons)


def test_model_not_found() -> None:
    error = ModelNotFound("x/y")
    assert str(error) == "Model 'x/y' not found in any provider"
    assert error.model == "x/y"


def test_token_limit_exceeded() -> None:
    error = TokenLimitExceeded(200_001, 200_000)
    assert str(error) == "Token count 200001 exceeds limit 200000"
    assert (error.count, error.limit) == (200_001, 200_000)
    assert (error.param, error.code) == ("messages", "context_length_exceeded")


def test_invalid_request_points_at_its_field() -> None:
    error = InvalidRequest("no", param="messages[0].role", code="invalid_value")
    assert (str(error), error.param, error.code) == ("no", "messages[0].role", "invalid_value")
    assert (InvalidRequest("no").param, InvalidRequest("no").code) == (None, None)


def test_body_too_large_names_the_limit_and_the_setting() -> None:
    error = BodyTooLarge(1024)
    assert str(error) == "Request body is larger than the limit of 1024 bytes (MAX_BODY_BYTES)."
    assert error.code == "request_too_large"


def test_method_not_allowed_names_what_is() -> None:
    error = MethodNotAllowed("PUT", "/v1/models", ["GET", "HEAD"])
    assert str(error) == "Method PUT is not allowed for /v1/models; use GET, HEAD."
    assert error.allowed == ("GET", "HEAD")


def test_circuit_open_says_who_and_for_how_long() -> None:
    error = CircuitOpen("OpenRouter", 12.5)
    assert str(error) == "Provider 'OpenRouter' is unavailable: its circuit breaker is open after repeated failures."
    assert (error.deployment, error.retry_after_seconds) == ("OpenRouter", 12.5)


def test_ledger_full_says_when_to_come_back() -> None:
    error = LedgerFull("full", 5.0)
    assert (str(error), error.retry_after_seconds) == ("full", 5.0)


@pytest.mark.parametrize(
    "kind", [UpstreamError, TransientUpstreamError, PermanentUpstreamError, InvalidUpstreamAnswer, StreamBroken]
)
def test_upstream_errors_carry_what_came(kind: type[UpstreamError]) -> None:
    error = kind("down", status=503, body=b"x", details={"code": 503}, headers={"a": "b"}, retry_after_seconds=2.0)
    assert str(error) == "down"
    assert (error.status, error.body, error.details, error.headers) == (503, b"x", {"code": 503}, {"a": "b"})
    assert error.retry_after_seconds == 2.0
    assert error.retries_exhausted is False


def test_upstream_errors_without_an_answer_have_no_status() -> None:
    error = TransientUpstreamError("no connection")
    assert (error.status, error.body, error.details, error.headers) == (None, b"", {}, {})
    assert error.retry_after_seconds is None


def test_upstream_errors_are_themselves_and_never_equal_to_a_twin() -> None:
    error = TransientUpstreamError("same")
    assert error != TransientUpstreamError("same")
    assert len({error, TransientUpstreamError("same")}) == 2


def test_a_broken_stream_is_told_by_us_unless_the_upstream_has() -> None:
    assert StreamBroken("cut").told is False


@pytest.mark.parametrize("status", [429, 500, 501, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529, 530, 598, 599])
def test_rate_limit_and_every_server_error_are_transient(status: int) -> None:
    assert is_transient_status(status)


@pytest.mark.parametrize(
    "status", [200, 301, 307, 400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 428, 430, 451, 499]
)
def test_other_statuses_are_not_transient(status: int) -> None:
    assert not is_transient_status(status)
