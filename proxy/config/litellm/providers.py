"""Connections of LiteLLM's deployments, gathered into providers: equal ones are one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from proxy.config.fields import BASE_URL, HEADER_NAME, HEADER_VALUE, RESERVED_HEADERS, SECRET_HEADERS, is_header
from proxy.config.litellm.dialects import DIALECTS
from proxy.config.litellm.source import Section, has_reference
from proxy.config.references import ONE_VARIABLE

# What people write where a key is asked for and none is needed.
_NO_KEY = re.compile(
    r"|(sk-)?(none|null|empty|dummy|(my-)?fake(-key)?|anything|not-(needed|used|required)|unused|placeholder|n/?a"
    r"|no-key(-(needed|required))?)",
    re.IGNORECASE,
)
# LiteLLM adds it, or speaks another dialect.
_BELOW_V1 = ("docker_model_runner", "minimax", "mistral", "ollama", "ollama_chat")


@dataclass(slots=True)
class Providers:
    """The providers so far, by name, each as our file has it. `reserved` are variables that hold other keys."""

    reserved: frozenset[str] = frozenset()
    by_name: dict[str, dict[str, Any]] = field(default_factory=dict)
    _variables: dict[tuple[str, str], str] = field(default_factory=dict)

    def name_for(self, prefix: str, params: Section) -> str:
        """The name of the provider that a deployment's parameters describe."""
        dialect = DIALECTS[prefix]
        provider: dict[str, Any] = {"kind": dialect.kind}
        url = _url(prefix, params)
        if url is None and dialect.url is not None:
            url = _of_azure(dialect.url) if prefix == "azure" else dialect.url
        if url:
            provider["base_url"] = url
        if key := self._key(prefix, params):
            provider["api_key"] = key
        if headers := _headers(params):
            provider["headers"] = headers
        if not dialect.done_marker:
            provider["done_marker"] = False
        if dialect.usage_in_streams is not None:
            provider["usage_in_streams"] = dialect.usage_in_streams
        return self._named(prefix, provider)

    def _named(self, prefix: str, provider: dict[str, Any]) -> str:
        name, count = prefix, 1
        while self.by_name.setdefault(name, provider) != provider:
            count += 1
            name = f"{prefix}-{count}"
        return name

    def _key(self, prefix: str, params: Section) -> str | None:
        usual = DIALECTS[prefix].key_variable
        given = params.take("api_key")
        if given is None:
            return f"${{{usual}}}" if usual else None
        if isinstance(given, str) and re.search(ONE_VARIABLE, given):
            return given
        if not isinstance(given, str) or _NO_KEY.fullmatch(given):
            return None
        variable = self._variable(key_variable(prefix), given)
        params.lose("api_key", f"is a secret in the file: put it into the environment variable {variable}")
        return f"${{{variable}}}"

    def _variable(self, usual: str, secret: str) -> str:
        """The variable for a secret: the usual one if no other key is there, else numbered ones."""
        if (known := self._variables.get((usual, secret))) is not None:
            return known
        taken = {*self.reserved, *self._variables.values()}
        name, count = usual, 1
        while name in taken:
            count += 1
            name = f"{usual}_{count}"
        self._variables[usual, secret] = name
        return name


def key_variable(prefix: str) -> str:
    """The variable that a provider's key is usually in."""
    return DIALECTS[prefix].key_variable or f"{re.sub(r'[^A-Z0-9]', '_', prefix.upper())}_API_KEY"


def url_in(params: Section) -> tuple[str, Any]:
    """Which of their two names a deployment's URL has, and the URL; None if there is none."""
    key = "api_base" if "api_base" in params else "base_url"
    return key, params.take(key)


def is_usable(url: Any, prefix: str) -> bool:
    """Whether a deployment's URL can be one of a provider; what the environment gives is checked when it is read."""
    if not isinstance(url, str):
        return url is None
    return not url or has_reference(url) or re.search(BASE_URL, _without_version(url, prefix)) is not None


def _without_version(url: str, prefix: str) -> str:
    """LiteLLM takes the whole URL of a call for Azure, as its pages show it."""
    return re.sub(r"\?api-version=[^&]*$", "", url) if prefix == "azure" else url


def _url(prefix: str, params: Section) -> str | None:
    """What paths are added to; LiteLLM takes URLs that have them as well."""
    url = url_in(params)[1]
    if not url:
        return None
    url = _without_version(url, prefix).rstrip("/").removesuffix("/chat/completions")
    if prefix in _BELOW_V1:
        return url.removesuffix("/v1") + "/v1"
    if prefix == "cloudflare":
        return re.sub(r"/ai/run$", "/ai/v1", url)
    if prefix == "anthropic":
        return url.removesuffix("/v1/messages")
    if prefix == "gemini":
        return _of_gemini(url)
    return _of_azure(url) if prefix == "azure" else url


def _of_gemini(url: str) -> str:
    """Google's surface that is OpenAI's, below the one that LiteLLM asks."""
    url = re.sub(r"(//generativelanguage\.googleapis\.com)$", r"\1/v1beta", url)
    return url.removesuffix("/openai") + "/openai"


def _of_azure(url: str) -> str:
    """Azure's surface that is OpenAI's, which wants no api_version."""
    return re.sub(r"(?<!/)/openai(/.*)?$", "", url) + "/openai/v1"


def _headers(params: Section) -> dict[str, str]:
    headers: dict[str, str] = {}
    for section in (params.section("headers"), params.section("extra_headers")):
        for name in section.data:
            value = section.take(name)
            if (reason := _trouble(name, value, headers)) is None:
                headers[name] = value
            else:
                section.lose(name, reason)
    organization = params.text("organization")
    if organization and re.search(HEADER_VALUE, organization):
        headers.setdefault("OpenAI-Organization", organization)
    return headers


def _trouble(name: str, value: Any, others: dict[str, str]) -> str | None:
    if not isinstance(value, str) or not value or re.search(HEADER_VALUE, value) is None:
        return "is no text for a header"
    if re.search(HEADER_NAME, name) is None or name.lower() in {other.lower() for other in others}:
        return "is no name for a header, or one given twice"
    if is_header(name, RESERVED_HEADERS):
        return "is a header that the gateway itself sets"
    if is_header(name, SECRET_HEADERS) and not has_reference(value):
        return "is a secret in the file: put it into the environment, and ${NAME} into the new file"
    return None
