"""What the demo upstream serves: models with their prices, and models that misbehave on purpose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

_ONE_MILLION = Decimal(1_000_000)
_CREATED = 1_763_769_600  # 2025-11-22
_SPECIAL_CONTEXT_LENGTH = 128_000
_LISTED_ERROR_STATUSES = (400, 401, 402, 429, 500, 503)
_ERROR_MODEL = re.compile(r"demo/error-([45][0-9]{2})")
_SUPPORTED_PARAMETERS = (
    "max_completion_tokens",
    "max_tokens",
    "response_format",
    "stop",
    "structured_outputs",
    "tool_choice",
    "tools",
)


@dataclass(frozen=True, slots=True)
class Price:
    """USD per token; divide what the price lists say for one million."""

    prompt: Decimal
    completion: Decimal

    @classmethod
    def per_1m(cls, prompt: str, completion: str) -> Price:
        """From USD per 1M tokens, as prices are usually quoted."""
        return cls((Decimal(prompt) / _ONE_MILLION).normalize(), (Decimal(completion) / _ONE_MILLION).normalize())


@dataclass(frozen=True, slots=True)
class Model:
    """An ordinary model of the list. No model runs behind it: all of them give the demo's answer."""

    id: str
    price: Price
    context_length: int
    description: str = "Answered by the demo upstream, at this model's price."


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a model treats its callers; all defaults together are a model that just answers.

    `status` refuses with that HTTP status: always, or `refusals` times before each answer. `slow` waits first. The
    other two count the stream's chunks that still come before the connection breaks, or before an error event.
    """

    description: str = ""
    status: int | None = None
    refusals: int | None = None
    slow: bool = False
    cut_after_chunks: int | None = None
    error_after_chunks: int | None = None


MODELS = (
    Model("z-ai/glm-4.6", Price.per_1m("0.0001", "0.0002"), 128_000),
    Model("deepseek-ai/DeepSeek-V3.1-Terminus", Price.per_1m("0.0003", "0.0005"), 64_000),
    Model("moonshotai/Kimi-K2-Instruct-0905", Price.per_1m("0.0005", "0.0010"), 200_000),
    Model("openai/gpt-4o-mini", Price.per_1m("0.15", "0.60"), 128_000),
    Model("anthropic/claude-sonnet-4.5", Price.per_1m("3", "15"), 200_000),
)

SPECIAL_MODELS: Mapping[str, Behaviour] = {
    "demo/error-<status>": Behaviour("Refuses with that HTTP status, 400 to 599; 429 and 503 carry a Retry-After."),
    "demo/flaky": Behaviour("Refuses with 503 twice, then answers, and so on.", status=503, refusals=2),
    "demo/slow": Behaviour("Waits two seconds before it answers.", slow=True),
    "demo/cut": Behaviour("Breaks the connection in the middle of the answer.", cut_after_chunks=3),
    "demo/error-in-stream": Behaviour("Begins a stream and ends it with an error event.", error_after_chunks=3),
    "demo/error-in-body": Behaviour(
        "Answers 200 with an error for a body, or for a first event.", error_after_chunks=0
    ),
}

DEFAULT_MODEL = MODELS[0].id
_PRICES = {model.id: model.price for model in MODELS}
_PRICE_OF_OTHERS = Price.per_1m("0.10", "0.20")
_ANSWERS = Behaviour()


def behaviour_of(model: str) -> Behaviour:
    """What a model name asks for; an unknown one just answers."""
    error = _ERROR_MODEL.fullmatch(model)
    if error is not None:
        return Behaviour(status=int(error[1]))
    return SPECIAL_MODELS.get(model, _ANSWERS)


def price_of(model: str) -> Price:
    """The price of the list; models that are not on it have one price together."""
    return _PRICES.get(model, _PRICE_OF_OTHERS)


def models_document() -> dict[str, object]:
    """The answer to `GET /models`."""
    return {"data": [_model_document(model) for model in (*MODELS, *_special_models())]}


def _special_models() -> Iterator[Model]:
    for name, behaviour in SPECIAL_MODELS.items():
        statuses = _LISTED_ERROR_STATUSES if "<status>" in name else ("",)
        for status in statuses:
            name_of_one = name.replace("<status>", str(status))
            yield Model(name_of_one, _PRICE_OF_OTHERS, _SPECIAL_CONTEXT_LENGTH, behaviour.description)


def _model_document(model: Model) -> dict[str, object]:
    vendor, _, name = model.id.partition("/")
    return {
        "id": model.id,
        "canonical_slug": model.id,
        "name": f"{vendor}: {name} (demo)",
        "created": _CREATED,
        "description": model.description,
        "context_length": model.context_length,
        "architecture": {
            "modality": "text->text",
            "input_modalities": ["text"],
            "output_modalities": ["text"],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "pricing": {
            "prompt": f"{model.price.prompt:f}",
            "completion": f"{model.price.completion:f}",
            "request": "0",
            "image": "0",
            "web_search": "0",
            "internal_reasoning": "0",
        },
        "top_provider": {
            "context_length": model.context_length,
            "max_completion_tokens": None,
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": list(_SUPPORTED_PARAMETERS),
    }
