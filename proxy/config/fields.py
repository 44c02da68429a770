"""The kinds of values that a configuration has. Every one may be given by a reference to the environment."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, SecretStr, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

from proxy.config.references import ONE_VARIABLE, REFERENCE, Expanded
from proxy.domain.errors import InvalidValue
from proxy.domain.exact_prices import check_price
from proxy.domain.price_tiers import SERVICE_TIER, SERVICE_TIER_IN_WORDS

_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_SLASHES = re.compile(r"(?<![:/])/{2,}")
_LARGEST = 10**12
_END = r"$(?!\n)"  # Python's `$` alone would let a newline follow
_NAME_CHARACTERS = r"[^*{}\x00-\x1f\x7f]*"

PROVIDER_NAME = rf"^[A-Za-z0-9][A-Za-z0-9._-]*{_END}"
MODEL_NAME = rf"^(?!\s){_NAME_CHARACTERS}{_END}"
MODEL_PATTERN = rf"^(?!\s){_NAME_CHARACTERS}\*?{_NAME_CHARACTERS}{_END}"
_HOST_LABEL = r"[^\s/?#@:.\[\]\\]{1,63}"
_HOST = rf"(\[[0-9A-Fa-f:.]+(%[^\s/?#@\[\]\\]+)?\]|{_HOST_LABEL}(\.{_HOST_LABEL})*\.?)"
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
BASE_URL = rf"^https?://{_HOST}(:0*{_PORT}|:)?(/[^\s?#]*)?{_END}"
BASE_URL_IN_WORDS = (
    "a URL that begins with http:// or https:// and a host, with a port from 1 to 65535 if any, "
    "without user, query or fragment"
)
LABEL = rf"^(?!\s)[^{{}}\x00-\x1f\x7f]*{_END}"
HEADER_NAME = rf"^[A-Za-z0-9!#$%&'*+.^_`|~-]+{_END}"
HEADER_VALUE = rf"^[^\x00-\x08\x0a-\x1f\x7f]*{_END}"
RESERVED_HEADERS = ("connection", "content-length", "content-type", "host", "transfer-encoding")
SECRET_HEADERS = ("api-key", "authorization", "cookie", "proxy-authorization", "x-api-key", "x-goog-api-key")
PRICE = rf"^[0-9]{{1,9}}(\.[0-9]{{1,30}})?{_END}"


@dataclass(frozen=True, slots=True)
class _ByReference:
    """A value that a reference may give: `read` makes of the text what the field takes."""

    read: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"type": "string", "pattern": REFERENCE}]}


@dataclass(frozen=True, slots=True)
class _Text:
    """Text of a pattern; `must` says what it has to be like. A key cannot be a reference."""

    pattern: str
    must: str
    longest: int = 512
    is_key: bool = False
    reserved: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        text = core_schema.str_schema(strict=True)
        read = core_schema.no_info_before_validator_function(self._read, text)
        return core_schema.no_info_after_validator_function(self._check, read)

    def _read(self, value: Any) -> Any:
        return _text(value)

    def _check(self, value: str) -> str:
        if not value:
            raise PydanticCustomError("text", "must not be empty")
        if value == self.reserved:
            raise PydanticCustomError("text", "the name '{name}' is reserved", {"name": value})
        if len(value) > self.longest:
            raise PydanticCustomError("text", "must not be longer than {longest} characters", {"longest": self.longest})
        if re.search(self.pattern, value) is None:
            raise PydanticCustomError("text", "must be {must}", {"must": self.must})
        return value

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # Not `pattern` beside `type`: for keys pydantic would turn it into patternProperties, which admit others.
        fits: JsonSchemaValue = {"pattern": self.pattern, "minLength": 1, "maxLength": self.longest}
        if self.reserved:
            fits["not"] = {"const": self.reserved}
        return {"type": "string", "anyOf": [fits] if self.is_key else [fits, {"pattern": REFERENCE}]}


@dataclass(frozen=True, slots=True)
class OrWord:
    """For the schema alone: a section that one word may stand for."""

    word: str

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"const": self.word}, {"type": "string", "pattern": REFERENCE}]}


class NotEmpty:
    """At least one entry. Pydantic's own check counts the valid ones alone, and tells of each mistake twice."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    @staticmethod
    def _check(entries: Any) -> Any:
        if not entries:
            raise PydanticCustomError("empty", "needs at least one entry")
        return entries

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        described = handler(schema)
        return {**described, "minItems" if described["type"] == "array" else "minProperties": 1}


class _UrlText(_Text):
    """A URL that a client can be made of; what a pattern cannot tell (an address of IPv6) is read, too."""

    def _read(self, value: Any) -> Any:
        """A variable's URL may end in a slash before the file's own: two of them are another path.

        Those of `http://` stay, however many follow: where a host is missing, what follows must not become one.
        """
        return _SLASHES.sub("/", str(value)) if isinstance(value, Expanded) else value

    def _check(self, value: str) -> str:
        url = super()._check(value)
        try:
            urlsplit(url)
        except ValueError:
            raise PydanticCustomError("text", "must be {must}", {"must": self.must}) from None
        return url


class _HeaderText(_Text):
    """Text of which nobody can know whether it is a secret."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        text = _Text.__get_pydantic_core_schema__(self, source, handler)
        read = core_schema.no_info_before_validator_function(_stripped, text)
        return core_schema.chain_schema([read, handler(source)])


class _ApiKey:
    """A secret, which only a reference may give."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "pattern": ONE_VARIABLE}

    @staticmethod
    def _read(value: Any) -> SecretStr:
        if not isinstance(value, Expanded) or not value.is_one_variable:
            raise PydanticCustomError(
                "secret",
                "a secret must be a reference to the environment and nothing else, like ${name}",
                {"name": "{OPENROUTER_API_KEY}"},
            )
        name, key = {"name": value.variables[0]}, _stripped(value)
        if not key:
            raise PydanticCustomError("no_secret", "the environment variable {name} is empty", name)
        if not fits_a_header(key):
            raise PydanticCustomError(
                "no_secret", "the environment variable {name} has characters in it that no HTTP header can carry", name
            )
        return SecretStr(key)


def _whatever_case(names: tuple[str, ...]) -> str:
    """A pattern of those names; JSON Schema has no other way to ignore case."""
    return f"^({'|'.join(''.join(f'[{c.upper()}{c}]' if c.isalpha() else c for c in name) for name in names)})$"


def is_header(name: str, known: tuple[str, ...]) -> bool:
    """Whether a header is one of those, whatever its case."""
    return name.lower() in known


def fits_a_header(key: str) -> bool:
    """Whether HTTP can carry it: nothing that ends a line, or is no text. Letters of any kind are sent as UTF-8."""
    return key.isprintable()


def _stripped(value: Any) -> Any:
    """A reference's text without what surrounds it: a mounted secret often ends in a newline."""
    return str(value.strip()) if isinstance(value, Expanded) else value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Expanded) else value


def _number(value: Any) -> Any:
    """A number as it is; a reference's text as the number that it is."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number, not {value}", {"value": str(value).lower()})
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) is None:
            raise PydanticCustomError("number", "must be a number, not text")
        if not isinstance(value, Expanded):
            raise PydanticCustomError("number", "must be a number, not text: remove the quotes")
        return Decimal(value)
    return value


def _whole(value: Any) -> Any:
    number = _number(value)
    if not isinstance(number, float | Decimal):
        return number
    exact = Decimal(number)
    if not exact.is_finite() or abs(exact) > _LARGEST or exact != int(exact):
        raise PydanticCustomError("number", "must be a whole number")
    return int(exact)


def _real(value: Any) -> Any:
    number = _number(value)
    if not isinstance(number, int | Decimal):
        return number
    try:
        return float(number)
    except OverflowError:
        raise PydanticCustomError("number", "must be a smaller number") from None


def _exact(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return Decimal(value) if re.search(PRICE, value) or isinstance(value, Expanded) else _number(value)
        except InvalidOperation:
            raise PydanticCustomError("number", "must be a number") from None
    number = _number(value)
    return Decimal(number) if isinstance(number, int) else number


def _yes_or_no(value: Any) -> Any:
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, Expanded) else value


def _price(value: Decimal) -> Decimal:
    try:
        check_price("the price", value)
    except InvalidValue as problem:
        raise PydanticCustomError("price", "{problem}", {"problem": str(problem)}) from None
    return value


def each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    if twice := next((value for value in values if values.count(value) > 1), None):
        raise PydanticCustomError("twice", "'{value}' is given twice", {"value": twice})
    return values


Choice = _ByReference(_text)
YesNo = Annotated[bool, Field(strict=True), _ByReference(_yes_or_no)]
Count = Annotated[int, Field(strict=True, ge=0, le=_LARGEST), _ByReference(_whole)]
PositiveCount = Annotated[int, Field(strict=True, ge=1, le=_LARGEST), _ByReference(_whole)]
Seconds = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False), _ByReference(_real)]
RetrySeconds = Annotated[float, Field(strict=True, ge=0, le=60), _ByReference(_real)]
LongSeconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=True), _ByReference(_real)]
AttemptCount = Annotated[int, Field(strict=True, ge=1, le=20), _ByReference(_whole)]
Percent = Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False), _ByReference(_real)]
Weight = Annotated[float, Field(strict=True, ge=0, le=_LARGEST, allow_inf_nan=False), _ByReference(_real)]

ProviderKey = Annotated[
    str, _Text(PROVIDER_NAME, "letters, digits, '.', '_' and '-', beginning with a letter or a digit", is_key=True)
]
ProviderName = Annotated[str, _Text(PROVIDER_NAME, "the name of a provider")]
_ONE_STAR = "a model name, with at most one '*', without braces or control characters"
_NO_STAR = "a model name, without '*', braces or control characters"
PublicModelKey = Annotated[str, _Text(MODEL_PATTERN, _ONE_STAR, is_key=True, reserved="auto")]
AliasKey = Annotated[str, _Text(MODEL_NAME, _NO_STAR, is_key=True, reserved="auto")]
PublicModelName = Annotated[str, _Text(MODEL_NAME, _NO_STAR, reserved="auto")]
PublicModelPattern = Annotated[str, _Text(MODEL_PATTERN, _ONE_STAR)]
GroupKey = ProviderKey
UpstreamModel = Annotated[str, _Text(MODEL_PATTERN, _ONE_STAR)]
ServiceTier = Annotated[str, _Text(SERVICE_TIER, SERVICE_TIER_IN_WORDS)]
Label = Annotated[str, _Text(LABEL, "text without braces or control characters")]
BaseUrl = Annotated[str, _UrlText(BASE_URL, BASE_URL_IN_WORDS, longest=2048)]
ApiKey = Annotated[SecretStr, _ApiKey()]
HeaderName = Annotated[str, _Text(HEADER_NAME, "the name of an HTTP header", is_key=True)]
HeaderValue = Annotated[
    SecretStr, _HeaderText(HEADER_VALUE, "text without control characters, as in HTTP headers", longest=8192)
]
Price = Annotated[
    Decimal,
    Field(strict=True),
    AfterValidator(_price),
    _ByReference(_exact),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "exclusiveMaximum": 1_000_000_000},
                {"type": "string", "anyOf": [{"pattern": PRICE}, {"pattern": REFERENCE}]},
            ]
        }
    ),
]
Tags = Annotated[tuple[Label, ...], Field(json_schema_extra={"uniqueItems": True}), AfterValidator(each_once)]
Headers = Annotated[
    dict[HeaderName, HeaderValue],
    Field(
        json_schema_extra={
            "allOf": [
                {"propertyNames": {"not": {"pattern": _whatever_case(RESERVED_HEADERS)}}},
                {"patternProperties": {_whatever_case(SECRET_HEADERS): {"pattern": REFERENCE}}},
            ]
        }
    ),
]
