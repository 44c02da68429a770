"""Reading `usage`: tokens, and what was billed; whatever makes no sense is left out, and costs nothing beside it."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

import msgspec

from proxy.domain.chat import Usage
from proxy.domain.price_tiers import priced_service_tier
from proxy.domain.values import MOST_TOKENS, CostAmount
from proxy.infrastructure.chat_completion.reading import FALSY, look

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]  # what no row holds makes no sense either


class _Details(msgspec.Struct, frozen=True):
    """Members of `prompt_tokens_details` and of `completion_tokens_details`.

    Audio and images have the same names in both. What was written to the cache has a name of its own at DashScope's,
    and what of it for an hour has one at none: `cache_write_1h_tokens` is ours.
    """

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Bill(msgspec.Struct):
    """Perplexity's `cost`, in USD: tokens, searches, and the fee for the request."""

    total_cost: Decimal | None = None


class _Usage(msgspec.Struct):
    """`usage` of a completion: OpenAI's CompletionUsage, and what others add.

    Cache hits outside the details: DeepSeek's `prompt_cache_hit_tokens`, Moonshot's and Together's `cached_tokens`.
    Bills: OpenRouter's and Perplexity's `cost`, xAI's `cost_in_usd_ticks`.
    """

    prompt_tokens: msgspec.Raw = msgspec.Raw()
    completion_tokens: msgspec.Raw = msgspec.Raw(b"0")  # absent where nothing was generated
    total_tokens: msgspec.Raw = msgspec.Raw()
    prompt_tokens_details: msgspec.Raw = msgspec.Raw()
    completion_tokens_details: msgspec.Raw = msgspec.Raw()
    prompt_cache_hit_tokens: msgspec.Raw = msgspec.Raw()
    cached_tokens: msgspec.Raw = msgspec.Raw()
    cost: msgspec.Raw = msgspec.Raw()
    cost_in_usd_ticks: msgspec.Raw = msgspec.Raw()
    cache_read_input_tokens: msgspec.Raw = msgspec.Raw()
    cache_creation_input_tokens: msgspec.Raw = msgspec.Raw()


class PlainUsage(msgspec.Struct):
    """`_Usage` as nearly every answer has it, read in one go."""

    prompt_tokens: _Tokens
    completion_tokens: _Tokens = 0
    total_tokens: _Tokens = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: msgspec.Raw = msgspec.Raw()
    cached_tokens: msgspec.Raw = msgspec.Raw()
    cost: Decimal | _Bill | None = None
    cost_in_usd_ticks: _Tokens | None = None
    cache_read_input_tokens: msgspec.Raw = msgspec.Raw()
    cache_creation_input_tokens: msgspec.Raw = msgspec.Raw()


_usages = msgspec.json.Decoder(_Usage)
_details = msgspec.json.Decoder(_Details)
_costs = msgspec.json.Decoder(Decimal | _Bill)
_NO_DETAILS = _Details()
_NO_COST = (b"", b"null")
_USD_PER_TICK_EXPONENT = -10
_SMALLEST_EXPONENT, _LARGEST_EXPONENT = -30, 9
_COUNT = re.compile(rb"[0-9]{1,15}")


def read_usage(raw: msgspec.Raw) -> Usage | None:
    """None where there is no usage, or one that makes no sense (no prompt_tokens, odd counts) and tells no bill.

    Beside a bill such counts are 0, and marked as estimated.
    """
    if bytes(raw) in FALSY:
        return None
    try:
        usage = _usages.decode(raw)
    except (ValueError, RecursionError):
        return None
    prompt_tokens, completion_tokens = count_of(look(usage.prompt_tokens)), count_of(look(usage.completion_tokens))
    is_sound = prompt_tokens is not None and completion_tokens is not None
    read = usage_of(
        PlainUsage(
            prompt_tokens or 0,
            completion_tokens or 0,
            (count_of(look(usage.total_tokens)) or 0) if is_sound else 0,
            _read_details(usage.prompt_tokens_details),
            _read_details(usage.completion_tokens_details),
            usage.prompt_cache_hit_tokens,
            usage.cached_tokens,
            _read_cost(usage.cost),
            count_of(look(usage.cost_in_usd_ticks)),
            usage.cache_read_input_tokens,
            usage.cache_creation_input_tokens,
        )
    )
    if is_sound:
        return read
    return None if read.cost is None else read._replace(estimated=True)


def usage_of(usage: PlainUsage) -> Usage:
    """A detail or a cost that makes no sense is left out.

    Some servers (xAI, Gemini's compatible endpoint) leave reasoning out of `completion_tokens`, and bill it all the
    same: only their total has it. Others leave what they read from a cache, or wrote to it, out of `prompt_tokens`
    (Bedrock's counts, handed on, or Anthropic's by their own names): that is no output.
    """
    output_tokens = max(usage.completion_tokens, usage.total_tokens - usage.prompt_tokens)
    if output_tokens > usage.completion_tokens and _is_of_the_cache(usage, output_tokens - usage.completion_tokens):
        output_tokens = usage.completion_tokens
    cost = None if usage.cost is None and usage.cost_in_usd_ticks is None else _billed(usage)
    hits = bytes(usage.prompt_cache_hit_tokens) or bytes(usage.cached_tokens)
    if usage.prompt_tokens_details is None and usage.completion_tokens_details is None and not hits:
        return Usage(usage.prompt_tokens, output_tokens, cost=cost)
    prompt, completion = usage.prompt_tokens_details or _NO_DETAILS, usage.completion_tokens_details or _NO_DETAILS
    cached = int(hits) if prompt.cached_tokens is None and hits and _COUNT.fullmatch(hits) else prompt.cached_tokens
    written = prompt.cache_creation_input_tokens if prompt.cache_write_tokens is None else prompt.cache_write_tokens
    if output_tokens - usage.completion_tokens in (cached, written, (cached or 0) + (written or 0)):
        output_tokens = usage.completion_tokens
    return Usage(
        usage.prompt_tokens,
        output_tokens,
        _count(cached),
        _count(completion.reasoning_tokens),
        cost,
        cache_write_tokens=_count(written),
        audio_tokens=_count(prompt.audio_tokens),
        image_tokens=_count(prompt.image_tokens),
        cache_write_1h_tokens=_count(prompt.cache_write_1h_tokens),
        audio_output_tokens=_count(completion.audio_tokens),
        image_output_tokens=_count(completion.image_tokens),
    )


def served_in(service_tier: str | None, usage: Usage | None) -> Usage | None:
    """The usage of an answer that names the tier in which it was made; nearly all name none, or the usual one."""
    if usage is None or service_tier is None or service_tier == "default":
        return usage
    priced = priced_service_tier(service_tier)
    return usage if priced is None else usage._replace(service_tier=priced)


def count_of(value: Any) -> int | None:
    """A number of tokens, also as 10.0; None for what is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _read_details(raw: msgspec.Raw) -> _Details:
    """As far as they make sense: a detail that does not must not cost the totals and the bill beside it."""
    if bytes(raw) in FALSY:
        return _NO_DETAILS
    try:
        details: _Details = _details.decode(raw)
    except (ValueError, RecursionError):
        members = look(raw)
        if not isinstance(members, dict):
            return _NO_DETAILS
        details = _Details(**{name: count_of(members.get(name)) for name in _Details.__struct_fields__})
    return details


def _count(tokens: int | None) -> int | None:
    return None if tokens is None or tokens < 0 else tokens


def _read_cost(raw: msgspec.Raw) -> Decimal | _Bill | None:
    """None for what is no number."""
    if bytes(raw) in _NO_COST:
        return None
    try:
        cost: Decimal | _Bill = _costs.decode(raw)
    except ValueError:
        return None
    return cost


def _is_of_the_cache(usage: PlainUsage, tokens: int) -> bool:
    """Whether so many are those that Anthropic's names tell of."""
    read, written = (
        count_of(look(raw)) or 0 for raw in (usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
    )
    return tokens in (read, written, read + written)


def _billed(usage: PlainUsage) -> CostAmount | None:
    """None where no bill is told that could be one."""
    cost = usage.cost
    if isinstance(cost, _Bill):
        cost = cost.total_cost
    if cost is None and usage.cost_in_usd_ticks is not None:
        cost = Decimal(usage.cost_in_usd_ticks).scaleb(_USD_PER_TICK_EXPONENT)
    return None if cost is None else _billable(cost)


def _billable(cost: Decimal) -> CostAmount | None:
    """None for what nobody would bill: negative, infinite, or with an absurd exponent."""
    if not cost.is_finite() or cost < 0:
        return None
    return CostAmount(cost) if _SMALLEST_EXPONENT <= cost.adjusted() <= _LARGEST_EXPONENT else None
