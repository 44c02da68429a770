"""What the demo upstream answers: words that say what they are, or a tool call, with tokens and cost."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import uuid4

from proxy.domain.values import estimate_tokens
from proxy.infrastructure.demo.catalogue import price_of
from proxy.infrastructure.demo.json_schema import value_for
from proxy.infrastructure.demo.requests import DemoRequest, Function, text_of

_ECHOED_CHARACTERS = 200
_CHARACTERS_PER_TOKEN = 4
_TOOL_ROLES = ("tool", "function")


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice. `text` is its content, or the arguments when `function` names one to call."""

    text: str
    finish_reason: str
    function: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer with what is said about it. All choices of a request are the same."""

    request: DemoRequest
    answer: Answer
    id: str = field(default_factory=lambda: f"gen-{int(time.time())}-{uuid4().hex[:20]}")
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def prompt_tokens(self) -> int:
        return _tokens(sum(len(text_of(message)) for message in self.request.messages))

    @property
    def completion_tokens(self) -> int:
        return self.request.choices * _tokens(len(self.answer.text))

    @property
    def prompt_cost(self) -> Decimal:
        return self.prompt_tokens * price_of(self.request.model).prompt

    @property
    def completion_cost(self) -> Decimal:
        return self.completion_tokens * price_of(self.request.model).completion

    @property
    def cost(self) -> Decimal:
        """USD, exact and never zero."""
        return self.prompt_cost + self.completion_cost


def complete(request: DemoRequest) -> Completion:
    """The demo's completion; the same request always gets the same answer, under a new id."""
    return Completion(request, _answer(request))


def _answer(request: DemoRequest) -> Answer:
    if request.function is not None:
        return _shortened(_call(request.function, request), request.max_tokens)
    if request.json_schema is not None:
        text = _json(value_for(request.json_schema, _echo(_last_text(request, "user"))))
    else:
        text = _words(request)
    return _shortened(Answer(_stopped(text, request.stop), "stop"), request.max_tokens)


def _call(function: Function, request: DemoRequest) -> Answer:
    schema = function.parameters
    arguments = value_for(schema, _echo(_last_text(request, "user"))) if isinstance(schema, dict) else {}
    return Answer(_json(arguments if isinstance(arguments, dict) else {}), "tool_calls", function.name)


def _words(request: DemoRequest) -> str:
    last = request.messages[-1]
    if last.get("role") in _TOOL_ROLES:
        said = f'The tool answered: "{_echo(text_of(last))}"'
    else:
        said = f'You said: "{_echo(_last_text(request, "user"))}"'
    return (
        f"This is the demo upstream of the gateway; no model has read your message. {said} "
        "Set OPENROUTER_API_KEY to get answers from real models."
    )


def _last_text(request: DemoRequest, role: str) -> str:
    messages = [message for message in request.messages if message.get("role") == role]
    return text_of(messages[-1]) if messages else ""


def _echo(text: str) -> str:
    line = " ".join(text.split()) or "(nothing)"
    return line if len(line) <= _ECHOED_CHARACTERS else line[: _ECHOED_CHARACTERS - 1] + "…"


def _stopped(text: str, stops: tuple[str, ...]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _shortened(answer: Answer, max_tokens: int | None) -> Answer:
    if max_tokens is None or _tokens(len(answer.text)) <= max_tokens:
        return answer
    return replace(answer, text=answer.text[: max_tokens * _CHARACTERS_PER_TOKEN], finish_reason="length")


def _tokens(characters: int) -> int:
    return max(1, estimate_tokens(characters))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
