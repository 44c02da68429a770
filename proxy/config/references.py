"""${NAME} and ${NAME:-default}: values from the environment, or from the file that NAME_FILE names there.

`$${` is a plain `${`.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from proxy.config.environment import SecretFileError, variable
from proxy.config.problems import Path, Problem

# For JSON Schema, too, so it must mean the same in Python and in JavaScript.
REFERENCE = r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}"
ONE_VARIABLE = r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$(?!\n)"

_NOT_SET = "an environment variable that it refers to is not set"
_NO_FILE = "the file that stands for an environment variable cannot be used"
_PART = re.compile(r"\$(?:\$\{|\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\})?)")


class Expanded(str):
    """Text with its references replaced. `written` is how it stands in the file."""

    __slots__ = ("variables", "written")
    written: str
    variables: tuple[str, ...]

    @property
    def is_one_variable(self) -> bool:
        """Whether it is `${NAME}` and nothing else."""
        return re.search(ONE_VARIABLE, self.written) is not None


def as_written(text: str) -> str:
    """The text, or the reference that gave it: what a variable holds may be a secret, wherever it was put."""
    return text.written if isinstance(text, Expanded) else text


def variables_in(text: str) -> frozenset[str]:
    """The names that a whole file refers to, wherever in it."""
    return frozenset(part[1] for part in _PART.finditer(text) if part[1])


def referred_to_by(file: pathlib.Path | None) -> frozenset[str]:
    """The same, of a file that may not be there. One that cannot be read is told of by those who load it."""
    try:
        return variables_in(file.read_text("utf-8", "replace")) if file and file.is_file() else frozenset()
    except OSError:
        return frozenset()


def value_at(data: Any, path: Path) -> Any:
    """The value at a path; None if there is none."""
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def expand(data: Any, path: Path, environment: Mapping[str, str], problems: list[Problem]) -> Any:
    """The same values with all references replaced; what cannot be replaced is added to `problems`."""
    if isinstance(data, dict):
        return {key: expand(value, (*path, key), environment, problems) for key, value in data.items()}
    if isinstance(data, list):
        return [expand(value, (*path, index), environment, problems) for index, value in enumerate(data)]
    if isinstance(data, str) and "${" in data:
        return _expanded(data, path, environment, problems)
    return data


def _expanded(text: str, path: Path, environment: Mapping[str, str], problems: list[Problem]) -> str:
    variables: list[str] = []

    def replaced(part: re.Match[str]) -> str:
        if part[0] == "$${":
            return "${"
        name, default = part[1], part[2]
        if name is None:
            problems.append(
                Problem(path, "`${` must begin a reference like ${NAME} or ${NAME:-default}; or write `$${`")
            )
            return ""
        variables.append(name)
        try:
            value = variable(name, environment)
        except SecretFileError as problem:
            problems.append(Problem(path, str(problem), plain=_NO_FILE))
            return ""
        if default is not None:
            return value or default
        if value is None:
            problems.append(Problem(path, f"the environment variable {name} is not set", plain=_NOT_SET))
        return value or ""

    value = _PART.sub(replaced, text)
    if not variables:
        return value
    expanded = Expanded(value)
    expanded.written, expanded.variables = text, tuple(variables)
    return expanded
