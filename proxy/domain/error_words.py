"""Recognising, across providers' wordings, the two refusals that another model may mend, and those that are about the
operator's key or account.

A code that says it is trusted. Many servers send none that does (400 and a sentence is common), so the sentences that
they are known to send are recognised too, unless the status says that it is about something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_OTHER_MATTERS = (401, 402, 404, 429)  # keys, credits, unknown models, rate limits

_CONTEXT_CODES = {
    "context_length_exceeded",
    "context_window_exceeded",
    "exceed_context_size_error",
    "tokens_limit_reached",
}
_CONTEXT_SENTENCES = re.compile(
    r"maximum (?:context|prompt|model) length"
    r"|maximum input length"
    r"|max(?:imum)? context (?:length|size|window)"
    r"|context (?:length|window|size|limit)[^.]{0,60}exceed"
    r"|exceed[^.]{0,80}context (?:length|window|size|limit)"
    r"|(?:prompt|input)(?: \([^)]{0,60}\))? is too long"
    r"|prompt too long"
    r"|longer than the model's context length"
    r"|input tokens? (?:count )?(?:\([^)]{0,20}\) )?exceeds? the (?:maximum|configured)"
    r"|`inputs` tokens \+ `max_new_tokens` must be"
    r"|range of input length should be"
    r"|max_tokens must be at least 1, got -"
    r"|exceed(?:s|ed)? model token limit"
    r"|prompt exceeds max length"
    r"|loaded with context length of only"
    r"|reduce the length of the (?:messages|prompt|input)",
    re.IGNORECASE,
)

_POLICY_CODES = {
    "content_filter",
    "content_policy_violation",
    "data_inspection_failed",
    "datainspectionfailed",
    "moderation_blocked",
    "prohibited_content",
    "refusal",
    "responsibleaipolicyviolation",
}
_POLICY_SENTENCES = re.compile(
    r"content (?:management |usage |safety )?polic"
    r"|content filter"
    r"|usage polic(?:y|ies)"
    r"|violates usage guidelines"
    r"|safety (?:system|filter|setting)"
    r"|(?:input|prompt|request|message|content) (?:was|has been|were|is) flagged"
    r"|content exists risk"
    r"|(?:inappropriate|unsafe|sensitive) content"
    r"|不安全或敏感内容",
    re.IGNORECASE,
)

_BAD_REQUEST, _UNAUTHORIZED, _PAYMENT_REQUIRED, _FORBIDDEN = 400, 401, 402, 403
# How messages begin: further on they may quote what the client has sent.
_KEY_SENTENCES = re.compile(
    r"API key not valid\. Please pass a valid API key"  # Google
    r"|API key expired\. Please renew the API key"
    r"|Incorrect API key provided: "  # xAI
)
_KEY_CODE, _KEY_REASON = "invalid_api_key", "API_KEY_INVALID"  # OpenAI's, and Google's among its details
_MONEY_SENTENCES = re.compile(r"Your credit balance is too low")  # Anthropic
_MONEY_CODE = "arrearage"  # DashScope
_FORBIDDING_STATUS = "FAILED_PRECONDITION"  # Google, of the operator's country and plan
_FILE_SENTENCES = re.compile(r"The File \S{1,200} is not in an ACTIVE state")  # the same, of a file that a client names


def meant_status(status: int, details: Mapping[str, Any]) -> int:
    """The status that an error would have if its server did not answer 400 to what is about the operator's key, money
    or country: no client can mend that, and other providers have other rules."""
    told = details.get("message")
    message = told if isinstance(told, str) else ""
    if status != _BAD_REQUEST:
        return status
    codes = set(_codes(details))
    if _KEY_CODE in codes or _has_reason(details, _KEY_REASON) or _KEY_SENTENCES.match(message):
        return _UNAUTHORIZED
    if _MONEY_CODE in codes or _MONEY_SENTENCES.match(message):
        return _PAYMENT_REQUIRED
    is_forbidden = details.get("status") == _FORBIDDING_STATUS and not _FILE_SENTENCES.match(message)
    return _FORBIDDEN if is_forbidden else status


def _has_reason(details: Mapping[str, Any], reason: str) -> bool:
    parts = details.get("details")
    return isinstance(parts, list) and any(isinstance(part, Mapping) and part.get("reason") == reason for part in parts)


def says_context_window(status: int | None, message: str, details: Mapping[str, Any]) -> bool:
    """Whether an upstream's error says that the prompt does not fit the model's context window."""
    return _says(_CONTEXT_CODES, _CONTEXT_SENTENCES, status, message, details)


def says_content_policy(status: int | None, message: str, details: Mapping[str, Any]) -> bool:
    """Whether an upstream's error says that a filter or policy refused the content."""
    metadata = details.get("metadata")
    if isinstance(metadata, Mapping) and "flagged_input" in metadata:
        return True  # OpenRouter's moderation
    return _says(_POLICY_CODES, _POLICY_SENTENCES, status, message, details)


def _says(
    codes: set[str], sentences: re.Pattern[str], status: int | None, message: str, details: Mapping[str, Any]
) -> bool:
    if any(code in codes for code in _codes(details)):
        return True
    return status not in _OTHER_MATTERS and sentences.search(message) is not None


def _codes(details: Mapping[str, Any]) -> Iterator[str]:
    """The error's codes, lower case, wherever servers put them: `innererror` is Azure's, `metadata` OpenRouter's."""
    for place in (details, details.get("innererror"), details.get("inner_error"), details.get("metadata")):
        if isinstance(place, Mapping):
            for name in ("code", "type", "error_type", "provider_code"):
                code = place.get(name)
                if isinstance(code, str):
                    yield code.lower()
