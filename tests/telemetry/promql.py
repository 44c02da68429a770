"""Which metrics and labels a PromQL expression names: enough of its grammar for our dashboard and alerts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<word>[A-Za-z_:][A-Za-z0-9_:]*)"""
    r"""|(?P<range>\[[^\]]*\])"""
    r"""|(?P<number>\d+(?:\.\d+)?\w?)"""
    r"""|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^(){},=<>])"""
)
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_OPERATORS = {"and", "or", "unless", "bool", "offset"}
_FUNCTIONS = {
    *("sum", "min", "max", "avg", "count", "rate", "increase", "delta", "max_over_time"),
    *("histogram_quantile", "label_values"),
}
_RANGES = re.compile(r"\[(\$__rate_interval|\d+[smhd])\]")


class NotPromql(ValueError):
    """The expression cannot be read."""


@dataclass
class Named:
    """Labels that were asked of each metric; and those that results are grouped by, which may come from any of them."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    grouped_by: set[str] = field(default_factory=set)


def named_in(expression: str) -> Named:
    """Raises NotPromql for what it does not understand, unbalanced brackets too."""
    return _Reader(expression).read()


class _Reader:
    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens = list(self._split())
        self._found = Named()

    def _split(self) -> list[tuple[str, str]]:
        tokens, place = [], 0
        while place < len(self._expression):
            if self._expression[place].isspace():
                place += 1
                continue
            match = _TOKEN.match(self._expression, place)
            if match is None or match.lastgroup is None:
                raise NotPromql(f"{self._expression!r} at {place}")
            tokens.append((match.lastgroup, match.group()))
            place = match.end()
        return tokens

    def read(self) -> Named:
        if self._expression.count("(") != self._expression.count(")"):
            raise NotPromql(f"unbalanced: {self._expression!r}")
        while self._tokens:
            kind, text = self._tokens.pop(0)
            if kind == "range" and not _RANGES.fullmatch(text):
                raise NotPromql(f"range {text}")
            if kind == "word":
                self._word(text)
        return self._found

    def _word(self, word: str) -> None:
        following = self._tokens[0][1] if self._tokens else ""
        if word in _GROUPING:
            self._found.grouped_by |= set(self._names_until(")", "("))
        elif following == "(" and word in _FUNCTIONS | _OPERATORS:
            return
        elif following == "(" or word in _FUNCTIONS:
            if word not in _FUNCTIONS or following not in ("(", "by", "without"):
                raise NotPromql(f"function {word}")
        elif word not in _OPERATORS:
            labels = self._found.metrics.setdefault(word, set())
            if following == "{":
                labels |= set(self._matchers())

    def _matchers(self) -> list[str]:
        self._expect("{")
        names: list[str] = []
        while True:
            kind, name = self._tokens.pop(0)
            if name == "}":
                return names
            if kind != "word":
                raise NotPromql(f"label {name}")
            names.append(name)
            self._expect("=", "!=", "=~", "!~")
            if self._tokens.pop(0)[0] != "string":
                raise NotPromql(f"value of {name}")
            if self._tokens[0][1] == ",":
                self._tokens.pop(0)

    def _names_until(self, end: str, begin: str) -> list[str]:
        self._expect(begin)
        names: list[str] = []
        while (token := self._tokens.pop(0))[1] != end:
            if token[0] == "word":
                names.append(token[1])
        return names

    def _expect(self, *signs: str) -> None:
        if not self._tokens or self._tokens.pop(0)[1] not in signs:
            raise NotPromql(f"one of {signs} in {self._expression!r}")
