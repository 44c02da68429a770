"""What differs between servers that all speak OpenAI's chat completions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_TRACING = ("traceparent", "tracestate")
_RATE_LIMITS = (
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-tokenlimit-limit",  # Together
    "x-tokenlimit-remaining",
    "x-tokenlimit-reset",
)


class UsageInStreams(StrEnum):
    """When a server tells the usage of a stream."""

    ALWAYS = "always"
    ON_REQUEST = "on_request"  # if `stream_options.include_usage` is true: the gateway sees to it
    NEVER = "never"  # and refuses `stream_options`, or does not know them: tokens are estimated


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server differs. The defaults are OpenAI's own.

    `api_key_header` carries the key: as a bearer token if it is `Authorization`, else bare. With `done_marker` a stream
    without `[DONE]` was cut; without, it may end after a finish reason. Of the client's headers those in `sent_on` go
    to the server, of the server's those in `handed_back` to the client. `generation_id_header` names the answer early.
    """

    api_key_header: str = "Authorization"
    done_marker: bool = True
    usage_in_streams: UsageInStreams = UsageInStreams.ON_REQUEST
    sent_on: tuple[str, ...] = _TRACING
    handed_back: tuple[str, ...] = (*_RATE_LIMITS, "openai-processing-ms", "openai-version")
    generation_id_header: str | None = None


OPENAI = Dialect()
