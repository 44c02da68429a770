"""Which names lead to a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.domain.catalog import WILDCARD, NamePatterns


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a configuration: of models, of models with a `*`, and aliases with what they lead to."""

    models: frozenset[str]
    patterns: frozenset[str]
    aliases: Mapping[str, str]

    @classmethod
    def of(cls, root: Mapping[str, Any]) -> Names:
        models = mapping(root.get("models")).keys()
        aliases = {name: target for name, target in mapping(root.get("aliases")).items() if isinstance(target, str)}
        patterns = frozenset(name for name in models if WILDCARD in name)
        return cls(frozenset(models - patterns), patterns, aliases)

    def all(self) -> tuple[str, ...]:
        """Names that can be asked for, for suggestions."""
        return (*self.models, *self.aliases)

    def is_model(self, name: str) -> bool:
        """Whether a request for that name would find a model."""
        end = self.end_of(name)
        return end in self.models or any(_fits(end, pattern) for pattern in self.patterns)

    def is_known_pattern(self, pattern: str) -> bool:
        """Whether there is a model of that name, or any that fits it if it has a `*`."""
        if WILDCARD not in pattern:
            return self.is_model(pattern)
        return any(_fits(name, pattern) for name in self.all()) or any(
            _overlap(pattern, other) for other in self.patterns
        )

    def end_of(self, name: str) -> str:
        """What a name leads to through aliases; itself if it is none, or leads in a circle."""
        seen = [name]
        while name not in self.models and name in self.aliases:
            name = self.aliases[name]
            if name in seen:
                return seen[0]
            seen.append(name)
        return name

    def circle_from(self, alias: str) -> list[str]:
        """The aliases that lead back to this one, from it on; empty if none does."""
        seen, name = [alias], self.aliases[alias]
        while name in self.aliases and name not in seen:
            seen.append(name)
            name = self.aliases[name]
        return seen if name == alias else []


def _fits(name: str, pattern: str) -> bool:
    return NamePatterns([pattern]).match(name) is not None


def _overlap(one: str, other: str) -> bool:
    (before, _, after), (its_before, _, its_after) = one.partition(WILDCARD), other.partition(WILDCARD)
    return (before.startswith(its_before) or its_before.startswith(before)) and (
        after.endswith(its_after) or its_after.endswith(after)
    )


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a mapping that are mappings themselves."""
    return ((name, entry) for name, entry in mapping(value).items() if isinstance(entry, dict))
