"""Two refusals known in many wordings, as servers were seen to send them."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.domain.errors import PermanentUpstreamError, UpstreamError


def error(message: str = "no", status: int | None = 400, **details: Any) -> UpstreamError:
    return PermanentUpstreamError(message, status=status, details={"message": message, **details})


TOO_LONG = {
    "OpenAI, DeepSeek, vLLM": "This model's maximum context length is 16384 tokens. However, you requested 19591 "
    "tokens (9591 in the messages, 10000 in the completion). Please reduce the length of the messages or completion.",
    "OpenAI, Responses": "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "OpenRouter": "This endpoint's maximum context length is 8192 tokens. However, you requested about 9000 tokens.",
    "Azure": "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 400000 tokens.",
    "Anthropic": "prompt is too long: 210000 tokens > 200000 maximum",
    "Anthropic, with output": "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000",
    "Gemini": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Gemini, unnumbered": "The input token count exceeds the maximum number of tokens allowed 1048576.",
    "Mistral": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
    "Together, TGI": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000",
    "Fireworks": "The prompt is too long: 140000, model maximum context length: 131071",
    "Bedrock": "Input is too long for requested model.",
    "xAI": "This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
    "Groq": "Please reduce the length of the messages or completion.",
    "llama.cpp": "the request exceeds the available context size. try increasing the context size",
    "llama-cpp-python": "Requested tokens (2285) exceed context window of 2048",
    "Ollama": "the input length exceeds the context length",
    "Ollama, runner": "prompt too long; exceeded max context length by 12 tokens",
    "SGLang": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "vLLM, decoder": "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "vLLM, multimodal": "The prompt (total length 25938) is too long to fit into the model (context length 4096).",
    "vLLM, old": "max_tokens must be at least 1, got -186.",
    "DashScope": "Range of input length should be [1, 30720]",
    "Moonshot": "Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)",
    "Zhipu": "Prompt exceeds max length",
    "LM Studio": "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with "
    "context length of only 4096 tokens, which is not enough.",
}
REFUSED = {
    "Azure": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
    "OpenAI": "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
    "OpenAI, images": "Your request was rejected as a result of our safety system.",
    "DeepSeek": "Content Exists Risk",
    "Anthropic": "Output blocked by content filtering policy",
    "DashScope": "Input data may contain inappropriate content.",
    "Zhipu": "系统检测到输入或生成内容可能包含不安全或敏感内容",
    "xAI": "Content violates usage guidelines. Team: 1, API key ID: 2, Model: grok-4-0709, Failed check: "
    "SAFETY_CHECK_TYPE_BIO",
}
NEITHER = [
    "Invalid value for 'temperature': must be at most 2.",
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
    "Model 'x' not found",
    "No endpoints found matching your data policy.",
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "Invalid 'messages[0].content': string too long.",
    "stream_options.include_usage: Extra inputs are not permitted",
    "Rate limit reached for model `x` on tokens per minute (TPM): Limit 6000, Requested 9000.",
    "",
]


@pytest.mark.parametrize("message", TOO_LONG.values(), ids=TOO_LONG)
@pytest.mark.parametrize("status", [400, 413, 422, 500, None])
def test_a_prompt_that_does_not_fit(message: str, status: int | None) -> None:
    assert error(message, status).is_context_window
    assert not error(message, status).is_content_policy


@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("status", [400, 403, None])
def test_a_prompt_that_a_policy_refuses(message: str, status: int | None) -> None:
    assert error(message, status).is_content_policy
    assert not error(message, status).is_context_window


@pytest.mark.parametrize("message", NEITHER)
def test_other_errors_are_neither(message: str) -> None:
    assert not error(message).is_context_window
    assert not error(message).is_content_policy


@pytest.mark.parametrize("status", [401, 402, 404, 429])
def test_a_sentence_does_not_outweigh_a_status_about_something_else(status: int) -> None:
    for message in (*TOO_LONG.values(), *REFUSED.values()):
        assert not error(message, status).is_context_window
        assert not error(message, status).is_content_policy


@pytest.mark.parametrize(
    "details",
    [
        {"code": "context_length_exceeded"},
        {"code": 400, "type": "exceed_context_size_error", "n_ctx": 256},
        {"code": "tokens_limit_reached", "details": "Request body too large for gpt-4o model. Max size: 8000 tokens."},
        {"code": 400, "metadata": {"error_type": "context_length_exceeded"}},
    ],
)
def test_codes_for_a_prompt_that_does_not_fit(details: dict[str, Any]) -> None:
    assert error(**details).is_context_window
    assert not error(**details).is_content_policy


@pytest.mark.parametrize(
    "details",
    [
        {"code": "content_filter"},
        {"code": "content_policy_violation"},
        {"code": "BadRequest", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
        {"code": 403, "metadata": {"error_type": "content_policy_violation"}},
        {"code": 403, "metadata": {"reasons": ["violence"], "flagged_input": "..."}},
        {"code": "data_inspection_failed"},
        {"code": "DataInspectionFailed"},
    ],
)
def test_codes_for_a_prompt_that_a_policy_refuses(details: dict[str, Any]) -> None:
    assert error(**details).is_content_policy
    assert not error(**details).is_context_window


@pytest.mark.parametrize("odd", [None, 5, [], {}, {"code": 5}, {"code": None}, ["content_filter"]])
def test_details_of_any_form_are_read(odd: Any) -> None:
    for name in ("code", "type", "metadata", "innererror"):
        assert not error(**{name: odd}).is_context_window
        assert not error(**{name: odd}).is_content_policy
