"""From what an upstream sent instead of an answer to the error that says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from proxy.domain.errors import (
    InvalidUpstreamAnswer,
    PermanentUpstreamError,
    TransientUpstreamError,
    UpstreamError,
    is_transient_status,
)
from proxy.infrastructure.chat_completion.usage import look

_MESSAGE_CHARACTERS = 4000
_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_\-]{8,}|\bBearer\s+[^\s\"']+")
_FIRST_ERROR_STATUS, _LAST_ERROR_STATUS = 400, 599
_BAD_GATEWAY = 502
_MILLISECONDS = 1000.0
_STATUS_DIGITS = 4
_MOST_LEVELS = 32


class UpstreamErrors:
    """Makes the errors of one provider, with that provider's key and anything that looks like a key blotted out."""

    def __init__(self, provider: str, secrets: tuple[str, ...] = ()) -> None:
        self._provider = provider
        self._secrets = tuple(secret for secret in secrets if secret)

    def from_response(
        self, status: int, headers: Mapping[str, str], body: bytes, relayed: Mapping[str, str]
    ) -> UpstreamError:
        """The error in an answer with an error status. `relayed` are the headers that the client may see."""
        details = self._error_object(body)
        if details is None:
            details = {"message": f"{self._provider} answered HTTP {status} without a JSON error body."}
        kind = TransientUpstreamError if is_transient_status(status) else PermanentUpstreamError
        return self._make(kind, status, f"http_{status}", details, body, headers, relayed)

    def from_error_member(
        self, details: Mapping[str, Any], body: bytes, headers: Mapping[str, str], relayed: Mapping[str, str]
    ) -> UpstreamError:
        """The error inside a 200 answer or a stream's event; its status is the error's own `code`, else 502."""
        code = details.get("code")
        if isinstance(code, str) and code.isdecimal():
            code = int(code[:_STATUS_DIGITS])
        known = isinstance(code, int) and _FIRST_ERROR_STATUS <= code <= _LAST_ERROR_STATUS
        status = code if known and isinstance(code, int) else _BAD_GATEWAY
        kind = TransientUpstreamError if is_transient_status(status) else PermanentUpstreamError
        return self._make(kind, status, f"error_in_answer_{status}", details, body, headers, relayed)

    def invalid(self, reason: str, body: bytes) -> InvalidUpstreamAnswer:
        """A 2xx answer that is not a completion."""
        return InvalidUpstreamAnswer(
            f"{self._provider} sent an answer that is not a chat completion: {reason}",
            kind="invalid_answer",
            provider=self._provider,
            body=body,
        )

    def timeout(self, what: str, seconds: float) -> TransientUpstreamError:
        return TransientUpstreamError(
            f"{self._provider} {what} within {seconds:g} s.", kind="timeout", provider=self._provider
        )

    def out_of_time(self) -> TransientUpstreamError:
        """The whole request's time is up, whatever the upstream was doing."""
        return TransientUpstreamError(
            f"{self._provider} did not answer within the request's time.", kind="timeout", provider=self._provider
        )

    def unreachable(self, problem: BaseException) -> TransientUpstreamError:
        """The connection could not be made, or was lost. The reason names the kind of trouble, not addresses."""
        return TransientUpstreamError(
            f"Connection to {self._provider} failed ({type(problem).__name__}).",
            kind="connection",
            provider=self._provider,
        )

    def _make(
        self,
        kind: type[UpstreamError],
        status: int,
        word: str,
        details: Mapping[str, Any],
        body: bytes,
        headers: Mapping[str, str],
        relayed: Mapping[str, str],
    ) -> UpstreamError:
        clean: dict[str, Any] = self._redact(dict(details))
        message = clean.get("message")
        if not isinstance(message, str) or not message:
            message = f"{self._provider} answered HTTP {status}."
        return kind(
            message,
            status=status,
            kind=word,
            provider=self._provider,
            body=body,
            details=clean,
            headers=relayed,
            retry_after_seconds=retry_after_seconds(headers),
        )

    def _error_object(self, body: bytes) -> dict[str, Any] | None:
        answer = look(body)
        error = answer.get("error") if isinstance(answer, dict) else None
        if isinstance(error, dict):
            return error
        if isinstance(error, str) and error:
            return {"message": error}
        return None

    def _redact(self, value: Any, depth: int = 0) -> Any:
        if depth > _MOST_LEVELS:
            return None
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, "[redacted]")
            return _KEY_LIKE.sub("[redacted]", value)[:_MESSAGE_CHARACTERS]
        if isinstance(value, list):
            return [self._redact(item, depth + 1) for item in value]
        if isinstance(value, dict):
            return {self._redact(key): self._redact(item, depth + 1) for key, item in value.items()}
        return value


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """The wait that `retry-after-ms` or `Retry-After` asks for, None without one that makes sense.

    Retry-After is a number of seconds or an HTTP date (RFC 9110, section 10.2.3).
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / _MILLISECONDS
    text = headers.get("Retry-After")
    if text is None:
        return None
    seconds = _number(text)
    if seconds is not None:
        return seconds
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
