"""Reading a request's JSON piece by piece, so that nothing in it is overlooked."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NoReturn

from proxy.domain.errors import InvalidRequest

_MOST_LEVELS = 64  # libraries on the way copy and check recursively
_JSON_TYPES: Mapping[type, str] = {str: "a string", bool: "true or false", dict: "an object", list: "an array"}


class Members:
    """The members of a JSON object, taken one by one. What nobody takes is refused in the end.

    `path` is where the object is in the request, for errors; `provider` is who cannot take what is refused.
    """

    def __init__(self, value: Any, path: str, provider: str) -> None:
        """Raises InvalidRequest if the value is no object."""
        self.path = path
        self.provider = provider
        if not isinstance(value, dict):
            self.refuse(None, "must be an object.")
        self._left: dict[str, Any] = dict(value)

    def at(self, name: str | None) -> str:
        """The path of a member."""
        if name is None:
            return self.path
        return f"{self.path}.{name}" if self.path else name

    def refuse(self, name: str | None, why: str) -> NoReturn:
        """Raises InvalidRequest about a member, or about the object itself."""
        raise InvalidRequest(f"'{self.at(name)}' {why}", param=self.at(name))

    def cannot_carry(self, name: str) -> NoReturn:
        self.refuse(name, f"cannot be carried to provider '{self.provider}': its API has no such thing. Leave it out.")

    def take(self, name: str) -> Any:
        """The value; None if it is null or absent."""
        return self._left.pop(name, None)

    def look(self, name: str) -> Any:
        """The value, which is still to be taken."""
        return self._left.get(name)

    def text(self, name: str) -> str | None:
        value: str | None = self._typed(name, str)
        return value

    def flag(self, name: str) -> bool | None:
        value: bool | None = self._typed(name, bool)
        return value

    def object(self, name: str) -> dict[str, Any] | None:
        value: dict[str, Any] | None = self._typed(name, dict)
        return value

    def array(self, name: str) -> list[Any] | None:
        value: list[Any] | None = self._typed(name, list)
        return value

    def required_text(self, name: str) -> str:
        """Raises InvalidRequest if there is none."""
        value = self.text(name)
        if not value:
            self.refuse(name, "is required.")
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            self.refuse(name, f"must be a number from {least:g} to {most:g} for provider '{self.provider}'.")
        return value

    def whole(self, name: str, least: int) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.refuse(name, f"must be a whole number of at least {least}.")
        return value

    def word(self, name: str, words: Collection[str]) -> str | None:
        """One of these."""
        value = self.text(name)
        if value is not None and value not in words:
            self.refuse(name, f"must be one of {', '.join(words)} for provider '{self.provider}'.")
        return value

    def inside(self, name: str) -> Members | None:
        """The members of a member."""
        value = self.take(name)
        return None if value is None else Members(value, self.at(name), self.provider)

    def each(self, name: str) -> Iterator[Members]:
        """The objects in an array."""
        for index, item in enumerate(self.array(name) or ()):
            yield Members(item, f"{self.at(name)}[{index}]", self.provider)

    def finish(self, ignored: Collection[str] = (), idle: Mapping[str, Any] | None = None) -> None:
        """Refuses what is left, but for null, the ignored, and those whose value asks for nothing.

        Raises:
            InvalidRequest: something would be lost
        """
        for name, value in self._left.items():
            if value is None or name in ignored:
                continue
            if idle is not None and name in idle and _same(value, idle[name]):
                continue
            self.cannot_carry(name)

    def _typed(self, name: str, kind: type) -> Any:
        value = self.take(name)
        if value is not None and type(value) is not kind:
            self.refuse(name, f"must be {_JSON_TYPES[kind]}.")
        return value


def read_request(body: bytes) -> dict[str, Any]:
    """The request as an object that any JSON library can write again.

    Raises:
        InvalidRequest: it holds what cannot be carried on: see `read_json`
    """
    try:
        request = read_json(body)
    except ValueError as problem:
        raise InvalidRequest(f"The request cannot be carried on: {problem}.") from problem
    if not isinstance(request, dict):
        raise InvalidRequest("The request must be a JSON object.")
    return request


def read_json(text: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or could not be written again: numbers out of range, lone surrogates, or more levels
            than the libraries on the way can take
    """
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError as problem:
        raise ValueError("it is nested too deep") from problem
    _check(value, 0)
    return value


def _check(value: Any, level: int) -> None:
    if level > _MOST_LEVELS:
        raise ValueError(f"it is nested deeper than {_MOST_LEVELS} levels")
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("it holds a lone surrogate, which is no character")
    elif isinstance(value, list):
        for item in value:
            _check(item, level + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, level)
            _check(item, level + 1)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is out of range")
    return number


def _same(value: Any, other: Any) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and value == other
