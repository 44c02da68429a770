"""Small values that cannot be wrong once they exist."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import MAX_PREC, ROUND_HALF_EVEN, Context, Decimal
from typing import Final

from proxy.domain.errors import InvalidValue

UNKNOWN: Final = "unknown"  # what stands where a name should be
MOST_TOKENS: Final = 2**63 - 1  # that a row holds
_CHARACTERS_PER_TOKEN = 4
_DISPLAY_PRECISION = Decimal("0.000001")
_DISPLAY = Context(prec=MAX_PREC, rounding=ROUND_HALF_EVEN)  # the usual one has no place for 1e30 with six decimals


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model's name exactly as given; equality is on the text."""

    value: str

    def __post_init__(self) -> None:
        if not self.value or not self.value.strip():
            raise InvalidValue("Model name cannot be null or empty")

    @property
    def provider(self) -> str:
        """The text before the first `/` (`z-ai` of `z-ai/glm-4.6`), else `unknown`."""
        head, slash, _ = self.value.partition("/")
        return head if slash and head else UNKNOWN

    def __str__(self) -> str:
        return self.value


def name_or_unknown(text: str) -> str:
    """The text, or `unknown` if it is blank."""
    return text if text.strip() else UNKNOWN


@dataclass(frozen=True, slots=True, order=True)
class TokenCount:
    """A number of tokens, never negative."""

    value: int

    def __post_init__(self) -> None:
        if self.value < 0:
            raise InvalidValue("Token count cannot be negative")

    @classmethod
    def estimate_from_text(cls, text: str) -> TokenCount:
        """A rough count, four characters to a token; for when no tokenizer may be asked."""
        return cls(estimate_tokens(len(text)))

    def exceeds_limit(self, limit: int) -> bool:
        """Strictly greater: a count equal to the limit is within it."""
        return self.value > limit


def estimate_tokens(characters: int) -> int:
    """Tokens of a text of that many characters, four to a token, rounded down."""
    return characters // _CHARACTERS_PER_TOKEN


@dataclass(frozen=True, slots=True, order=True)
class CostAmount:
    """An amount of USD, exact; only its display is rounded."""

    usd: Decimal

    def __post_init__(self) -> None:
        if not self.usd.is_finite():
            raise InvalidValue("Cost must be a finite amount")
        if self.usd < 0:
            raise InvalidValue("Cost cannot be negative")

    def __str__(self) -> str:
        return f"${self.usd.copy_abs().quantize(_DISPLAY_PRECISION, context=_DISPLAY):f}"  # -0 is no less than 0
