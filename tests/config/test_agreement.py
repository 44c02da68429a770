"""The JSON Schema and the loader agree on every single value."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from proxy.config.document import read_document
from proxy.config.editors import json_schema
from tests.config.documents import EVERYTHING, as_yaml, load, problems, valid_documents

SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)

# What only the loader can see, because it lies between values.
BETWEEN = (
    "there is no ",
    "leads in a circle",
    "is called ",
    "is the model itself",
    "is a model, too",
    "'*' stands for",
    "needs above_input_tokens, service_tier, or both",
    "needs a price, like",
    "is for the same requests as",
)

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
_NUMBERS = st.integers(-(10**13), 10**13) | st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda number: number == 0 or abs(number) > 1e-10
)
_WORDS = st.sampled_from(
    [
        *("", "auto", "*", "a*", "a*b*", " x", "x ", "{x}", "p95", "weighted", "openai", "always", "vision", "tools"),
        *("1", "0.5", "1e3", "-1", "true", "no", "null", "sk-live-1", "${KEY}", "http://x/?a=b", "ftp://x"),
        *(
            "https://u@x",
            "http://h:65536",
            "a\nb",
            "a\n",
            "Host",
            "authorization",
            "X-Api-Key",
            "x" * 600,
            "1234567890",
            f"0.{'1' * 31}",
        ),
    ]
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=5,
)


def test_the_schema_is_a_schema() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_takes_the_file_that_has_everything() -> None:
    document = read_document(EVERYTHING).data
    document["models"]["gpt-4o"]["deployments"][0]["prices"]["input_usd_per_1m_tokens"] = 2.5  # no Decimal in JSON
    assert [error.message for error in VALIDATOR.iter_errors(_as_json(document))] == []


def test_the_schema_describes_every_key() -> None:
    sections = [SCHEMA, *SCHEMA["$defs"].values()]
    for section in sections:
        assert section["description"]
        for name, described in section["properties"].items():
            assert described.get("description"), name


@settings(max_examples=50, deadline=None, suppress_health_check=_SLOW)
@given(valid_documents())
def test_what_is_right_both_accept(document: dict[str, Any]) -> None:
    assert problems(as_yaml(document)) == []
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []


@settings(max_examples=200, deadline=None, suppress_health_check=_SLOW)
@given(valid_documents(), st.data())
def test_of_what_may_be_wrong_both_say_the_same(document: dict[str, Any], data: st.DataObject) -> None:
    changed = _changed(document, data)
    told = problems(as_yaml(changed))
    single = [line for line in told if not any(words in line for words in BETWEEN)]
    if as_yaml(changed).count("${") > as_yaml(document).count("${"):  # whether its text fits no schema knows
        assert VALIDATOR.is_valid(changed) or single
    else:
        assert VALIDATOR.is_valid(changed) == (not single), told


@settings(max_examples=50, deadline=None, suppress_health_check=_SLOW)
@given(valid_documents(), st.data())
def test_any_value_may_come_from_the_environment(document: dict[str, Any], data: st.DataObject) -> None:
    section, key = data.draw(st.sampled_from(list(_leaves(document))))
    value = section[key]
    before = load(as_yaml(document)).config
    section[key] = "${VALUE}"
    text = {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    assert load(as_yaml(document), VALUE=text).config == before
    assert VALIDATOR.is_valid(document)


def _changed(document: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    """The document with a value replaced, a key added, or one removed, somewhere."""
    changed = deepcopy(document)
    section = data.draw(st.sampled_from(list(_sections(changed))))
    keys = list(section) if isinstance(section, dict) else list(range(len(section)))
    how = data.draw(st.sampled_from(["add", "replace", "replace", "replace", "remove"])) if keys else "add"
    if how == "add" and isinstance(section, list):
        section.append(data.draw(_ANYTHING))
    elif how == "add":
        section[data.draw(_WORDS | st.sampled_from(["weight", "kind", "hedge", "x-mine", "wieght"]))] = data.draw(
            _ANYTHING
        )
    elif how == "remove":
        del section[data.draw(st.sampled_from(keys))]
    else:
        section[data.draw(st.sampled_from(keys))] = data.draw(_ANYTHING)
    return changed


def _sections(value: Any) -> Any:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _sections(inner)


def _leaves(value: Any) -> Any:
    """Where values are that are text, numbers or booleans; a key must be one variable already, so it is left out."""
    for section in _sections(value):
        for key, inner in section.items() if isinstance(section, dict) else enumerate(section):
            if isinstance(inner, str | int | float) and not (isinstance(inner, str) and "${" in inner):
                yield section, key


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_json(inner) for inner in value]
    return float(value) if type(value).__name__ == "Decimal" else value
