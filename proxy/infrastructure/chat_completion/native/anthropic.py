"""Anthropic's Messages API, through Semantic Kernel's Anthropic connector.

Carried: text and images (data and http URLs), system and developer messages before all others, tools with `strict`,
`tool_choice`, `parallel_tool_calls`, `stop`, `max_tokens` (the API wants one: 4096 if none is given, and the room for
thinking on top), `temperature` (0 to 1), `top_p`, `top_k`, `response_format` json_schema, `reasoning_effort` and
`thinking`, `user`, `cache_control` on parts, tools and the whole request, and signed reasoning both ways.

Refused: everything else, notably `n` over 1, `seed`, `logprobs`, penalties, `logit_bias`, json_object (the API has no
such mode), names of speakers, audio, files, and system messages in the middle (the API has one system prompt, at the
beginning; moving them there would change what they say).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx
from aiohttp import ClientSession
from anthropic import APIStatusError, AsyncAnthropic

from proxy.infrastructure.chat_completion.dialect import Dialect
from proxy.infrastructure.chat_completion.headers import CallHeaders
from proxy.infrastructure.chat_completion.native.anthropic_connector import (
    AnthropicConnector,
    AnthropicSettings,
)
from proxy.infrastructure.chat_completion.native.members import Members
from proxy.infrastructure.chat_completion.native.parameters import (
    IDLE,
    IGNORED,
    JsonSchema,
    Tool,
    ToolChoice,
    read_max_tokens,
    read_response_format,
    read_stop,
    read_tool_choice,
    read_tools,
)
from proxy.infrastructure.chat_completion.native.service import NativeChatCompletion, NativeParts
from proxy.infrastructure.chat_completion.native.transport import SessionTransport
from proxy.infrastructure.chat_completion.upstream_errors import UpstreamErrors
from proxy.infrastructure.chat_completion.wire import WireSettings, secrets_of
from proxy.infrastructure.resilience import Resilience

_DEFAULT_MAX_TOKENS = 4096  # what every model of theirs can write
_LEAST_BUDGET_TOKENS = 1024
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 4096, "high": 16384, "xhigh": 32768, "max": 32768}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_USUAL_EFFORT = "high"  # the API's, where none is given
# Models that think by a budget of tokens; all later ones decide for themselves, and take an effort.
_BUDGETED = re.compile(r"claude-(?:3|(?:opus|sonnet|haiku)-4(?:-[0-5])?(?:-\d{8}|@|$|:|-v\d|-latest))")
_RATE_LIMITS = tuple(
    f"anthropic-ratelimit-{what}-{figure}"
    for what in ("requests", "tokens", "input-tokens", "output-tokens")
    for figure in ("limit", "remaining", "reset")
)
_DIALECT = Dialect(api_key_header="x-api-key", handed_back=("request-id", *_RATE_LIMITS))
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# Which of theirs serves is up to what the organisation has committed to: `auto` may be their priority tier.
_SERVICE_TIERS: dict[str | None, str | None] = {None: None, "auto": None, "default": "standard_only"}


class AnthropicDialect:
    """A NativeDialect."""

    def __init__(self, connector: AnthropicConnector) -> None:
        self._connector = connector

    def connector(self, _model: str) -> AnthropicConnector:
        return self._connector

    def settings(self, request: Members, model: str) -> AnthropicSettings:
        tools = read_tools(request)
        choice = read_tool_choice(request, tools)
        max_tokens = read_max_tokens(request)
        thinking = _read_thinking(request, model, max_tokens)
        room = _room_for_thoughts(thinking)
        output = thinking.pop("output_config", {}) | _output_format(request)
        user = request.text("user") or request.text("safety_identifier")
        settings = AnthropicSettings(
            ai_model_id=model,
            max_tokens=max_tokens or _DEFAULT_MAX_TOKENS + room,
            temperature=request.number("temperature", 0, 1),
            top_p=request.number("top_p", 0, 1),
            top_k=request.whole("top_k", 0),
            stop_sequences=read_stop(request),
            tools=[_tool(tool) for tool in tools] or None,
            tool_choice=_tool_choice(choice) if choice else None,
            output_config=output or None,
            metadata={"user_id": user} if user else None,
            cache_control=request.object("cache_control"),
            service_tier=_SERVICE_TIERS[request.word("service_tier", ("auto", "default"))],
            **thinking,
        )
        request.finish(IGNORED | {"safety_identifier"}, IDLE)
        return settings

    def told_error(self, problem: BaseException) -> Mapping[str, Any] | None:
        """An `error` event of a stream, with the status that its type has in their documentation."""
        body = problem.body if isinstance(problem, APIStatusError) else None
        error = body.get("error") if isinstance(body, dict) else None
        if not isinstance(error, dict):
            return None
        return {**error, "code": _STATUSES.get(str(error.get("type")), 500)}


def _tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.strict:
        written["strict"] = True
    if tool.cache_control:
        written["cache_control"] = tool.cache_control
    return written


def _tool_choice(choice: ToolChoice) -> dict[str, Any] | None:
    """None for the API's default."""
    if choice.mode == "none":
        return {"type": "none"}
    if choice.name is not None:
        written: dict[str, Any] = {"type": "tool", "name": choice.name}
    else:
        written = {"type": "any" if choice.mode == "required" else "auto"}
    if not choice.parallel:
        return {**written, "disable_parallel_tool_use": True}
    return None if written == {"type": "auto"} else written


def _output_format(request: Members) -> dict[str, Any]:
    wanted = read_response_format(request)
    if wanted == "json_object":
        request.refuse(
            "response_format",
            f"json_object cannot be carried to provider '{request.provider}': its API has no such mode. "
            "Use json_schema, or ask for JSON in words.",
        )
    return {"format": {"type": "json_schema", "schema": wanted.schema}} if isinstance(wanted, JsonSchema) else {}


def _read_thinking(request: Members, model: str, max_tokens: int | None) -> dict[str, Any]:
    """`thinking` as their own clients would send it, or what `reasoning_effort` comes to."""
    thinking = request.object("thinking")
    effort = request.word("reasoning_effort", ("none", *_EFFORTS))
    if thinking is not None and effort is not None:
        request.refuse("thinking", "and 'reasoning_effort' say the same: set one of them.")
    if thinking is not None:
        return {"thinking": thinking}
    if effort is None:
        return {}
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    if not _BUDGETED.search(model):
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": _EFFORTS[effort]}}
    budget = _BUDGETS[effort] if max_tokens is None else min(_BUDGETS[effort], max_tokens - 1)
    if budget < _LEAST_BUDGET_TOKENS:
        request.refuse("max_tokens", f"must be over {_LEAST_BUDGET_TOKENS} for model '{model}' to think.")
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _room_for_thoughts(asked: Mapping[str, Any]) -> int:
    """What thoughts may take of `max_tokens`, which counts them. Models that decide for themselves need about what the
    same effort is as a budget."""
    thinking = asked.get("thinking", {})
    if thinking.get("type") == "adaptive":
        return _BUDGETS[asked.get("output_config", {}).get("effort", _USUAL_EFFORT)]
    budget = thinking.get("budget_tokens")
    return budget if type(budget) is int else 0  # what is none, the API refuses


def anthropic(
    settings: WireSettings, session: ClientSession, resilience: Resilience, *, service_id: str, ai_model_id: str
) -> NativeChatCompletion:
    """The service of one deployment. The base URL is `https://api.anthropic.com/v1`, or another's that ends in it."""
    headers = CallHeaders(_DIALECT, settings.api_key, settings.headers)
    errors = UpstreamErrors(settings.provider, secrets_of(settings))
    transport = SessionTransport(settings, session, headers, errors, ("anthropic-version",))
    client = AsyncAnthropic(
        api_key=settings.api_key or "none",  # theirs looks for one in the environment otherwise; ours is sent
        base_url=settings.base_url.rstrip("/").removesuffix("/v1"),
        http_client=httpx.AsyncClient(transport=transport, trust_env=False),
        max_retries=0,
        timeout=None,  # the session's and the transport's hold
    )
    connector = AnthropicConnector(client, ai_model_id=ai_model_id, service_id=service_id)
    parts = NativeParts(AnthropicDialect(connector), settings, headers, errors, resilience)
    return NativeChatCompletion(parts, service_id=service_id, ai_model_id=ai_model_id)
