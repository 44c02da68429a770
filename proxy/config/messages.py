"""What validation found, in the words of whoever wrote the file."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from proxy.config.problems import HIDDEN, ConfigErrors, Path, Problem, closest, did_you_mean
from proxy.config.references import Expanded, as_written, value_at
from proxy.config.schema import GatewayConfig

_OF_LITELLM = {"model_list", "litellm_settings", "router_settings", "general_settings"}
_KEY = "[key]"  # pydantic's mark for "about the key, not the value"
_LONGEST_SHOWN = 60

_MUST_BE = {
    "model_type": "a mapping of keys to values",
    "dict_type": "a mapping of names to values",
    "tuple_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "decimal_type": "a number",
    "is_instance_of": "a number",
    "bool_type": "true or false",
    "finite_number": "a finite number",
}

_WITHOUT_VALUES = {"text", "number", "empty", "hedge", "price"}  # our own errors that never say what was given
_PLAIN = {
    "secret": "a secret must be a reference to the environment and nothing else",
    "no_secret": "the environment variable that it refers to, or the file that stands for it, does not hold one line "
    "of text",
    "twice": "is given twice",
}

_LIMITS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
}


def problems_of(error: ValidationError, data: Any) -> Iterator[Problem]:
    """One problem for each error in those data; a missing key that was only misspelt is told once."""
    details = error.errors(include_url=False)
    unknown = [_path(one) for one in details if one["type"] == "extra_forbidden"]
    for one in details:
        path = _path(one)
        if one["type"] == "missing" and any(
            path[:-1] == other[:-1] and closest(str(other[-1]), known_keys(other[:-1])) == path[-1] for other in unknown
        ):
            continue
        plain, more = _message(one, path, value_at(data, path))
        yield Problem(
            path, more if plain is None else plain + more, plain=plain or _PLAIN.get(one["type"], "is not valid")
        )


def without_values(errors: ConfigErrors) -> tuple[str, ...]:
    """For /health and logs: places, keys that are known, and what is wrong, but nothing else that the file says."""
    lines = (problem.plain_text(errors.name, _known(problem.path)) for problem in errors.problems)
    return tuple(dict.fromkeys(lines))


def _known(path: Path) -> Path:
    """With names that are free, and keys that are unknown, hidden."""
    return tuple(
        part if isinstance(part, int) or part in known_keys(path[:end]) else HIDDEN for end, part in enumerate(path)
    )


def _path(error: ErrorDetails) -> Path:
    location = error["loc"]
    return location[:-1] if location and location[-1] == _KEY else location


def _message(error: ErrorDetails, path: Path, written: Any) -> tuple[str | None, str]:
    """What is wrong, and what more there is to tell of the value; None and all of it if they are not apart."""
    kind, limits = error["type"], error.get("ctx", {})
    given = written if isinstance(written, Expanded) else error["input"]
    if kind == "missing":
        return "is required", ""
    if kind == "extra_forbidden":
        return "unknown key", _meant(path)
    if kind in _LIMITS:
        words, limit = _LIMITS[kind]
        return f"must be {words} {_figure(limits[limit])}", f", not {_shown(given)}"
    if given is None:
        return "is empty: give it a value or remove the key", ""
    if kind == "literal_error":
        return f"must be {limits['expected']}", f", not {_shown(given)}" + _similar(given, limits["expected"])
    return _of_kind(error, given)


def _of_kind(error: ErrorDetails, given: Any) -> tuple[str | None, str]:
    kind = error["type"]
    if kind == "too_long":
        return f"must have at most {error['ctx']['max_length']} entries", ""
    if must_be := _MUST_BE.get(kind):
        return f"must be {must_be}", f", not {_shown(given)}" + _quotes(kind, given)
    return (error["msg"], "") if kind in _WITHOUT_VALUES else (None, error["msg"])


def _meant(path: Path) -> str:
    key = str(path[-1])
    if len(path) == 1 and key in _OF_LITELLM:
        return " (a file of LiteLLM? `llmgateway import-litellm` converts it)"
    return did_you_mean(key, known_keys(path[:-1]))


def _similar(given: Any, expected: str) -> str:
    return did_you_mean(given, expected.split("'")[1::2]) if isinstance(given, str) else ""


def _quotes(kind: str, given: Any) -> str:
    return ": put it in quotes" if kind == "string_type" and isinstance(given, bool | int | Decimal) else ""


def _figure(limit: float) -> str:
    return f"{limit:g}" if abs(limit) < 1e6 else str(int(limit))  # noqa: PLR2004


def _shown(value: Any) -> str:
    if isinstance(value, Expanded):
        return f"what {as_written(value)} stands for"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def known_keys(path: Path) -> tuple[str, ...]:
    """The keys that the section at a path may have; none where names are free."""
    kind: Any = GatewayConfig
    for part in path:
        kind = _part(kind, part)
    return tuple(kind.model_fields) if _is_section(kind) else ()


def _part(kind: Any, part: str | int) -> Any:
    """The type of what a section, a mapping or a list of that type holds at a key."""
    if _is_section(kind):
        known = kind.model_fields.get(part)
        return _plain(known.annotation) if known else None
    arguments = get_args(kind)
    return _plain(arguments[-1 if get_origin(kind) is dict else 0]) if arguments else None


def _plain(kind: Any) -> Any:
    """Without annotations and None."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return _plain(get_args(kind)[0])
    return kind


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
