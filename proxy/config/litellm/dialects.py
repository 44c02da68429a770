"""LiteLLM's model prefixes: of which kind each provider is, where it is, and which variable has its key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Dialect:
    """`url` None: the kind has its own. A `url` that is a reference is the variable where LiteLLM looks for one.

    `done_marker` says whether all of its streams end with `[DONE]`.
    """

    kind: str
    url: str | None = None
    key_variable: str | None = None
    done_marker: bool = True


def _compatible(url: str, key_variable: str | None, *, done_marker: bool = True) -> Dialect:
    return Dialect("openai", url, key_variable, done_marker)


DIALECTS = {
    "anthropic": Dialect("anthropic", None, "ANTHROPIC_API_KEY"),
    "azure": Dialect("azure", "${AZURE_API_BASE}", "AZURE_API_KEY"),
    "cerebras": _compatible("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "codestral": Dialect("mistral-openai", "https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY"),
    "custom_openai": _compatible("${OPENAI_API_BASE}", "OPENAI_API_KEY"),
    "dashscope": _compatible("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "deepinfra": _compatible("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "deepseek": _compatible("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "fireworks_ai": _compatible("https://api.fireworks.ai/inference/v1", "FIREWORKS_AI_API_KEY"),
    "gemini": _compatible("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "github": _compatible("https://models.inference.ai.azure.com", "GITHUB_API_KEY"),
    "groq": _compatible("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "hosted_vllm": _compatible("${HOSTED_VLLM_API_BASE}", None),
    "litellm_proxy": _compatible("${LITELLM_PROXY_API_BASE}", "LITELLM_PROXY_API_KEY"),
    "llamafile": _compatible("http://127.0.0.1:8080/v1", None),
    "lm_studio": _compatible("${LM_STUDIO_API_BASE}", None),
    "meta_llama": _compatible("https://api.llama.com/compat/v1", "LLAMA_API_KEY"),
    "mistral": Dialect("mistral-openai", None, "MISTRAL_API_KEY"),
    "moonshot": _compatible("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "nvidia_nim": _compatible("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    "ollama": _compatible("http://127.0.0.1:11434/v1", None),
    "ollama_chat": _compatible("http://127.0.0.1:11434/v1", None),
    "openai": _compatible("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "openai_like": _compatible("${OPENAI_LIKE_API_BASE}", "OPENAI_LIKE_API_KEY"),
    "openrouter": Dialect("openrouter", None, "OPENROUTER_API_KEY"),
    "perplexity": _compatible("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY", done_marker=False),
    "sambanova": _compatible("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "together_ai": _compatible("https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    "volcengine": _compatible("https://ark.cn-beijing.volces.com/api/v3", "VOLCENGINE_API_KEY"),
    "xai": _compatible("https://api.x.ai/v1", "XAI_API_KEY"),
}
# For prefixes that are not listed here, if there is a URL: most of LiteLLM's providers speak OpenAI's API.
UNLISTED = "openai_compatible"
DIALECTS[UNLISTED] = _compatible("${OPENAI_LIKE_API_BASE}", None)
_HOSTS = {
    (dialect.url or "").removeprefix("https://").partition("/")[0]: prefix
    for prefix, dialect in DIALECTS.items()
    if (dialect.url or "").startswith("https://")
} | {"api.mistral.ai": "mistral"}
_BARE_NAMES = {"openai": ("gpt-", "chatgpt-", "o1", "o3", "o4", "*"), "anthropic": ("claude",)}


def dialect_of(model: str, stated: str | None, url: Any) -> tuple[str, str] | None:
    """The prefix that says which provider serves a model, and that provider's name for it; None if it is not known.

    `stated` is what `custom_llm_provider` says. A server of one's own takes any name.
    """
    if stated is not None:
        return (stated, _own_name(stated, model.removeprefix(f"{stated}/"))) if stated in DIALECTS else None
    prefix, slash, rest = model.partition("/")
    if rest.startswith(_RESPONSES) and prefix in ("openai", "azure"):
        return None
    if slash and prefix in DIALECTS and rest:
        return prefix, _own_name(prefix, rest)
    for name, beginnings in _BARE_NAMES.items():
        if not slash and model.startswith(beginnings):
            return name, model
    return None if url is None or prefix in _UNSUPPORTED else _at_a_server(model, str(url))


def _at_a_server(model: str, url: str) -> tuple[str, str]:
    """What has no prefix of a provider that is known: the name is whole where the URL is a known provider's, as it is
    for LiteLLM. Models have slashes there, too."""
    if known := _HOSTS.get(url.partition("://")[2].partition("/")[0]):
        return known, model
    rest = model.partition("/")[2]
    return (UNLISTED, rest) if rest else ("openai", model)


_UNSUPPORTED = {
    "azure_ai",
    "azure_text",
    "bedrock",
    "bedrock_converse",
    "clarifai",
    "cloudflare",
    "cohere",
    "cohere_chat",
    "huggingface",
    "nlp_cloud",
    "oci",
    "petals",
    "predibase",
    "replicate",
    "sagemaker",
    "sagemaker_chat",
    "snowflake",
    "text-completion-codestral",
    "text-completion-openai",
    "triton",
    "vertex_ai",
    "vertex_ai_beta",
    "watsonx",
}
_RESPONSES = "responses/"  # asks by another API than for chat completions
_AZURES_SERIES = ("o_series/", "gpt5_series/")  # what kind of model a deployment has, as LiteLLM is told


def _own_name(prefix: str, model: str) -> str:
    if prefix == "fireworks_ai" and "/" not in model and "*" not in model:
        return f"accounts/fireworks/models/{model}"
    if prefix == "azure":
        for series in _AZURES_SERIES:
            model = model.removeprefix(series)
    return model
