"""Organisations, their teams, and the keys that these hand out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from proxy.domain.access.model_scope import ALL_MODELS, ModelScope
from proxy.domain.access.permissions import Role
from proxy.domain.rate_limits import Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation:
    """The widest tenant."""

    id: UUID
    name: str
    created_at: datetime
    models: ModelScope = ALL_MODELS
    metadata: Mapping[str, Any] = field(default_factory=dict)
    disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """Some people of an organisation, or of none in particular."""

    id: UUID
    name: str
    created_at: datetime
    organisation_id: UUID | None = None
    models: ModelScope = ALL_MODELS
    metadata: Mapping[str, Any] = field(default_factory=dict)
    disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualKey:
    """What an application shows for itself. Only hashes of it are kept.

    `previous_hash` is that of the key before the last rotation, good until `previous_until`. `hint` is its beginning
    and end, to tell keys apart. `endpoints` None is every one that the role may use.
    """

    id: UUID
    hash: str
    hint: str
    name: str
    created_at: datetime
    created_by: str
    role: Role = Role.MEMBER
    calls_models: bool = True
    owner: str | None = None
    organisation_id: UUID | None = None
    team_id: UUID | None = None
    models: ModelScope = ALL_MODELS
    endpoints: frozenset[str] | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    priority: Priority = Priority.NORMAL
    expires_at: datetime | None = None
    disabled: bool = False
    previous_hash: str | None = None
    previous_until: datetime | None = None
