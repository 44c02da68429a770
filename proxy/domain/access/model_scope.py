"""Which models a key, a team or an organisation may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.domain.catalog import WILDCARD, NamePatterns

GROUP_PREFIX = "group:"
ModelGroups = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class ModelScope:
    """Names, patterns with one `*`, and groups (`group:cheap`) whose names and patterns the configuration has.

    `allowed` None is every model; an empty list is none. A group that the configuration does not know has no models.
    """

    allowed: tuple[str, ...] | None = None

    @property
    def is_all(self) -> bool:
        return self.allowed is None

    def allows(self, model: str, groups: ModelGroups) -> bool:
        """Whether a request may name this model."""
        if self.allowed is None:
            return True
        names = self._names(groups)
        return model in names or NamePatterns([name for name in names if WILDCARD in name]).match(model) is not None

    def includes(self, other: ModelScope, groups: ModelGroups) -> bool:
        """Whether everything that the other one allows, word by word, is allowed here: nobody grants more than it has.

        A pattern is included if a pattern here matches its text, so `gpt-*` includes `gpt-5*`. A group is included if
        it is named here, or each of its members is.
        """
        if self.allowed is None:
            return True
        if other.allowed is None:
            return False
        return all(self._includes(name, groups) for name in other.allowed)

    def _includes(self, name: str, groups: ModelGroups) -> bool:
        if self.allowed is not None and name in self.allowed:
            return True
        if name.startswith(GROUP_PREFIX):
            members = groups.get(name.removeprefix(GROUP_PREFIX))  # an unknown one may mean anything later
            return members is not None and all(self.allows(member, groups) for member in members)
        return self.allows(name, groups)

    def _names(self, groups: ModelGroups) -> list[str]:
        names: list[str] = []
        for name in self.allowed or ():
            if name.startswith(GROUP_PREFIX):
                names.extend(groups.get(name.removeprefix(GROUP_PREFIX), ()))
            else:
                names.append(name)
        return names


ALL_MODELS: Final = ModelScope()
