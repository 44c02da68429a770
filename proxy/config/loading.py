"""From a file to a configuration, or to everything that is wrong with it."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from proxy.config.checks import check
from proxy.config.document import Document, read_document
from proxy.config.filling import Filled, fill
from proxy.config.messages import problems_of
from proxy.config.origins import Origin, Origins
from proxy.config.problems import ConfigErrors, Problem
from proxy.config.references import Expanded, expand, value_at
from proxy.config.schema import GatewayConfig

_FREE = "x-"


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration: `config` is complete, `origins` say where each value comes from."""

    name: str
    config: GatewayConfig
    origins: Origins


def load_config(
    path: str | pathlib.Path, environment: Mapping[str, str], settings: Mapping[str, Any] | None = None
) -> LoadedConfig:
    """The configuration of a file.

    `settings` are those that were set, by field name (`connect_timeout_seconds`); they give what the file leaves open.

    Raises:
        ConfigErrors: the file cannot be read, or is not valid; all problems at once.
    """
    name = str(path)
    try:
        text = pathlib.Path(path).read_bytes().decode("utf-8-sig")
    except OSError as problem:
        words = f"cannot be read: {problem.strerror}"
        raise ConfigErrors(name, [Problem((), words, plain=words)]) from None
    except UnicodeDecodeError as problem:
        line = problem.object[: problem.start].count(b"\n") + 1
        raise ConfigErrors(name, [Problem((), "not UTF-8", line, plain="not UTF-8")]) from None
    return parse_config(text, name, environment, settings)


def parse_config(
    text: str, name: str, environment: Mapping[str, str], settings: Mapping[str, Any] | None = None
) -> LoadedConfig:
    """The configuration of a text; `name` is what messages call it. Otherwise like `load_config`."""
    document = read_document(text)
    problems = [*document.problems, *document.repeated]
    data = document.data
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if not key.startswith(_FREE)}
    data = expand(data, (), environment, problems)
    filled = fill(data, settings or {})
    config = None
    if data is not None or not problems:
        config = _validated(filled, problems)
    if config is None or problems:
        raise ConfigErrors(name, _placed(problems, document))
    return LoadedConfig(name, config, _origins(name, document, data, filled))


def _validated(filled: Filled, problems: list[Problem]) -> GatewayConfig | None:
    """The configuration if nothing is wrong; else what is wrong is added to `problems`."""
    config, found = None, []
    try:
        config = GatewayConfig.model_validate(filled.data)
    except ValidationError as error:
        found = list(problems_of(error, filled.data))
    refused = {problem.path for problem in found}
    found += [problem for problem in check(filled.data) if problem.path not in refused]
    problems += _without_echoes(found, problems, filled)
    return config


def _without_echoes(found: list[Problem], known: Iterable[Problem], filled: Filled) -> list[Problem]:
    """Those that are not the consequence of another one: of a value that could not be read, or that was filled in."""
    broken = {problem.path for problem in known if problem.path}
    fresh = [
        problem
        for problem in found
        if problem.path not in filled.sources
        and not any(problem.path[:end] in broken for end in range(len(problem.path) + 1))
    ]
    return fresh if fresh or broken else found


def _placed(problems: Iterable[Problem], document: Document) -> Iterator[Problem]:
    seen = set()
    for problem in problems:
        placed = problem if problem.line else replace(problem, line=document.line_of(problem.path) or 1)
        if (placed.path, placed.message) not in seen:
            seen.add((placed.path, placed.message))
            yield placed


def _origins(name: str, document: Document, data: Any, filled: Filled) -> Origins:
    written = {path: _origin(name, line, value_at(data, path)) for path, line in document.lines.items()}
    added = {
        path: Origin(source) if isinstance(source, str) else written[source] for path, source in filled.sources.items()
    }
    return Origins(written | added)


def _origin(name: str, line: int, value: Any) -> Origin:
    if isinstance(value, Expanded):
        return Origin(f"{name}:{line} ({', '.join(value.variables)})", by_reference=True)
    return Origin(f"{name}:{line}")
