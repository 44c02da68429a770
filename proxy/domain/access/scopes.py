"""Whom a budget or a rate limit is for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

EACH = "*"


class Scope(StrEnum):
    """What kind of subject it is, from wide to narrow; end users and models lie across the others."""

    GATEWAY = "gateway"
    ORGANISATION = "organisation"
    TEAM = "team"
    KEY = "key"
    END_USER = "end_user"
    MODEL = "model"

    @property
    def width(self) -> int:
        """Of tenants: whoever reaches a wider one may reach narrower ones. 0 for end users and models."""
        return _WIDTHS.get(self, 0)


_WIDTHS = {Scope.KEY: 1, Scope.TEAM: 2, Scope.ORGANISATION: 3, Scope.GATEWAY: 4}


@dataclass(frozen=True, slots=True)
class Subject:
    """One of them.

    `id` is empty for the gateway, an UUID's text for organisations, teams and keys, the public name for models, and for
    end users what the client sends as `user`. EACH stands for every end user or model, each by itself.
    """

    scope: Scope
    id: str = ""

    def covers(self, other: Subject) -> bool:
        """Whether a rule for this subject applies to the other one."""
        return self.scope is other.scope and self.id in (other.id, EACH)

    def __str__(self) -> str:
        return f"{self.scope.value}:{self.id}" if self.id else self.scope.value


GATEWAY = Subject(Scope.GATEWAY)
