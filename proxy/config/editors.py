"""The JSON Schema of a configuration file, for editors to complete and check by.

It knows everything about single values. What holds between values (a provider's name that leads nowhere, aliases in a
circle, variables that are not set) only loading can tell.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, NoDefault
from pydantic_core import core_schema

from proxy.config.schema import GatewayConfig


def json_schema() -> dict[str, Any]:
    """The schema, in the dialect of 2020-12."""
    schema = GatewayConfig.model_json_schema(schema_generator=_Generator)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "LLM Gateway's configuration"}


class _Generator(GenerateJsonSchema):
    """Without titles that only repeat names, and without the empty default that stands for "see the description"."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's hook
        return False

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        default = super().get_default_value(schema)
        return NoDefault if default == "" else default
