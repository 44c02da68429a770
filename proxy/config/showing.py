"""The configuration in force, value by value."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, SecretStr

from proxy.config.loading import LoadedConfig
from proxy.config.origins import Origin, Origins
from proxy.config.problems import Path, path_text
from proxy.config.schema import P95, HedgeConfig
from proxy.domain.exact_prices import exact_text

MASK = "********"


def show(loaded: LoadedConfig) -> Iterator[tuple[str, str, str]]:
    """Path, value and origin of each value in force. Keys, and headers from the environment, are masked."""
    for path, value, origin in _leaves(loaded.config, (), loaded.origins):
        yield path_text(path), _text(value, origin), origin.text


def _leaves(value: Any, path: Path, origins: Origins) -> Iterator[tuple[Path, Any, Origin]]:
    if isinstance(value, HedgeConfig) and value.after_seconds is None:
        yield path, P95, origins.of(path)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _leaves(getattr(value, name), (*path, name), origins)
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield from _leaves(entry, (*path, name), origins)
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for index, entry in enumerate(value):
            yield from _leaves(entry, (*path, index), origins)
    else:
        yield path, value, origins.of(path)


def _text(value: Any, origin: Origin) -> str:
    if isinstance(value, SecretStr):
        return MASK if origin.by_reference else value.get_secret_value()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return exact_text(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return "-" if value is None else str(value)
