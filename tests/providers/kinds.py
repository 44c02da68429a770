"""Each kind of provider as the contract tests see it: an upstream that speaks its dialect, and what it was asked.

A new kind is one `Kind` more, and listed in `all_kinds.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from tests.harness import Answering

API_KEY = "provider-key-0123456789"
INPUT_TOKENS, OUTPUT_TOKENS = 10, 5
TOOL_CALL = ("call_1", "get_weather", '{"city":"Brno"}')
Then = Callable[[web.Request], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What an upstream was asked, whatever its dialect."""

    model: str
    texts: tuple[str, ...]  # of all messages, in order
    tools: tuple[str, ...] = ()  # names of the functions on offer
    tool_results: tuple[tuple[str, str], ...] = ()  # id of the call, and what it gave


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of provider. `name` is its name in the registry, unless `registered` is: several servers may be of a kind.

    `answers`, `streams` and the tool calls end well and tell INPUT_TOKENS and OUTPUT_TOKENS of usage; the tool called
    is TOOL_CALL. `breaks_off` sends some pieces of a stream and then does what it is told. `fails` is an error with a
    status and a message; the last two are what the provider says of a prompt that is too long, and of one that its
    policy refuses (None: it has no policy).
    """

    name: str
    base_path: str
    key_header: tuple[str, str]
    asked: Callable[[bytes], Asked]
    answers: Callable[[str], Answering]
    streams: Callable[[Sequence[str]], Answering]
    calls_tool: Callable[[], Answering]
    streams_tool_call: Callable[[], Answering]
    breaks_off: Callable[[Sequence[str], Then], Answering]
    fails: Callable[[int, str], Answering]
    too_long: Answering
    refused: Answering | None
    takes_stream_options: bool = True
    registered: str | None = None
    model_of_path: Callable[[str], str] | None = None  # for APIs that name the model there, not in the body

    @property
    def in_registry(self) -> str:
        return self.registered or self.name
