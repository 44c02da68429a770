"""How an answer's choices ended. A choice may tell that it broke off, in an answer that is otherwise a good one.

OpenRouter does so when a provider fails it once its status has been sent: `"finish_reason": "error"`, and beside it
`"error": {"code": 502, "message": "…"}`. Mistral has that finish reason, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from proxy.domain.chat import Usage
from proxy.infrastructure.chat_completion.reading import look, text_of

FAILED: Final = "error"
_ROLE = "role"


class Choice(msgspec.Struct):
    """Of a chunk. Moonshot tells a stream's usage in its choice, where `usage` of the chunk would be."""

    delta: dict[str, Any] | None = None
    finish_reason: str | None = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class WholeChoice(msgspec.Struct):
    """Of a whole answer, of which nearly none tells an error; the message is skipped, not parsed."""

    finish_reason: str | None = None
    error: None = None


class _OddChoice(msgspec.Struct):
    """The same where any member may be anything."""

    finish_reason: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_odd_choices = msgspec.json.Decoder(list[_OddChoice])


def finish_reason_of(choices: Iterable[Choice | WholeChoice] | None) -> str | None:
    """FAILED if any choice says so, else the first that is told; some servers write "" for none."""
    told = None
    for choice in choices or ():
        if choice.finish_reason == FAILED:
            return FAILED
        told = told or choice.finish_reason
    return told or None


def read_choices(raw: msgspec.Raw) -> list[Choice]:
    """The choices of a whole answer, without their messages; empty if they cannot be read."""
    try:
        odd: list[_OddChoice] = _odd_choices.decode(raw)
    except (ValueError, RecursionError):
        return []
    return [Choice(finish_reason=text_of(choice.finish_reason), error=choice.error) for choice in odd]


def failure_in(choices: Iterable[Choice] | None) -> dict[str, Any] | None:
    """The error object of the first choice that broke off, or words for it; None if none did.

    A choice that has another finish reason has come to its end, whatever it tells beside it.
    """
    failure = None
    for choice in choices or ():
        if choice.finish_reason == FAILED or (not choice.finish_reason and choice.error):
            error = look(choice.error) if choice.error else None
            if isinstance(error, dict) and error:
                return error
            if choice.finish_reason == FAILED:
                failure = {"message": f"The answer ended with the finish reason '{FAILED}'."}
    return failure


def failed_with_nothing(choices: msgspec.Raw, usage: Usage | None) -> bool:
    """Whether an answer with a failure has neither content nor costs: then another one may take its place."""
    told = look(choices)
    messages = [choice.get("message") for choice in told if isinstance(choice, dict)] if isinstance(told, list) else []
    return is_free(usage) and not any(says_something(message) for message in messages)


def is_free(usage: Usage | None) -> bool:
    """Whether nothing was generated, and nothing billed."""
    return usage is None or not (usage.output_tokens or (usage.cost is not None and usage.cost.usd))


def says_something(message: Any) -> bool:
    """Whether a message or a delta has any content: text, reasoning, calls, whatever else."""
    if isinstance(message, dict):
        for name, value in message.items():
            if value and name != _ROLE:
                return True
    return False
