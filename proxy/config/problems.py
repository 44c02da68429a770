"""What is wrong with a configuration, and where."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from proxy.domain.errors import InvalidValue

Path = tuple[str | int, ...]

HIDDEN = "…"  # in a path, a key that is not one of ours
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+|…")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `line` counts from 1; it and `column` are None where there is no such place.

    `plain` is the message without anything that the file says, which may be a secret in the wrong place.
    """

    path: Path
    message: str
    line: int | None = None
    column: int | None = None
    plain: str = "is not valid"

    def text(self, name: str) -> str:
        """`gateway.yaml:12: models.gpt-4o.strategy: must be …`"""
        return _line((name, self.line, self.column), self.path, self.message)

    def plain_text(self, name: str, known_path: Path) -> str:
        """`gateway.yaml:12: models.….strategy: must be …`, with what is known of the path."""
        return _line((name, self.line, self.column), known_path, self.plain)


class ConfigErrors(InvalidValue):
    """A configuration that cannot be used. `problems` are all that were found, in the order of their lines."""

    def __init__(self, name: str, problems: Iterable[Problem]) -> None:
        self.name = name
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        super().__init__("\n".join(problem.text(name) for problem in self.problems))


def _line(place: tuple[str | int | None, ...], path: Path, message: str) -> str:
    where = ":".join(str(part) for part in place if part is not None)
    return f"{where}: {path_text(path)}: {message}" if path else f"{where}: {message}"


def path_text(path: Path) -> str:
    """`models."gpt-4.1".deployments[0].weight`: keys that hold more than letters, digits, `_` and `-` are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _PLAIN_KEY.fullmatch(part) else '"' + part.replace('"', '\\"') + '"'
            text += f".{key}" if text else key
    return text


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'weight'?`, or nothing if no known name is similar."""
    close = closest(given, known)
    return f"; did you mean '{close}'?" if close else ""


def closest(given: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar, or begins like it."""
    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(given.lower(), by_lower, n=1)
    if not found:
        found = [name for name in by_lower if name.startswith(given.lower())][:1]
    return by_lower[found[0]] if found else None
