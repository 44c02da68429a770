"""Errors of the admin API: application/problem+json (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from pydantic import ValidationError

from proxy.api.openai.errors import error_headers, error_object, status_of
from proxy.domain.errors import GatewayError, InvalidRequest

PREFIX: Final = "/admin"
_MOST_ERRORS = 50


def is_admin_path(path: str) -> bool:
    return path == PREFIX or path.startswith(f"{PREFIX}/")


class InvalidBody(InvalidRequest):
    """The body is not what the path takes; `errors` says of each field why."""

    def __init__(self, errors: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in errors[:5]), code="invalid_body")
        self.errors = tuple(errors[:_MOST_ERRORS])


def invalid_body(problem: ValidationError) -> InvalidBody:
    """Never with what was given: it may be a secret in the wrong place."""
    return InvalidBody(
        [
            (".".join(str(part) for part in each["loc"]) or "body", each["msg"].removeprefix("Value error, "))
            for each in problem.errors(include_url=False, include_context=False, include_input=False)
        ]
    )


def problem_response(error: GatewayError) -> web.Response:
    return problem(error_object(error), status_of(error), error)


def problem(openai: Mapping[str, Any], status: int, error: GatewayError | None = None) -> web.Response:
    """What the error object of the rest of the API says, in the standard form."""
    told = openai["error"]
    body: dict[str, Any] = {
        "type": f"urn:llmgateway:{told['code'] or 'error'}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": told["message"],
    }
    if isinstance(error, InvalidBody):
        body["errors"] = [{"field": field, "message": message} for field, message in error.errors]
    elif told.get("param"):
        body["errors"] = [{"field": told["param"], "message": told["message"]}]
    elif told.get("problems"):
        body["errors"] = [{"field": "configuration", "message": line} for line in told["problems"]]
    return web.Response(
        status=status,
        text=json.dumps(body),
        content_type="application/problem+json",
        headers=None if error is None else error_headers(error),
    )
