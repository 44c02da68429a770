"""Where the configuration comes from, and how the running gateway follows it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.bootstrap.blueprint import Blueprint, blueprint_of_file, blueprint_without_file
from proxy.bootstrap.config_file import read_configuration
from proxy.bootstrap.runtimes import Runtimes
from proxy.config.environment import secret_file
from proxy.config.messages import without_values
from proxy.config.problems import ConfigErrors
from proxy.config.references import referred_to_by
from proxy.domain.errors import InvalidConfiguration, InvalidValue
from proxy.infrastructure.periodic import repeating
from proxy.settings import Settings

_logger = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_VERSION_DIGITS = 12
_EVENT_DIGITS = 32
_NOT_BUILT = "no gateway can be made of it; POST /admin/config/reload says why"

_Look = tuple[int, int, int, int]
_Looks = Mapping[Path, _Look | None]
Note = Callable[[str, str, Mapping[str, Any], Mapping[str, Any]], Awaitable[None]]
"""Puts a change into the audit log: what made it, an id of the event, and the states before and after."""


class Configuration:
    """ConfigurationControl over a file and those that hold its secrets, or over none.

    A file that cannot be used changes nothing.
    """

    def __init__(self, path: Path | None, settings: Settings, runtimes: Runtimes, note: Note) -> None:
        self._path = path
        self._settings = settings
        self._runtimes = runtimes
        self._note_change = note
        self._one_at_a_time = asyncio.Lock()
        self._seen: _Looks = {}  # of all files
        self._secrets: _Looks = {}  # of those with secrets, as they were when what is in force was read
        self._version: str | None = None
        self._loaded_at: datetime | None = None
        self.problems: tuple[str, ...] = ()  # of the file, since it was last looked at
        self._failed_at: datetime | None = None

    async def begin(self, demo_url: str | None) -> Blueprint:
        """The first configuration. Raises ConfigErrors, and InvalidValue for a provider that cannot be connected."""
        if self._path is None:
            blueprint = blueprint_without_file(self._settings, demo_url)
            await self._runtimes.become(blueprint)
            return blueprint
        return await self._load(self._path)

    async def reload(self) -> Mapping[str, Any]:
        if self._path is None:
            raise InvalidConfiguration(["there is no configuration file; set LLMGATEWAY_CONFIG and start again"])
        async with self._one_at_a_time:
            before = self._version, self._secrets
            try:
                await self._load(self._path)
            except InvalidValue as problem:
                self._note(problem)
                told = self.problems if isinstance(problem, ConfigErrors) else (str(problem),)
                raise InvalidConfiguration(told) from None
            _logger.info("configuration loaded", extra={"file": str(self._path), "version": self._version})
            return {"changed": (self._version, self._secrets) != before, **self.state()}

    async def _load(self, path: Path) -> Blueprint:
        seen = _look(path)
        secrets = {file: _look(file) for file in await asyncio.to_thread(_secret_files, path)}
        self._seen = {path: seen, **secrets}
        blueprint, version = await asyncio.to_thread(self._read, path)
        await self._runtimes.become(blueprint)
        self._version, self._secrets, self._loaded_at = version, secrets, datetime.now(UTC)
        self.problems, self._failed_at = (), None
        return blueprint

    def _read(self, path: Path) -> tuple[Blueprint, str]:
        if _is_pipe(path):
            raise InvalidValue(f"{path} is a pipe. LLMGATEWAY_CONFIG must be a file that can be read more than once.")
        blueprint = blueprint_of_file(read_configuration(path, self._settings), self._settings)
        return blueprint, hashlib.sha256(path.read_bytes()).hexdigest()[:_VERSION_DIGITS]

    def _note(self, problem: InvalidValue) -> None:
        """For /health, which needs no key, and for the log: nothing that the file says."""
        self.problems = without_values(problem) if isinstance(problem, ConfigErrors) else (_NOT_BUILT,)
        self._failed_at = datetime.now(UTC)
        _logger.error(
            "configuration not loaded, the last one stays", extra={"file": str(self._path), "problems": self.problems}
        )

    async def reload_if_changed(self) -> None:
        """One look at the file; errors are logged and shown in the state."""
        if any(_look(path) != seen for path, seen in self._seen.items()):
            await self.reload_and_tell("file")

    async def reload_and_tell(self, cause: str | None) -> None:
        """As `reload`, for whom nobody waits. A change is noted with its cause, if it is given."""
        before = self.state()
        try:
            after = await self.reload()
        except InvalidConfiguration:
            return  # it is logged
        except Exception:  # whatever it is, the gateway goes on with what it has
            _logger.exception("configuration not loaded, the last one stays", extra={"file": str(self._path)})
            return
        if cause is not None and after["changed"]:
            event = hashlib.sha256(repr(self._seen).encode()).hexdigest()[:_EVENT_DIGITS]
            await self._note_change(cause, event, before, after)

    def state(self) -> dict[str, Any]:
        return {
            "file": None if self._path is None else str(self._path),
            "version": self._version,
            "loaded_at": _iso(self._loaded_at),
            "problems": list(self.problems),
            "failed_at": _iso(self._failed_at),
        }


@asynccontextmanager
async def following(configuration: Configuration) -> AsyncIterator[None]:
    """Looks at the files every second until the end. By their contents' place and time, not by events: a mounted
    directory that is swapped as a whole (as Kubernetes does) sends none."""
    async with repeating(configuration.reload_if_changed, lambda: _LOOK_SECONDS, "configuration"):
        yield


def _secret_files(path: Path) -> list[Path]:
    """Those that stand for variables which the configuration file refers to."""
    files = (secret_file(name, os.environ) for name in sorted(referred_to_by(path)))
    return [file for file in files if file is not None]


def _is_pipe(path: Path) -> bool:
    with suppress(OSError):
        return path.is_fifo()
    return False


def _look(path: Path) -> _Look | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size  # ctime: of its rights, say


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
