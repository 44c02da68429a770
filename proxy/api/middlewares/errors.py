"""The one place where exceptions become answers."""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.api.admin.problems import is_admin_path, problem, problem_response
from proxy.api.app_keys import EXCHANGE, REQUEST_ID
from proxy.api.openai.errors import error_object, error_response, error_type, json_error
from proxy.api.openai.unknown_paths import unknown_path
from proxy.application.tracing import short_trace
from proxy.domain.errors import BodyTooLarge, GatewayError, MethodNotAllowed, RouteNotFound
from proxy.domain.key_like import without_keys
from proxy.domain.raised import forget_where

_logger = logging.getLogger(__name__)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """OpenAI's error object for everything that is raised below."""
    try:
        return await handler(request)
    except Exception as raised:  # noqa: BLE001  # whatever it is, it is answered
        return error_answer(request, raised)


def error_answer(request: web.Request, raised: Exception) -> web.StreamResponse:
    """What is told of an exception: nothing of a defect but its request id.

    Raises ConnectionAbortedError where an answer has begun: another one within it would be taken for a part of it, so
    all that can be said is that it breaks off.
    """
    if request.writer.output_size:
        _logger.error("defect in an answer that has begun", exc_info=raised, extra=_facts(request))
        raise ConnectionAbortedError("the answer has begun") from raised
    response: web.Response
    if isinstance(raised, GatewayError):
        response = _told(request, raised)
    elif isinstance(raised, web.HTTPException):
        response = _from_aiohttp(request, raised)
    else:
        _logger.error("defect", exc_info=raised, extra=_facts(request))
        message = f"The gateway failed to handle this request. Request id: {request[REQUEST_ID]}"
        body = {"error": {"message": message, "type": "server_error", "param": None, "code": "internal_error"}}
        response = problem(body, 500) if is_admin_path(request.path) else json_error(500, body)
    if EXCHANGE in request:
        exchange = request[EXCHANGE]
        response.headers.update(exchange.admission.headers())
        response.headers["x-gateway-attempts"] = str(exchange.attempts)
        if exchange.walked:
            response.headers["x-gateway-trace"] = short_trace(exchange)
        forget_where(*(attempt.error for attempt in exchange.walked))
    if not request.content.is_eof() and request.can_read_body:
        response.force_close()  # an unread body must not be taken for the next request
    return response


def _facts(request: web.Request) -> dict[str, str]:
    return {"request_id": request[REQUEST_ID], "path": without_keys(request.path)}


def _told(request: web.Request, error: GatewayError) -> web.Response:
    """OpenAI's clients know its error object; the admin API's are told in the standard form."""
    return problem_response(error) if is_admin_path(request.path) else error_response(error)


def _not_found(request: web.Request) -> RouteNotFound:
    if is_admin_path(request.path):
        return RouteNotFound(f"Unknown path {request.path}; see /docs.")
    return unknown_path(request.path, {resource.canonical for resource in request.app.router.resources()})


def _from_aiohttp(request: web.Request, refusal: web.HTTPException) -> web.Response:
    """aiohttp raises for what its router and its parser refuse, with plain text bodies."""
    error: GatewayError | None = None
    if isinstance(refusal, web.HTTPMethodNotAllowed):
        error = MethodNotAllowed(request.method, request.path, sorted(refusal.allowed_methods))
    elif isinstance(refusal, web.HTTPNotFound):
        error = _not_found(request)
    elif isinstance(refusal, web.HTTPRequestEntityTooLarge):
        error = BodyTooLarge(request.client_max_size)
    if error is not None:
        return _told(request, error)
    body = error_object(GatewayError(refusal.reason))
    body["error"] |= {"type": error_type(refusal.status), "code": None}
    return problem(body, refusal.status) if is_admin_path(request.path) else json_error(refusal.status, body)
