"""Reading what answers say of themselves: usage, model, ids, errors. Never changes a byte of them."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from proxy.domain.chat import NO_FACTS, AnswerFacts, Usage
from proxy.domain.values import estimate_tokens
from proxy.infrastructure.chat_completion.choices import (
    FAILED,
    Choice,
    WholeChoice,
    failed_with_nothing,
    failure_in,
    finish_reason_of,
    read_choices,
)
from proxy.infrastructure.chat_completion.error_bodies import base_resp_error
from proxy.infrastructure.chat_completion.reading import FALSY, Malformed, decode, look, text_of
from proxy.infrastructure.chat_completion.reported_usage import PlainUsage, read_usage, served_in, usage_of
from proxy.infrastructure.chat_completion.sse import event_data, events_from_the_end, says_done, split_events

_TAIL_BYTES = 16 * 1024
_TRIMMED_FROM_BYTES = 2 * _TAIL_BYTES
_EVENT_END, _DONE_EVENT, _CHUNK_START = b"\n\n", b"data: [DONE]", b"data: {"
_DATA_BYTES = len(b"data: ")
ERROR_MARK = b'"error"'
_REASONING = ("reasoning", "reasoning_content")  # the same text by two names; some servers send both


class _Envelope(msgspec.Struct):
    """The members that a completion and a chunk have in common; everything else is skipped, not parsed.

    Raw where only our books read them: a good answer is not refused because its id is a number.
    """

    id: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    provider: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    service_tier: msgspec.Raw = msgspec.Raw()


class _Answer(_Envelope):
    choices: msgspec.Raw = msgspec.Raw()
    base_resp: msgspec.Raw = msgspec.Raw()


class _Plain(msgspec.Struct):
    """An answer or chunk in which everything is of the type that it should have, and which is no error."""

    id: str | None = None
    model: str | None = None
    provider: str | None = None
    usage: PlainUsage | None = None
    error: None = None
    service_tier: str | None = None


class _PlainAnswer(_Plain):
    choices: list[WholeChoice] | None = None


class _PlainChunk(_Plain):
    choices: list[Choice] | None = None


class Chunk(_Envelope):
    choices: list[Choice] | None = None


_answers = msgspec.json.Decoder(_Answer)
_plain_answers = msgspec.json.Decoder(_PlainAnswer)
_plain_chunks = msgspec.json.Decoder(_PlainChunk)
_chunks = msgspec.json.Decoder(Chunk)


class WholeAnswer:
    """The facts of a complete, non-streamed answer."""

    def __init__(self, body: bytes) -> None:
        """Raises Malformed when `body` is no JSON object with the members of a completion or an error."""
        self.error: dict[str, Any] | None = None
        self.choice_errors: tuple[bytes, ...] = ()  # as they stand in the body
        self._body = body
        if not self._read_plainly(body):
            self._read_carefully(body)

    def _read_plainly(self, body: bytes) -> bool:
        """False if anything is otherwise than usual."""
        try:
            answer = _plain_answers.decode(body)
        except (ValueError, RecursionError):
            return False
        if answer.choices is None or (finish_reason := finish_reason_of(answer.choices)) == FAILED:
            return False
        usage = None if answer.usage is None else served_in(answer.service_tier, usage_of(answer.usage))
        self._facts = AnswerFacts(
            usage,
            answer.model or None,
            answer.id or None,
            answer.provider or None,
            finish_reason,
            answer.service_tier or None,
        )
        return True

    def _read_carefully(self, body: bytes) -> None:
        answer = decode(_answers, body)
        self.error = error_member(answer)
        if self.error is None and not bytes(answer.choices).startswith(b"["):
            self.error = base_resp_error(bytes(answer.base_resp))
            if self.error is None:
                raise Malformed("no choices in the answer")
        usage, choices = read_usage(answer.usage), read_choices(answer.choices)
        tier = text_of(answer.service_tier)
        failure = failure_in(choices)
        if failure is not None and self.error is None and failed_with_nothing(answer.choices, usage):
            self.error = failure
        self.choice_errors = tuple(bytes(choice.error) for choice in choices if choice.error)
        self._facts = AnswerFacts(
            usage=served_in(tier, usage),
            model=text_of(answer.model),
            generation_id=text_of(answer.id),
            upstream_provider=text_of(answer.provider),
            finish_reason=finish_reason_of(choices),
            service_tier=tier,
            choice_error=_error_message(failure),
        )

    def facts(self) -> AnswerFacts:
        return self._facts

    def estimated_output_tokens(self) -> int:
        """From the text of all choices, for answers without usage."""
        choices = look(decode(_answers, self._body).choices)
        messages = [choice.get("message") for choice in choices or () if isinstance(choice, dict)]
        return estimate_tokens(sum(_text_length(message) for message in messages))


class StreamTail:
    """Keeps the last bytes of a stream as they pass, and reads the facts from them when asked.

    Usage comes in the last events, so looking at those is enough; parsing every event would halve the throughput.
    It is final once the answer is complete (`[DONE]`, a finish reason), or if it comes by itself, without choices. Of
    what some servers tell with each chunk before, there may be more, as the text shows: it is marked as estimated.
    """

    def __init__(self) -> None:
        self._reads: deque[bytes] = deque()
        self._kept_bytes = 0
        self._dropped_bytes = 0
        self._dropped = NO_FACTS  # of which errors count: some servers tell of one, and go on to usage and [DONE]
        self._told = NO_FACTS
        self._told_by_bytes = 0  # how many had come when that was read

    def feed(self, data: bytes) -> None:
        """Take note of bytes that are about to be relayed."""
        self._reads.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes >= _TRIMMED_FROM_BYTES:
            self._trim()

    def _trim(self) -> None:
        """Not at each read: one that is kept longer costs less than looking."""
        if len(self._reads[-1]) >= _TRIMMED_FROM_BYTES:  # 256 KiB, of a stream that comes faster than it is taken
            self._cut(self._reads.pop())
        while self._kept_bytes - len(self._reads[0]) >= _TAIL_BYTES:
            self._drop(self._reads.popleft())

    def _cut(self, read: bytes) -> None:
        """Keeps the whole events at its end."""
        end = read.rfind(_EVENT_END, 0, len(read) - _TAIL_BYTES) + len(_EVENT_END)
        if end >= _TAIL_BYTES:  # else it is hardly worth it
            self._drop(read[:end])
            read = read[end:]
        self._reads.append(read)

    def _drop(self, events: bytes) -> None:
        if not self._dropped.tells_failure and ERROR_MARK in events:
            self._dropped = self.read_carefully(events)
        self._kept_bytes -= len(events)
        self._dropped_bytes += len(events)

    def facts(self) -> AnswerFacts:
        total_bytes = self._dropped_bytes + self._kept_bytes
        if self._told_by_bytes != total_bytes:
            self._told, self._told_by_bytes = self._read(), total_bytes
        return self._told

    def _read(self) -> AnswerFacts:
        tail = b"".join(self._reads)
        facts = _told_plainly(tail) or self.read_carefully(tail)
        if facts.usage is not None and facts.usage.estimated:
            facts = facts._replace(usage=self._with_all_written(facts.usage))
        if not self._dropped.tells_failure:
            return facts
        return facts._replace(error_message=self._dropped.error_message, choice_error=self._dropped.choice_error)

    def _with_all_written(self, usage: Usage) -> Usage:
        """The larger of what was told so far and what the text amounts to; beside a bill counts stay as told."""
        if usage.cost is not None:
            return usage
        return usage._replace(output_tokens=max(usage.output_tokens, self.estimated_output_tokens()))

    @staticmethod
    def read_carefully(tail: bytes) -> AnswerFacts:
        """Of events that may be anything."""
        usage = model = generation_id = provider = finish_reason = error = choice_error = tier = None
        may_tell_error = ERROR_MARK in tail  # then in any of its events: some servers go on to usage and [DONE]
        is_final = False
        for event in events_from_the_end(tail):
            chunk = parse_chunk(event)
            if chunk is None:
                is_final = is_final or says_done(event)
                continue
            facts = _facts_of(chunk)
            error, choice_error = error or facts.error_message, choice_error or facts.choice_error
            if usage is None and facts.usage is not None:
                usage = facts.usage
                is_final = is_final or not chunk.choices
            model = model or facts.model
            generation_id = generation_id or facts.generation_id
            provider = provider or facts.upstream_provider
            finish_reason = finish_reason or facts.finish_reason
            tier = tier or text_of(chunk.service_tier)
            if usage and model and generation_id and finish_reason and not may_tell_error:
                break
        known = served_in(tier, usage if is_final or finish_reason else _so_far(usage))
        return AnswerFacts(known, model, generation_id, provider, finish_reason, tier, error, choice_error)

    def estimated_output_tokens(self) -> int:
        """Text per byte in the tail, times all bytes: an estimate for streams that ended before their usage."""
        characters = 0
        for event in split_events(b"".join(self._reads))[0]:
            chunk = parse_chunk(event)
            characters += sum(_text_length(choice.delta) for choice in (chunk and chunk.choices) or ())
        total_bytes = self._dropped_bytes + self._kept_bytes
        return estimate_tokens(characters * total_bytes // self._kept_bytes) if self._kept_bytes else 0


def _told_plainly(tail: bytes) -> AnswerFacts | None:
    """What the last events say, if they are as nearly all are: one line each, and no word of an error; else None."""
    if b"\r" in tail or ERROR_MARK in tail:
        return None
    usage = model = generation_id = provider = finish_reason = tier = None
    is_final = False
    end = tail.rfind(_EVENT_END)
    while end >= 0:
        before = tail.rfind(_EVENT_END, 0, end)
        event = tail[before + 2 if before >= 0 else 0 : end]
        end = before
        if event == _DONE_EVENT:
            is_final = True
            continue
        if not event.startswith(_CHUNK_START) or b"\n" in event:
            return None
        try:
            chunk = _plain_chunks.decode(event[_DATA_BYTES:])
        except (ValueError, RecursionError):
            return None
        if usage is None and chunk.usage is not None:
            usage = usage_of(chunk.usage)
            is_final = is_final or not chunk.choices
        model, generation_id, provider = model or chunk.model, generation_id or chunk.id, provider or chunk.provider
        tier = tier or chunk.service_tier
        if finish_reason is None and chunk.choices:
            finish_reason = finish_reason_of(chunk.choices)
        if usage is None and chunk.choices:
            usage = read_usage(chunk.choices[0].usage)
        if usage is not None and model and generation_id and finish_reason:
            break
    known = served_in(tier, usage if is_final or finish_reason else _so_far(usage))
    return AnswerFacts(known, model or None, generation_id or None, provider or None, finish_reason, tier or None)


def _so_far(usage: Usage | None) -> Usage | None:
    """Of an answer that may not be complete: at least so many tokens, and no bill but for a part."""
    return None if usage is None else usage._replace(cost=None, estimated=True)


def _facts_of(chunk: Chunk) -> AnswerFacts:
    return AnswerFacts(
        usage=read_usage(chunk.usage) or (read_usage(chunk.choices[0].usage) if chunk.choices else None),
        model=text_of(chunk.model),
        generation_id=text_of(chunk.id),
        upstream_provider=text_of(chunk.provider),
        finish_reason=finish_reason_of(chunk.choices),
        error_message=_error_message(error_member(chunk)),
        choice_error=_error_message(failure_in(chunk.choices)),
    )


def parse_chunk(event: bytes) -> Chunk | None:
    """The chunk in a server-sent event; None if there is none (a comment, `[DONE]`, something else)."""
    data = event_data(event)
    if data is None or not data.lstrip().startswith(b"{"):
        return None
    try:
        chunk: Chunk = decode(_chunks, data)
    except Malformed:
        return None
    return chunk


def has_usage(chunk: Chunk) -> bool:
    """Whether the chunk tells usage, in whatever form."""
    return bytes(chunk.usage).startswith(b"{")


def error_member(envelope: _Envelope) -> dict[str, Any] | None:
    """The `error` of an answer or chunk, as an object; None when it has none, or an empty one."""
    if bytes(envelope.error) in FALSY:
        return None
    error = look(envelope.error)
    if error is None:
        return {"message": "The error that the upstream sent cannot be read."}
    return (error if isinstance(error, dict) else {"message": str(error)}) if error else None


def _text_length(message: Any) -> int:
    """Of a message or a delta: all that the model wrote, its reasoning and its calls included."""
    if not isinstance(message, dict):
        return 0
    reasoning = max(_length(message.get(name)) for name in _REASONING)
    return _length(message.get("content")) + _length(message.get("refusal")) + reasoning + _calls_length(message)


def _calls_length(message: dict[str, Any]) -> int:
    calls = message.get("tool_calls")
    told = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    functions = [function for function in (*told, message.get("function_call")) if isinstance(function, dict)]
    return sum(_length(function.get(name)) for function in functions for name in ("name", "arguments"))


def _length(text: Any) -> int:
    """Some servers send arguments as an object."""
    if isinstance(text, dict):
        return len(msgspec.json.encode(text))
    return len(text) if isinstance(text, str) else 0


def _error_message(error: dict[str, Any] | None) -> str | None:
    return None if error is None else str(error.get("message") or "unspecified error")
