"""Composing what the workers of a gateway do together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxy.application.administration.administration import Actor, Administration
from proxy.application.siblings import NoSiblings, Siblings
from proxy.bootstrap.configuration import Note
from proxy.domain.access.principals import Principal, PrincipalKind
from proxy.domain.access.scopes import GATEWAY
from proxy.domain.errors import NotServing
from proxy.infrastructure.deployments.fleet import Fleet
from proxy.infrastructure.persistence.access_store import SqlAccessStore
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.siblings import Reload, SharedDirectory, directory_of_supervisor, prepare_directory
from proxy.settings import Settings

_logger = logging.getLogger(__name__)


def siblings_of(settings: Settings, fleet: Fleet, reload: Reload) -> SharedDirectory | NoSiblings:
    """The other workers, if there are any. `reload` loads this worker's configuration."""
    if settings.llmgateway_workers == 1:
        return NoSiblings()

    def drain(name: str, is_drained: bool) -> None:
        if (deployment := fleet.deployments().get(name)) is not None:
            deployment.drain(is_drained=is_drained)

    directory = directory_of_supervisor(Path(settings.llmgateway_data_dir))
    return SharedDirectory(directory, settings.llmgateway_workers, drain, reload)


def prepare_for_workers(settings: Settings) -> None:
    """In their supervisor, before the first fork: what workers of an earlier start were told does not hold any more."""
    prepare_directory(Path(settings.llmgateway_data_dir))


def reload_notes(database: Database, siblings: Siblings) -> Note:
    """Puts reloads that nobody asked for into the audit log, by one of the workers that see the same change."""
    store = SqlAccessStore(database)
    administration = Administration(store, store, dict)

    async def note(cause: str, event: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        actor = Principal(
            kind=PrincipalKind.ANONYMOUS,
            id=cause,
            name=Path(str(after["file"])).name,
            permissions=frozenset(),
            reach=GATEWAY,
        )
        try:
            if await siblings.is_first(event):
                await administration.note(Actor(actor), "reload", "configuration", "file", before, after)
        except (NotServing, OSError) as problem:
            _logger.warning("a reload is not in the audit log", extra={"reason": str(problem)})

    return note
