"""Google's Gemini API, through Semantic Kernel's Google AI connector.

Carried: text and images (data URLs), system and developer messages before all others, tools (their schemas as JSON
Schema; `strict` as the mode VALIDATED), `tool_choice`, `stop` (up to 5), `max_tokens`, `temperature`, `top_p`, `top_k`,
`seed`, `presence_penalty`, `frequency_penalty`, `response_format`, `reasoning_effort`, and the signatures of thoughts
beside tool calls, which later models want back: in `extra_content.google.thought_signature` of a call, as in Google's
own OpenAI-compatible API; calls that come back without any are sent with the words that Google's documentation has for
that. Images in answers come as OpenRouter's do, in `images` of a message, and can be sent back.

Let go, beside what the package names: `user` and `safety_identifier` (the API has no place for an end user's name), and
signatures of thoughts beside plain text (the API does not insist on them).

Refused: everything else, notably `n` over 1, `logprobs`, `logit_bias`, `parallel_tool_calls: false`, `cache_control`,
images by http URL (the connector has no way for them), other providers' reasoning, names of speakers, audio, files, and
system messages in the middle.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

import httpx
from aiohttp import ClientSession
from google.genai import Client
from google.genai.errors import APIError
from google.genai.types import HttpOptions

from proxy.infrastructure.chat_completion.dialect import Dialect
from proxy.infrastructure.chat_completion.headers import CallHeaders
from proxy.infrastructure.chat_completion.native.google_connector import Blocked, GoogleConnector, GoogleSettings
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

_VERSION = "v1beta"
_MOST_STOPS = 5
_DIALECT = Dialect(api_key_header="x-goog-api-key", handed_back=())
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
_SERVICE_TIERS: dict[str | None, str | None] = {
    **dict.fromkeys((None, "auto", "default")),
    "flex": "flex",
    **dict.fromkeys(("priority", "fast"), "priority"),
}
_MODEL = re.compile(r"(?:(?:models|tunedModels)/)?[A-Za-z0-9][A-Za-z0-9._-]*")
_BUDGETED = re.compile(r"gemini-2")  # models that think by a budget of tokens; later ones by a level
_LINE_END_ESCAPES = {b"\xe2\x80\xa8": rb"\u2028", b"\xe2\x80\xa9": rb"\u2029", b"\xc2\x85": rb"\u0085"}
_LINE_ENDS = re.compile(b"|".join(_LINE_END_ESCAPES))
_CUT_CHARACTER = re.compile(rb"(?:\xe2\x80?|\xc2)\Z")


class GoogleDialect:
    """A NativeDialect."""

    def __init__(self, connector: GoogleConnector) -> None:
        self._connector = connector

    def connector(self, model: str) -> GoogleConnector:
        """A copy: a connector has its model for life."""
        return self._connector.model_copy(update={"ai_model_id": model})

    def settings(self, request: Members, model: str) -> GoogleSettings:
        if not _MODEL.fullmatch(model):  # it becomes part of a path, with the operator's key
            request.refuse("model", "is no name of a Gemini model.")
        tools = read_tools(request)
        settings = GoogleSettings(
            max_output_tokens=read_max_tokens(request),
            temperature=request.number("temperature", 0, 2),
            top_p=request.number("top_p", 0, 1),
            top_k=request.whole("top_k", 0),
            seed=request.whole("seed", -(2**31)),
            presence_penalty=request.number("presence_penalty", -2, 2),
            frequency_penalty=request.number("frequency_penalty", -2, 2),
            stop_sequences=read_stop(request, _MOST_STOPS),
            tools=_tools(request, tools),
            tool_config=_tool_config(request, tools),
            thinking_config=_thinking_config(request, model),
            service_tier=_SERVICE_TIERS[request.word("service_tier", ("auto", "default", "flex", "priority", "fast"))],
            **_response_format(request),
        )
        request.finish(IGNORED | {"user", "safety_identifier"}, IDLE)
        return settings

    def told_error(self, problem: BaseException) -> Mapping[str, Any] | None:
        """An error in the middle of a stream, or an answer that is none: `Blocked` has said why."""
        if isinstance(problem, Blocked):
            return problem.details
        error = problem.details if isinstance(problem, APIError) else None
        error = error.get("error", error) if isinstance(error, dict) else None
        return error if isinstance(error, dict) else None


def _tools(request: Members, tools: list[Tool]) -> list[dict[str, Any]] | None:
    for index, tool in enumerate(tools):
        if tool.cache_control:
            request.cannot_carry(f"tools[{index}].cache_control")
    declarations = [
        {"name": tool.name, "parameters_json_schema": tool.parameters}
        | ({"description": tool.description} if tool.description is not None else {})
        for tool in tools
    ]
    return [{"function_declarations": declarations}] if declarations else None


def _tool_config(request: Members, tools: list[Tool]) -> dict[str, Any] | None:
    choice = read_tool_choice(request, tools)
    if choice is None:
        return None
    if not choice.parallel and choice.mode != "none":
        request.refuse("parallel_tool_calls", f"cannot be false for provider '{request.provider}'.")
    config: dict[str, Any] = {"mode": _mode(choice, tools)}
    if choice.name is not None:
        config["allowed_function_names"] = [choice.name]
    return {"function_calling_config": config}


def _mode(choice: ToolChoice, tools: list[Tool]) -> Literal["NONE", "ANY", "AUTO", "VALIDATED"]:
    if choice.mode == "none":
        return "NONE"
    if choice.mode == "required":
        return "ANY"
    return "VALIDATED" if any(tool.strict for tool in tools) else "AUTO"


def _response_format(request: Members) -> dict[str, Any]:
    wanted = read_response_format(request)
    if wanted == "text":
        return {}
    schema = {"response_json_schema": wanted.schema} if isinstance(wanted, JsonSchema) else {}
    return {"response_mime_type": "application/json", **schema}


def _thinking_config(request: Members, model: str) -> dict[str, Any] | None:
    effort = request.word("reasoning_effort", tuple(_BUDGETS))
    if effort is None:
        return None
    if _BUDGETED.search(model):
        return {"thinking_budget": _BUDGETS[effort]}
    if effort == "none":
        request.refuse("reasoning_effort", f"cannot be none: model '{model}' always thinks. Use minimal or low.")
    return {"thinking_level": _LEVELS[effort]}


async def without_odd_line_ends(reads: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """JSON as it comes, with the characters escaped that the SDK takes for ends of lines, cutting events in two."""
    held = b""
    async for data in reads:
        whole = held + data
        held = cut[0] if (cut := _CUT_CHARACTER.search(whole)) else b""
        yield _LINE_ENDS.sub(lambda end: _LINE_END_ESCAPES[end[0]], whole[: len(whole) - len(held)])
    if held:
        yield held


def google(
    settings: WireSettings, session: ClientSession, resilience: Resilience, *, service_id: str, ai_model_id: str
) -> NativeChatCompletion:
    """The service of one deployment. The base URL is `https://generativelanguage.googleapis.com`, with or without
    `/v1beta`."""
    headers = CallHeaders(_DIALECT, settings.api_key, settings.headers)
    errors = UpstreamErrors(settings.provider, secrets_of(settings))
    transport = SessionTransport(settings, session, headers, errors, change=without_odd_line_ends)
    client = Client(
        vertexai=False,  # whatever the environment says
        api_key=settings.api_key or "none",
        http_options=HttpOptions(
            base_url=settings.base_url.rstrip("/").removesuffix(f"/{_VERSION}"),
            api_version=_VERSION,
            httpx_async_client=httpx.AsyncClient(transport=transport, trust_env=False),
        ),
    )
    connector = GoogleConnector(client, ai_model_id=ai_model_id, service_id=service_id)
    parts = NativeParts(GoogleDialect(connector), settings, headers, errors, resilience)
    return NativeChatCompletion(parts, service_id=service_id, ai_model_id=ai_model_id)
