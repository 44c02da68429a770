"""YAML to plain values, each with its line.

Plain words are read as in YAML 1.2, as editors do: `no`, `on` and `12:30` are text, `010` is ten. Numbers with a
fraction are exact decimals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml

from proxy.config.problems import Path, Problem

_TAGS = "tag:yaml.org,2002:"
_CHARACTER = "a character that YAML does not allow"
_MOST_VALUES = 200_000
_LONGEST_NUMBER = 400


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # as the base class declares it


PLAIN_WORDS = tuple(
    (_TAGS + tag, re.compile(f"^(?:{pattern})$"), first)
    for tag, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
        (
            "float",
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
            list("-+.0123456789"),
        ),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("merge", r"<<", ["<"]),
    )
)
for _tag, _pattern, _first in PLAIN_WORDS:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)


def _int(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


def _decimal(text: str) -> Decimal:
    return Decimal(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_READ: dict[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda _text: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": _int,
    "float": _decimal,
}


@dataclass(frozen=True, slots=True)
class Document:
    """`data` is made of dicts with text keys, lists, text, bool, None, int and Decimal.

    Of keys that are given twice, which YAML forbids and most of its readers allow, it has the last, as those do.
    """

    data: Any
    lines: dict[Path, int]
    problems: list[Problem]
    repeated: list[Problem] = field(default_factory=list)

    def line_of(self, path: Path) -> int | None:
        """The line of a value, or of the nearest one around it that is written."""
        return next((self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines), None)


def read_document(text: str) -> Document:
    """What the text says. Where it is not YAML, `problems` has it; where it gives a key twice, `repeated`."""
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as problem:
        return _unreadable(_in_words(problem, text), problem.problem_mark or problem.context_mark, "not YAML")
    except yaml.reader.ReaderError as problem:
        before = text[: problem.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return Document(None, {}, [Problem((), _CHARACTER, line, column, plain=_CHARACTER)])
    except RecursionError:
        return _unreadable("nested too deeply", None)
    if root is None:
        return _unreadable("the file is empty", None)
    reading = _Reading()
    try:
        data = reading.value(root, (), root.start_mark.line + 1)
    except _TooMuch as problem:
        return _unreadable(str(problem), None)
    return Document(data, reading.lines, reading.problems, reading.repeated)


def _unreadable(message: str, mark: yaml.Mark | None, plain: str | None = None) -> Document:
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, None)
    return Document(None, {}, [Problem((), message, line, column, plain=plain or message)])


def _in_words(problem: yaml.MarkedYAMLError, text: str) -> str:
    said = ", ".join(part for part in (problem.context, problem.problem) if part)
    mark = problem.problem_mark
    if "'\\t'" in said:
        said += " (YAML is indented with spaces, not tabs)"
    elif "parsing a flow" in said and mark and "${" in "".join(text.splitlines()[mark.line : mark.line + 1]):
        said += " (within { } and [ ] a ${…} must be in quotes)"
    return f"not YAML: {said}"


class _TooMuch(Exception):
    """Aliases that multiply, or nesting without end."""


@dataclass(slots=True)
class _Reading:
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    repeated: list[Problem] = field(default_factory=list)
    _values: int = 0
    _open: set[int] = field(default_factory=set)
    _told: set[int] = field(default_factory=set)

    def value(self, node: yaml.Node, path: Path, line: int) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise _TooMuch(f"more than {_MOST_VALUES} values")
        self.lines[path] = line
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in (_TAGS + "map", _TAGS + "seq"):
            return self._unknown_tag(node, path)
        with self._inside(node):
            if isinstance(node, yaml.MappingNode):
                pairs = self._pairs(node, path)
                return {key: self.value(value, (*path, key), line) for key, (value, line) in pairs.items()}
            return [self.value(item, (*path, index), item.start_mark.line + 1) for index, item in enumerate(node.value)]

    @contextmanager
    def _inside(self, node: yaml.Node) -> Iterator[None]:
        if id(node) in self._open:
            raise _TooMuch(f"the anchor at line {node.start_mark.line + 1} contains itself")
        self._open.add(id(node))
        yield
        self._open.remove(id(node))

    def _pairs(self, node: yaml.MappingNode, path: Path) -> dict[str, tuple[yaml.Node, int]]:
        """The value and line of each key: those of the mapping itself before merged ones."""
        own: dict[str, tuple[yaml.Node, int]] = {}
        merged: dict[str, tuple[yaml.Node, int]] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _TAGS + "merge":
                merged = {**self._merged(value_node, path), **merged}
            elif not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
                self._tell(key_node, path, "a key must be text")
            else:
                if first := own.get(key_node.value):
                    self._tell_again(key_node, (*path, key_node.value), first[1])
                own[key_node.value] = (value_node, line)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, path: Path) -> dict[str, tuple[yaml.Node, int]]:
        if isinstance(node, yaml.MappingNode):
            with self._inside(node):
                return self._pairs(node, path)
        if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.MappingNode) for item in node.value):
            merged: dict[str, tuple[yaml.Node, int]] = {}
            for item in node.value:
                merged = {**self._merged(item, path), **merged}
            return merged
        self._tell(node, path, "`<<` takes a mapping or a list of mappings")
        return {}

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind = node.tag.removeprefix(_TAGS)
        if kind not in _READ:
            return self._unknown_tag(node, path)
        try:
            return _READ[kind](node.value)
        except (ValueError, KeyError, InvalidOperation):
            self._tell(node, path, f"is no {kind}")

    def _unknown_tag(self, node: yaml.Node, path: Path) -> None:
        tag = node.tag.replace(_TAGS, "!!")
        self._tell(node, path, f"the tag {tag} is not known here", "has a tag that is not known here")

    def _tell_again(self, node: yaml.Node, path: Path, first: int) -> None:
        if id(node) not in self._told:
            self._told.add(id(node))
            message = f"is given twice, first in line {first}"
            self.repeated.append(Problem(path, message, node.start_mark.line + 1, plain=message))

    def _tell(self, node: yaml.Node, path: Path, message: str, plain: str | None = None) -> None:
        if id(node) not in self._told:
            self._told.add(id(node))
            self.problems.append(Problem(path, message, node.start_mark.line + 1, plain=plain or message))
