"""What is asked, what the upstream answers, and whether that is what came back."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any

MODEL = "gpt-4o"
CHUNKS = 50
PACE_SECONDS = 0.01

_TEXT = "It is a quarter past nine, the sun is out over the harbour, and the ferry leaves from the second pier in time."
_PACED = "Count slowly."
_USAGE = {"prompt_tokens": 21, "completion_tokens": CHUNKS, "total_tokens": 21 + CHUNKS, "cost": 0.000123}
_COUNTED = re.compile(rb"tick(\d+) ")
_ALL_COUNTED = [str(number).encode() for number in range(CHUNKS)]


class Kind(StrEnum):
    """A request's kind: a plain answer, a stream in one piece or chunk by chunk, a plain answer to a long prompt."""

    PLAIN = "plain"
    BURST = "burst"
    PACED = "paced"
    LARGE = "large"

    @property
    def is_stream(self) -> bool:
        return self in (Kind.BURST, Kind.PACED)


def request_body(kind: Kind) -> bytes:
    """The JSON that a client sends."""
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "What time is it?"}]}
    if kind is Kind.LARGE:
        paragraph = "The ferry crosses the sound four times a day, and the crew knows most passengers by name. " * 11
        roles = ("user", "assistant")
        asked["messages"] = [{"role": roles[n % 2], "content": f"{n}. {paragraph}"} for n in range(99)]
    elif kind.is_stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
        asked["messages"][0]["content"] = _PACED if kind is Kind.PACED else "Count."
    return json.dumps(asked).encode()


def is_to_be_paced(body: bytes) -> bool:
    """Whether the upstream should take its time over this stream."""
    return _PACED.encode() in body


def plain_answer(number: int) -> bytes:
    """About 450 bytes; no two have the same id."""
    choice = {"index": 0, "message": {"role": "assistant", "content": _TEXT}, "logprobs": None, "finish_reason": "stop"}
    head = {"id": f"chatcmpl-{number:012}", "object": "chat.completion", "created": 1_790_000_000, "model": MODEL}
    return _json({**head, "choices": [choice], "usage": _USAGE})


def stream_events(number: int) -> list[bytes]:
    """The events of a stream, `[DONE]` included."""
    head = {"id": f"chatcmpl-{number:012}", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": MODEL}
    deltas: list[dict[str, str]] = [{"content": f"tick{tick} "} for tick in range(CHUNKS)]
    deltas[0]["role"] = "assistant"
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [{**head, "choices": [choice]} for choice in choices]
    events.append({**head, "choices": [], "usage": _USAGE})
    return [b"data: " + _json(event) + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]


def is_right(kind: Kind, status: int, body: bytes) -> bool:
    """Whether the client got all of the answer, in order."""
    if kind.is_stream:
        return status == 200 and _COUNTED.findall(body) == _ALL_COUNTED and b"data: [DONE]" in body
    return status == 200 and _TEXT.encode() in body and b'"usage"' in body


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
