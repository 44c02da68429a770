"""LiteLLM's model prefixes: of which kind each provider is, where it is, and which variable has its key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Dialect:
    """`url` None: the kind has its own. A `url` that is a reference is the variable where LiteLLM looks for one.

    `done_marker` says whether all of its streams end with `[DONE]`; `usage_in_streams` is written if it is not the
    kind's own.
    """

    kind: str
    url: str | None = None
    key_variable: str | None = None
    done_marker: bool = True
    usage_in_streams: str | None = None


def _compatible(
    url: str, key_variable: str | None, *, done_marker: bool = True, usage_in_streams: str | None = None
) -> Dialect:
    return Dialect("openai", url, key_variable, done_marker, usage_in_streams)


# It refuses `stream_options`, and promises no `[DONE]`.
_COHERE = _compatible(
    "https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", done_marker=False, usage_in_streams="never"
)


DIALECTS = {
    "aiml": _compatible("https://api.aimlapi.com/v1", "AIML_API_KEY"),
    "anthropic": Dialect("anthropic", None, "ANTHROPIC_API_KEY"),
    "azure": Dialect("azure", "${AZURE_API_BASE}", "AZURE_API_KEY"),
    "cerebras": _compatible("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "chutes": _compatible("https://llm.chutes.ai/v1", "CHUTES_API_KEY"),
    "cloudflare": _compatible(
        "https://api.cloudflare.com/client/v4/accounts/${CLOUDFLARE_ACCOUNT_ID}/ai/v1", "CLOUDFLARE_API_KEY"
    ),
    "codestral": Dialect("mistral-openai", "https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY"),
    "cohere": _COHERE,
    "cohere_chat": _COHERE,
    "cometapi": _compatible("https://api.cometapi.com/v1", "COMETAPI_KEY"),
    "custom_openai": _compatible("${OPENAI_API_BASE}", "OPENAI_API_KEY"),
    "dashscope": _compatible("https://dashscope.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "databricks": _compatible("${DATABRICKS_API_BASE}", "DATABRICKS_API_KEY"),
    "deepinfra": _compatible("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "deepseek": _compatible("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "docker_model_runner": _compatible("http://127.0.0.1:22088/engines/llama.cpp/v1", None),
    "featherless_ai": _compatible("https://api.featherless.ai/v1", "FEATHERLESS_AI_API_KEY"),
    "fireworks_ai": _compatible("https://api.fireworks.ai/inference/v1", "FIREWORKS_AI_API_KEY"),
    "friendliai": _compatible("https://api.friendli.ai/serverless/v1", "FRIENDLI_TOKEN"),
    "gemini": _compatible("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "github": _compatible("https://models.inference.ai.azure.com", "GITHUB_API_KEY"),
    "groq": _compatible("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "hosted_vllm": _compatible("${HOSTED_VLLM_API_BASE}", None),
    "hyperbolic": _compatible("https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),
    "inception": _compatible("https://api.inceptionlabs.ai/v1", "INCEPTION_API_KEY"),
    "lambda_ai": _compatible("https://api.lambda.ai/v1", "LAMBDA_API_KEY"),
    "litellm_proxy": _compatible("${LITELLM_PROXY_API_BASE}", "LITELLM_PROXY_API_KEY"),
    "llamafile": _compatible("http://127.0.0.1:8080/v1", None),
    "lm_studio": _compatible("${LM_STUDIO_API_BASE}", None),
    "meta_llama": _compatible("https://api.llama.com/compat/v1", "LLAMA_API_KEY"),
    "minimax": _compatible("https://api.minimax.io/v1", "MINIMAX_API_KEY"),
    "mistral": Dialect("mistral-openai", None, "MISTRAL_API_KEY"),
    "modelscope": _compatible("https://api-inference.modelscope.cn/v1", "MODELSCOPE_API_KEY"),
    "moonshot": _compatible("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "morph": _compatible("https://api.morphllm.com/v1", "MORPH_API_KEY"),
    "nano-gpt": _compatible("https://nano-gpt.com/api/v1", "NANOGPT_API_KEY"),
    "nebius": _compatible("https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY"),
    "novita": _compatible("https://api.novita.ai/v3/openai", "NOVITA_API_KEY"),
    "nscale": _compatible("https://inference.api.nscale.com/v1", "NSCALE_API_KEY"),
    "nvidia_nim": _compatible("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    "ollama": _compatible("http://127.0.0.1:11434/v1", None),
    "ollama_chat": _compatible("http://127.0.0.1:11434/v1", None),
    "openai": _compatible("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "openai_like": _compatible("${OPENAI_LIKE_API_BASE}", "OPENAI_LIKE_API_KEY"),
    "openrouter": Dialect("openrouter", None, "OPENROUTER_API_KEY"),
    "ovhcloud": _compatible("https://oai.endpoints.kepler.ai.cloud.ovh.net/v1", "OVHCLOUD_API_KEY"),
    "perplexity": _compatible("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY", done_marker=False),
    "poe": _compatible("https://api.poe.com/v1", "POE_API_KEY"),
    "sambanova": _compatible("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "scaleway": _compatible("https://api.scaleway.ai/v1", "SCW_SECRET_KEY"),
    "together_ai": _compatible("https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    "v0": _compatible("https://api.v0.dev/v1", "V0_API_KEY"),
    "veniceai": _compatible("https://api.venice.ai/api/v1", "VENICE_AI_API_KEY"),
    "vercel_ai_gateway": _compatible("https://ai-gateway.vercel.sh/v1", "VERCEL_AI_GATEWAY_API_KEY"),
    "volcengine": _compatible("https://ark.cn-beijing.volces.com/api/v3", "VOLCENGINE_API_KEY"),
    "wandb": _compatible("https://api.inference.wandb.ai/v1", "WANDB_API_KEY"),
    "xai": _compatible("https://api.x.ai/v1", "XAI_API_KEY"),
    "zai": _compatible("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
}
# For prefixes that are not listed here, if there is a URL: most of LiteLLM's providers speak OpenAI's API.
UNLISTED = "openai_compatible"
DIALECTS[UNLISTED] = _compatible("${OPENAI_LIKE_API_BASE}", None)
_HOSTS = {
    (dialect.url or "").removeprefix("https://").partition("/")[0]: prefix
    for prefix, dialect in DIALECTS.items()
    if (dialect.url or "").startswith("https://")
} | {"api.mistral.ai": "mistral", "api.together.ai": "together_ai", "dashscope-intl.aliyuncs.com": "dashscope"}
_BARE_NAMES = {"openai": ("gpt-", "chatgpt-", "ft:gpt-", "o1", "o3", "o4", "*"), "anthropic": ("claude",)}


def dialect_of(model: str, stated: str | None, url: Any) -> tuple[str, str] | None:
    """The prefix that says which provider serves a model, and that provider's name for it; None if it is not known.

    `stated` is what `custom_llm_provider` says. A server of one's own takes any name.
    """
    if stated is not None:
        model = f"{stated}/{model.removeprefix(f'{stated}/')}"
    prefix, slash, rest = model.partition("/")
    if _asks_for_responses(model) or (prefix in _ELSEWHERE and url):
        return None
    if slash and prefix in DIALECTS and rest:
        return prefix, _own_name(prefix, rest)
    for name, beginnings in _BARE_NAMES.items():
        if not slash and model.startswith(beginnings):
            return name, model
    return None if url is None or prefix in _UNSUPPORTED else _at_a_server(model, str(url))


def _asks_for_responses(model: str) -> bool:
    """Whether LiteLLM asks for a model by another API than that for chat completions."""
    return model.startswith(("openai/responses/", "azure/responses/"))


def why_none(model: str) -> str:
    """Why there is no dialect of a model, and what to do."""
    if _asks_for_responses(model):
        return f"'{model}' asks for responses; this gateway serves chat completions only"
    if model.startswith(_VERTEX_GEMINI):
        return f"there is no provider here for '{model}'; gemini/ serves it, with a key of Google AI Studio's"
    return (
        f"there is no provider here for '{model}'; if it is served by OpenAI's API as well, "
        "write openai/ before its name there, and that api_base"
    )


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
_ELSEWHERE = ("cohere", "cohere_chat")  # another API than the one here is below an address of one's own
_VERTEX_GEMINI = ("vertex_ai/gemini", "vertex_ai_beta/gemini")
_AZURES_SERIES = ("o_series/", "gpt5_series/")  # what kind of model a deployment has, as LiteLLM is told


def _own_name(prefix: str, model: str) -> str:
    if prefix == "fireworks_ai" and not model.startswith("accounts/") and "#" not in model and "*" not in model:
        return f"accounts/fireworks/models/{model}"
    if prefix == "azure":
        for series in _AZURES_SERIES:
            model = model.removeprefix(series)
    return model
