"""LiteLLM's file as sections that know what has been taken from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic import TypeAdapter, ValidationError

from proxy.config.litellm.instead import NO_COUNTERPART
from proxy.config.problems import Path, Problem
from proxy.config.references import REFERENCE

_VARIABLE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_NOTHING: tuple[Any, ...] = (None, "", [], {})
_OTHER_BRACE = re.compile(rf"(?!{REFERENCE})\$\{{")


@dataclass(slots=True)
class Losses:
    """What could not be carried over, and why."""

    told: list[Problem] = field(default_factory=list)

    def tell(self, path: Path, reason: str) -> None:
        self.told.append(Problem(path, reason))


@dataclass(slots=True)
class Section:
    """A mapping of the file. What nobody takes from it is lost in the end, and told."""

    data: dict[str, Any]
    path: Path
    losses: Losses
    _taken: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, value: Any, path: Path, losses: Losses) -> Section:
        """The value as a section; an empty one, and a loss, if it is none."""
        if isinstance(value, dict):
            return cls(value, path, losses)
        if value is not None:
            losses.tell(path, "is no mapping")
        return cls({}, path, losses)

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def take(self, key: str) -> Any:
        """The value with its references as we write them; None if there is none."""
        self._taken.add(key)
        return referring(self.data.get(key))

    def section(self, key: str) -> Section:
        """The mapping at a key."""
        self._taken.add(key)
        return Section.of(self.data.get(key), (*self.path, key), self.losses)

    def items(self, key: str) -> Iterator[tuple[Path, Any]]:
        """The entries of the list at a key, with their paths."""
        self._taken.add(key)
        entries = self.data.get(key)
        if entries is not None and not isinstance(entries, list):
            self.lose(key, "is no list")
            return
        for index, entry in enumerate(entries or ()):
            yield (*self.path, key, index), entry

    def fitting(self, key: str, kind: Any, value: Any = None) -> Any:
        """The value, if a field of that kind takes it, else None and a loss. `value` is taken instead if given."""
        taken = self.take(key)
        value = number(taken if value is None else value)
        if value is None or is_reference(value):
            return value
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError as problem:
            self.lose(key, f"cannot be carried over: {problem.errors()[0]['msg'].lower()}")
            return None
        return value

    def text(self, key: str) -> str | None:
        """The text at a key; None, and a loss, if it is something else."""
        value = self.take(key)
        if value is None or isinstance(value, str):
            return value
        self.lose(key, "is no text")
        return None

    def lose(self, key: str, reason: str = NO_COUNTERPART) -> None:
        """Tells that what stands at a key is lost, if anything does; what is empty says nothing."""
        self._taken.add(key)
        if self.data.get(key) not in _NOTHING:
            self.losses.tell((*self.path, key), reason)

    def lose_flag(self, key: str, reason: str) -> None:
        """The same for what says nothing while it is off."""
        if self.take(key) is not False:
            self.lose(key, reason)

    def lose_rest(self) -> None:
        """Tells of everything that nobody took."""
        for key in self.data:
            if key not in self._taken:
                self.lose(key)


def referring(value: Any) -> Any:
    """The same value with `os.environ/NAME` written as `${NAME}`.

    LiteLLM reads no `${NAME}`: a tool for templates fills it in before, so it is a reference here, too.
    """
    if isinstance(value, dict):
        return {key: referring(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [referring(inner) for inner in value]
    if not isinstance(value, str):
        return value
    variable = _VARIABLE.fullmatch(value)
    return f"${{{variable[1]}}}" if variable else _OTHER_BRACE.sub("$${", value)


def is_reference(value: Any) -> bool:
    """Whether the environment gives the whole value."""
    return isinstance(value, str) and re.fullmatch(REFERENCE, value) is not None


def has_reference(value: str) -> bool:
    """Whether the environment gives some of the text."""
    return re.search(rf"(?<!\$){REFERENCE}", value) is not None


def number(value: Any) -> Any:
    """A number that is written as text, as a number; anything else as it is."""
    if not isinstance(value, str) or is_reference(value):
        return value
    try:
        return Decimal(value)
    except InvalidOperation:
        return value
