"""The forms in which servers that call themselves OpenAI-compatible tell of errors, made one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy.infrastructure.chat_completion.reading import look

_FIRST_ERROR_STATUS, _LAST_ERROR_STATUS = 400, 599
_STATUS_DIGITS = 4
# Of MiniMax's numbers those that mean something else than a failure of its own.
_STATUS_BY_NUMBER = {
    1002: 429,  # rate limit
    1004: 401,  # not authorized
    1008: 402,  # insufficient balance
    1026: 400,  # input is sensitive
    1027: 400,  # output is sensitive
    1039: 429,  # token limit
    1041: 429,  # connection limit
    1042: 400,  # too many invisible characters
    2013: 400,  # invalid parameters
    2045: 429,  # rate growth limit
    2049: 401,  # invalid API key
    2056: 429,  # usage limit of a plan
}
_SENSITIVE = (1026, 1027)
_BAD_GATEWAY = 502
_SECONDS = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s")


def error_details(body: bytes) -> dict[str, Any] | None:
    """The members of the error object in an error answer; None if there is nothing of the kind.

    Known: OpenAI's `{"error": {…}}`, also in an array (Gemini) or as plain text (Ollama, TGI); the bare object (vLLM,
    Mistral, API gateways) with its message in words or another object; FastAPI's `{"detail": …}`; Cloudflare's
    `{"errors": [{…}]}`.
    """
    answer = look(body)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    error = answer.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str) and error:
        return {"message": error}
    message = answer.get("message")
    if isinstance(message, dict):
        return _without_envelope(answer) | (_from_detail(message.get("detail")) or {"message": None})
    if isinstance(message, str) and message:
        return _without_envelope(answer)
    return _from_detail(answer.get("detail")) or _from_list(answer.get("errors"))


def base_resp_error(base_resp: bytes) -> dict[str, Any] | None:
    """The error in MiniMax's `{"status_code": 1002, "status_msg": "rate limit"}`, with which it answers 200; None if it
    tells of none."""
    told = look(base_resp)
    number = told.get("status_code") if isinstance(told, dict) else None
    if type(number) is not int or number == 0:
        return None
    return {
        "message": told.get("status_msg"),
        "code": "content_filter" if number in _SENSITIVE else str(number),
        "http_status": _STATUS_BY_NUMBER.get(number, _BAD_GATEWAY),
    }


def status_in(details: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error inside a 200 answer gives itself: as its `code`, or as its `status` (Azure)."""
    for name in ("code", "status", "http_status"):
        value = details.get(name)
        if isinstance(value, str) and value.isdecimal():
            value = int(value[:_STATUS_DIGITS])
        if isinstance(value, int) and _FIRST_ERROR_STATUS <= value <= _LAST_ERROR_STATUS:
            return value
    return None


def retry_delay_seconds(details: Mapping[str, Any]) -> float | None:
    """The wait that Google's RetryInfo asks for (`"retryDelay": "34.07s"`), which has no header of its own."""
    parts = details.get("details")
    for part in parts if isinstance(parts, list) else ():
        delay = part.get("retryDelay") if isinstance(part, dict) else None
        if isinstance(delay, str) and (seconds := _SECONDS.fullmatch(delay)):
            return float(seconds[1])
    return None


def _without_envelope(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "object"}


def _from_detail(detail: Any) -> dict[str, Any] | None:
    """FastAPI's: words, an object with a message, or a list of what is wrong with which field."""
    if isinstance(detail, str) and detail:
        return {"message": detail}
    if isinstance(detail, dict):
        inner = detail.get("error")
        return inner if isinstance(inner, dict) else detail
    problems = [problem for problem in detail if isinstance(problem, dict)] if isinstance(detail, list) else []
    if not problems:
        return None
    texts = [f"{_field(problem)}: {problem.get('msg')}" for problem in problems]
    return {"message": "; ".join(texts), "param": _field(problems[0])}


def _from_list(errors: Any) -> dict[str, Any] | None:
    """All that they say, with whatever else the first one has."""
    told = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    texts = [text for error in told if isinstance(text := error.get("message"), str) and text]
    return told[0] | {"message": "; ".join(texts)} if texts else None


def _field(problem: Mapping[str, Any]) -> str:
    place = problem.get("loc")
    names = [str(name) for name in place if name != "body"] if isinstance(place, list) else []
    return ".".join(names) or "body"
