"""From what an upstream sent instead of an answer to the error that says so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from proxy.domain.error_words import meant_status, says_content_policy, says_context_window
from proxy.domain.errors import (
    InvalidUpstreamAnswer,
    PermanentUpstreamError,
    TransientUpstreamError,
    UpstreamError,
    is_transient_status,
)
from proxy.domain.key_like import without_keys
from proxy.infrastructure.chat_completion.error_bodies import error_details, retry_delay_seconds, status_in
from proxy.infrastructure.chat_completion.reading import look

_MESSAGE_CHARACTERS = 4000
_BAD_REQUEST, _BAD_GATEWAY = 400, 502
_MILLISECONDS = 1000.0
_MOST_SECONDS = 86_400.0  # nobody means a longer wait
_MOST_LEVELS = 32
_ASKED_FOR = "openrouter_metadata"  # by the client's header X-OpenRouter-Metadata, which is sent on
_NO_MONEY = "insufficient_quota"  # OpenAI's, with 429: what is lacking is money, and no wait brings any


class UpstreamErrors:
    """Makes the errors of one provider, with that provider's key and anything that looks like a key blotted out."""

    def __init__(self, provider: str, secrets: tuple[str, ...] = ()) -> None:
        self._provider = provider
        self._secrets = tuple(secret for secret in secrets if secret)

    def from_response(
        self, status: int, headers: Mapping[str, str], body: bytes, relayed: Mapping[str, str]
    ) -> UpstreamError:
        """The error in an answer with an error status. `relayed` are the headers that the client may see."""
        details = error_details(body)
        if details is None:
            details = {"message": f"{self._provider} answered HTTP {status} without a JSON error body."}
        status = meant_status(status, details)
        return self._make(status, f"http_{status}", details, body, headers, relayed)

    def from_error_member(
        self, details: Mapping[str, Any], body: bytes, headers: Mapping[str, str], relayed: Mapping[str, str]
    ) -> UpstreamError:
        """The error inside a 200 answer or a stream's event; its status is the one that it gives itself, else 502."""
        status = status_in(details)
        if status is None:
            status = _BAD_REQUEST if _refuses_the_content(None, details) else _BAD_GATEWAY
        status = meant_status(status, details)
        return self._make(status, f"error_in_answer_{status}", details, body, headers, relayed)

    def invalid(self, reason: str, body: bytes) -> InvalidUpstreamAnswer:
        """A 2xx answer that is not a completion."""
        return InvalidUpstreamAnswer(
            f"{self._provider} sent an answer that is not a chat completion: {reason}",
            kind="invalid_answer",
            provider=self._provider,
            body=body,
        )

    def too_large(self, most_bytes: int) -> InvalidUpstreamAnswer:
        """An answer of which no more is read."""
        return self.invalid(f"it is larger than the limit of {most_bytes} bytes (MAX_ANSWER_BYTES)", b"")

    def redacted(self, text: str) -> str:
        """What the provider has said, without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        return without_keys(text)

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
        message = clean["message"] = message[:_MESSAGE_CHARACTERS]
        transient = is_transient_status(status) and not _refuses_the_content(status, clean)
        kind = TransientUpstreamError if transient else PermanentUpstreamError
        return kind(
            message,
            status=status,
            kind=word,
            provider=self._provider,
            body=body,
            details=clean,
            headers=relayed,
            retry_after_seconds=_first(retry_after_seconds(headers), _sensible(retry_delay_seconds(details))),
            beside=self._redact(_beside(body)),
            is_final=_forbids_retries(headers) or _NO_MONEY in (clean.get("code"), clean.get("type")),
        )

    def _redact(self, value: Any, depth: int = 0) -> Any:
        if depth > _MOST_LEVELS:
            return None
        if isinstance(value, str):
            return self.redacted(value)
        if isinstance(value, list):
            return [self._redact(item, depth + 1) for item in value]
        if isinstance(value, dict):
            return {self._redact(key): self._redact(item, depth + 1) for key, item in value.items()}
        return value


def _refuses_the_content(status: int | None, details: Mapping[str, Any]) -> bool:
    """Then sending it again changes nothing, and it is no sign of bad health, though some servers answer 500."""
    message = details.get("message")
    text = message if isinstance(message, str) else ""
    return says_context_window(status, text, details) or says_content_policy(status, text, details)


def _beside(body: bytes) -> dict[str, Any]:
    answer = look(body) if _ASKED_FOR.encode() in body else None
    return {_ASKED_FOR: answer[_ASKED_FOR]} if isinstance(answer, dict) and _ASKED_FOR in answer else {}


def _forbids_retries(headers: Mapping[str, str]) -> bool:
    """As OpenAI's SDKs understand it; what says so may be a gateway that has tried often enough itself."""
    return headers.get("x-should-retry", "").lower() == "false"


def _first(*seconds: float | None) -> float | None:
    return next((value for value in seconds if value is not None), None)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """The wait that `retry-after-ms` or `Retry-After` asks for, None without one that makes sense: a day at most.

    Retry-After is a number of seconds or an HTTP date (RFC 9110, section 10.2.3).
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    asked_for = _sensible(None if milliseconds is None else milliseconds / _MILLISECONDS)
    text = headers.get("Retry-After")
    if asked_for is not None or text is None:
        return asked_for
    seconds = _number(text)
    return _sensible(_seconds_until(text) if seconds is None else seconds)


def _seconds_until(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _sensible(seconds: float | None) -> float | None:
    return None if seconds is None or seconds > _MOST_SECONDS else seconds


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
