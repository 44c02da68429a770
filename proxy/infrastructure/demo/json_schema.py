"""A value that satisfies a JSON schema, for tool arguments and structured output.

Covers what tool and output schemas are made of: types, properties, required, const, enum, formats, bounds, local
references and combinations. Anything else is ignored. Work and depth are bounded, since schemas may refer to
themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

_MAX_DEPTH = 24
_MAX_VALUES = 1000
_MAX_ITEMS = 10
_FORMATS: Mapping[object, str] = {
    "date": "2025-11-22",
    "date-time": "2025-11-22T12:00:00Z",
    "time": "12:00:00Z",
    "email": "demo@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def value_for(schema: object, text: str) -> object:
    """A value for the schema, with `text` wherever it takes free text."""
    return _Sampler(schema, text).value(schema, 0)


class _Sampler:
    def __init__(self, root: object, text: str) -> None:
        self._root = root
        self._text = text
        self._values_left = _MAX_VALUES

    def value(self, schema: object, depth: int) -> object:
        self._values_left -= 1
        if self._values_left < 0 or depth > _MAX_DEPTH:
            return None
        if not isinstance(schema, dict):
            return self._text
        if "const" in schema:
            return schema["const"]
        if isinstance(enum := schema.get("enum"), list) and enum:
            return enum[0]
        narrowed = self._narrowed(schema)
        return self._typed(schema, depth) if narrowed is None else self.value(narrowed, depth + 1)

    def _narrowed(self, schema: Mapping[str, object]) -> dict[str, object] | None:
        """The schema with its reference followed, or one of its alternatives taken; None if it has neither."""
        for key in ("$ref", "allOf", "anyOf", "oneOf"):
            if key in schema:
                rest = {name: value for name, value in schema.items() if name != key}
                return rest | (
                    self._target(schema[key]) if key == "$ref" else _merged(schema[key], all_=key == "allOf")
                )
        return None

    def _target(self, reference: object) -> dict[str, object]:
        if not isinstance(reference, str) or not reference.startswith("#"):
            return {}
        target = self._root
        for step in reference[1:].split("/")[1:]:
            target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        return target if isinstance(target, dict) else {}

    def _typed(self, schema: Mapping[str, object], depth: int) -> object:
        match _type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                count = schema.get("minItems")
                items = min(count, _MAX_ITEMS) if isinstance(count, int) else 0
                return [self.value(schema.get("items"), depth + 1) for _ in range(items)]
            case "integer" | "number":
                return _number(schema)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._string(schema)

    def _object(self, schema: Mapping[str, object], depth: int) -> dict[str, object]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        members: dict[str, object] = {}
        for name in required if isinstance(required, list) and required else properties:
            if self._values_left <= 0:
                break
            if isinstance(name, str):
                members[name] = self.value(properties.get(name), depth + 1)
        return members

    def _string(self, schema: Mapping[str, object]) -> str:
        longest = schema.get("maxLength")
        wanted = schema.get("format")
        text = _FORMATS.get(wanted, self._text) if isinstance(wanted, str) else self._text
        return text[:longest] if isinstance(longest, int) and longest >= 0 else text


def _merged(alternatives: object, *, all_: bool) -> dict[str, object]:
    """All of the alternatives together, or the first that is not just null."""
    schemas = [item for item in alternatives if isinstance(item, dict)] if isinstance(alternatives, list) else []
    if not all_:
        return next((schema for schema in schemas if schema.get("type") != "null"), {})
    merged: dict[str, object] = {}
    for schema in schemas:
        merged |= schema
    return merged


def _type_of(schema: Mapping[str, object]) -> object:
    named = schema.get("type")
    if isinstance(named, list):
        return next((one for one in named if one != "null"), "null")
    if named is None and "properties" in schema:
        return "object"
    return named


def _number(schema: Mapping[str, object]) -> float:
    low, high = schema.get("minimum"), schema.get("maximum")
    number: float = 1
    if isinstance(low, int | float):
        number = max(number, low)
    if isinstance(high, int | float):
        number = min(number, high)
    return number
