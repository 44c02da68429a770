"""From the gateway's errors to OpenAI's error object: the one place that gives HTTP statuses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from aiohttp import web

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
    reasons_among,
)

# Status and `code` of each error; an UpstreamError keeps the upstream's own status where the table says None.
TABLE: Mapping[type[GatewayError], tuple[int | None, str | None]] = {
    InvalidValue: (400, "invalid_value"),
    InvalidRequest: (400, "invalid_request"),
    TokenLimitExceeded: (400, "context_length_exceeded"),
    NoSuitableDeployment: (400, "no_suitable_deployment"),
    MalformedHttp: (400, "malformed_request"),
    HeadTooLarge: (431, "request_head_too_large"),
    RequestTooSlow: (408, "request_incomplete"),
    BodyTooLarge: (413, "request_too_large"),
    UnsupportedMediaType: (415, "unsupported_media_type"),
    UnsupportedContentEncoding: (415, "unsupported_content_encoding"),
    UnsupportedExpectation: (417, "unsupported_expectation"),
    IdempotencyKeyReused: (422, "idempotency_key_reused"),
    IdempotentAnswerNotKept: (409, "idempotent_answer_not_kept"),
    IdempotentRequestRunning: (409, "idempotent_request_running"),
    NotAuthenticated: (401, "invalid_api_key"),
    NotAllowed: (403, "permission_denied"),
    ModelNotAllowed: (403, "model_not_allowed"),
    FieldNotAllowed: (403, "permission_denied"),
    Exceeded: (429, "rate_limit_exceeded"),
    BudgetExceeded: (429, "budget_exceeded"),
    RateLimited: (429, "rate_limit_exceeded"),
    RouteNotFound: (404, "unknown_url"),
    MethodNotAllowed: (405, "method_not_allowed"),
    ModelNotFound: (404, "model_not_found"),
    InvalidConfiguration: (422, "invalid_configuration"),
    RequestNotFound: (404, "request_not_found"),
    ObjectNotFound: (404, "not_found"),
    AlreadyThere: (409, "already_there"),
    NotServing: (503, "service_unavailable"),
    Overloaded: (503, "gateway_overloaded"),
    LedgerFull: (503, "ledger_full"),
    CircuitOpen: (503, "provider_unavailable"),
    DeploymentBusy: (503, "provider_busy"),
    NoDeploymentAvailable: (503, "no_deployment_available"),
    DeadlineExceeded: (504, "request_timeout"),
    AllProvidersFailed: (502, "all_providers_failed"),
    UpstreamError: (None, "upstream_error"),
    TransientUpstreamError: (None, "upstream_error"),
    PermanentUpstreamError: (None, "upstream_error"),
    InvalidUpstreamAnswer: (502, "invalid_upstream_answer"),
    StreamBroken: (502, "stream_broken"),
    GatewayError: (500, "internal_error"),
}

_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    408: "timeout_error",
    429: "rate_limit_error",
}
_UNAUTHORIZED, _BAD_GATEWAY, _GATEWAY_TIMEOUT = 401, 502, 504
_FIRST_CLIENT_ERROR, _FIRST_SERVER_ERROR, _LAST_ERROR = 400, 500, 599
_RATE_LIMITED, _UNAVAILABLE = 429, 503
_DEFAULT_RETRY_AFTER_SECONDS = 1
_NO_RETRY = {"x-should-retry": "false"}
_CHALLENGE = {"WWW-Authenticate": "Bearer"}  # RFC 9110, 15.5.2; some clients take a 401 without for a broken answer


def status_of(error: GatewayError) -> int:
    """The HTTP status that tells a client of this error."""
    if isinstance(error, AllProvidersFailed):
        if _nobody_was_asked(error):
            return _UNAVAILABLE
        reasons = reasons_among(error.failures)
        if reasons and all(_is_rate_limit(failure) for failure in reasons):
            return _RATE_LIMITED
    status, _ = _row(error)
    if status is not None or not isinstance(error, UpstreamError):
        return status or _FIRST_SERVER_ERROR
    if error.status is None:
        return _GATEWAY_TIMEOUT if error.kind == "timeout" else _BAD_GATEWAY
    if error.status == _UNAUTHORIZED or not _FIRST_CLIENT_ERROR <= error.status <= _LAST_ERROR:
        return _BAD_GATEWAY  # 401 is about the gateway's own key: the client's is good
    return error.status


def error_object(error: GatewayError) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`, with whatever else the upstream's error object had, and with what the
    client had asked to stand beside it."""
    status = status_of(error)
    _, code = _row(error)
    members: dict[str, Any] = {"message": str(error), "type": error_type(status), "param": None, "code": code}
    if isinstance(error, InvalidRequest):
        members |= {"param": error.param, "code": error.code or code}
    elif isinstance(error, AlreadyThere):
        members["param"] = error.param
    elif isinstance(error, ModelNotAllowed):
        members["param"] = "model"
    elif isinstance(error, FieldNotAllowed):
        members["param"] = error.field
    elif isinstance(error, InvalidConfiguration):
        members["problems"] = list(error.problems)
    elif isinstance(error, AllProvidersFailed):
        members["metadata"] = {"attempts": _attempts(error)}
    elif isinstance(error, UpstreamError) and error.status == _UNAUTHORIZED:
        members |= {
            "message": f"{error.provider} rejected the gateway's own API key. Your key is fine; tell the operator.",
            "code": "upstream_authentication_failed",
        }
    elif isinstance(error, UpstreamError):
        members |= _sound(error.details) | {"message": str(error)}
        return {"error": members, **error.beside}
    return {"error": members}


def _attempts(error: AllProvidersFailed) -> list[dict[str, Any]]:
    attempts = zip_longest(error.attempted, error.deployments[: len(error.attempted)], error.failures)
    return [
        {
            "model": model,
            "deployment": deployment,
            "status": failure.status if isinstance(failure, UpstreamError) else None,
            "error": str(failure),
        }
        for model, deployment, failure in attempts
        if failure is not None
    ]


def _sound(details: Mapping[str, Any]) -> dict[str, Any]:
    """The upstream's members, but for those of OpenAI's own names that are not of OpenAI's types."""
    forms: dict[str, tuple[type, ...]] = {"type": (str,), "param": (str,), "code": (str, int)}
    return {
        name: value
        for name, value in details.items()
        if name not in forms or (isinstance(value, forms[name]) and not isinstance(value, bool))
    }


def error_type(status: int) -> str:
    """OpenAI's word for errors of that status."""
    if status >= _FIRST_SERVER_ERROR:
        return "server_error"
    return _TYPES.get(status, "invalid_request_error")


def error_headers(error: GatewayError) -> Mapping[str, str]:  # noqa: PLR0911  # one answer for each kind
    """Retry-After where coming back later helps; `x-should-retry: false` where the gateway has retried already.

    The OpenAI SDKs obey both; without the latter 4 attempts here become 12.
    """
    if isinstance(error, NotAuthenticated):
        return _CHALLENGE
    if isinstance(error, MethodNotAllowed):
        return {"Allow": ", ".join(error.allowed)}
    if isinstance(error, IdempotentAnswerNotKept):
        return _NO_RETRY  # the SDKs would: they take any 409 for a lock
    if isinstance(error, IdempotentRequestRunning):
        return _retry_after(_DEFAULT_RETRY_AFTER_SECONDS)
    if isinstance(error, NotServing):
        return _retry_after(error.retry_after_seconds)
    if isinstance(error, Exceeded):
        return {**error.headers, **_retry_after(error.retry_after_seconds)}
    if isinstance(error, UpstreamError):
        wait = error.retry_after_seconds
        if wait is None and not error.is_final and status_of(error) in (_RATE_LIMITED, _UNAVAILABLE):
            wait = _DEFAULT_RETRY_AFTER_SECONDS
        return {**error.headers, **_retry_after(wait), **(_NO_RETRY if error.retries_exhausted else {})}
    if isinstance(error, AllProvidersFailed):
        waits = [wait for failure in error.failures if (wait := _wait_of(failure)) is not None]
        return _retry_after(min(waits)) if waits and status_of(error) != _BAD_GATEWAY else _NO_RETRY
    return {}


def _retry_after(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}


def _is_rate_limit(failure: GatewayError) -> bool:
    return isinstance(failure, UpstreamError) and failure.status == _RATE_LIMITED


def _wait_of(failure: GatewayError) -> float | None:
    return failure.retry_after_seconds if isinstance(failure, NotServing | UpstreamError) else None


def _nobody_was_asked(error: AllProvidersFailed) -> bool:
    reasons = reasons_among(error.failures)
    return bool(reasons) and all(isinstance(failure, NotServing) for failure in reasons)


def error_response(error: GatewayError) -> web.Response:
    """The whole answer to a request that ends with this error, before anything else was sent."""
    return json_error(status_of(error), error_object(error), error_headers(error))


def json_error(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    """An error answer. Lone surrogates stay escapes, so that any text can be sent."""
    return web.Response(status=status, text=json.dumps(body), content_type="application/json", headers=headers)


def error_event(error: GatewayError) -> bytes:
    """The server-sent event that tells of an error in the middle of a stream; both OpenAI SDKs raise on it.

    It begins with a blank line, in case what came before did not end with one.
    """
    return b"\n\ndata: " + json.dumps(error_object(error)).encode() + b"\n\n"


def _row(error: GatewayError) -> tuple[int | None, str | None]:
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
