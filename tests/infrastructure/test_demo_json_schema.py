"""Values that the demo upstream makes up for tool arguments and structured output."""

from __future__ import annotations

import pytest

from proxy.infrastructure.demo.json_schema import value_for

TEXT = "Hello"


def an_object(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, TEXT),
        ({"type": "integer"}, 1),
        ({"type": "number"}, 1),
        ({"type": "boolean"}, True),
        ({"type": "array", "items": {"type": "string"}}, []),
        ({"type": "object"}, {}),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 1),
        ({"type": ["null"]}, None),
        ({}, TEXT),
        (True, TEXT),
    ],
)
def test_each_type_has_its_value(schema: object, value: object) -> None:
    assert value_for(schema, TEXT) == value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "maximum": -5}, -5),
        ({"type": "integer", "minimum": 0, "maximum": 9}, 1),
        ({"type": "string", "maxLength": 2}, "He"),
        ({"type": "string", "format": "date"}, "2025-11-22"),
        ({"type": "string", "format": "never-heard-of"}, TEXT),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "string", "enum": ["first", "second"]}, "first"),
        ({"type": "string", "const": "only"}, "only"),
    ],
)
def test_bounds_formats_and_choices_are_kept(schema: object, value: object) -> None:
    assert value_for(schema, TEXT) == value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (an_object(a={"type": "string"}, b={"type": "integer"}), {"a": TEXT, "b": 1}),
        ({**an_object(a={"type": "integer"}, b={}), "required": ["a"]}, {"a": 1}),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1}),
        ({"type": "object", "required": ["undescribed", 5]}, {"undescribed": TEXT}),
        (an_object(inner=an_object(a={"type": "integer"})), {"inner": {"a": 1}}),
    ],
)
def test_objects_have_their_required_members_or_else_all(schema: object, value: object) -> None:
    assert value_for(schema, TEXT) == value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 1),
        ({"oneOf": [{"type": "boolean"}, {"type": "integer"}]}, True),
        ({"allOf": [an_object(a={"type": "integer"}), {"required": ["a"]}]}, {"a": 1}),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, 1),
        ({"$ref": "#/$defs/missing"}, TEXT),
        ({"$ref": "elsewhere.json"}, TEXT),
    ],
)
def test_combinations_and_references_are_followed(schema: object, value: object) -> None:
    assert value_for(schema, TEXT) == value


def test_a_schema_that_refers_to_itself_has_an_end() -> None:
    chain = value_for(an_object(next={"$ref": "#"}), TEXT)
    assert value_for({"$ref": "#"}, TEXT) is None
    assert isinstance(chain, dict)
    assert str(chain).count("next") < 50


def test_the_number_of_values_is_bounded_however_schemas_multiply() -> None:
    tree = value_for(an_object(**{f"member{number}": {"$ref": "#"} for number in range(200)}), TEXT)
    rows = value_for({"type": "array", "minItems": 10**9, "items": {"$ref": "#"}}, TEXT)
    assert 200 < str(tree).count("member") <= 1000
    assert 100 < str(rows).count("None") < 10_000
