"""Environment variables that by their names were meant for the gateway, and that nothing reads.

Only names are looked at: a value may be a secret.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from proxy.config.environment import SUFFIX
from proxy.config.problems import closest
from proxy.config.references import referred_to_by
from proxy.settings import variables_read

_PREFIX: Final = "LLMGATEWAY_"
_NEARLY: Final = 0.9  # OVERLOAD_LAG_SECOND, but no other program's REQUEST_TIMEOUT
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unread:
    """A variable that is no setting, and the setting that may be meant."""

    name: str
    meant: str | None

    def __str__(self) -> str:
        hint = f"; did you mean {self.meant}?" if self.meant else ""
        return f"no setting is called {self.name}{hint}"


def warn_of_unread_variables(file: Path | None) -> None:
    """In the log, of those in this process's environment."""
    for each in unread_variables(os.environ, file):
        hint = {"did_you_mean": each.meant} if each.meant else {}
        _logger.warning("no setting is called like this variable", extra={"variable": each.name, **hint})


def unread_variables(
    environment: Iterable[str], file: Path | None = None, prefixes: tuple[str, ...] = (_PREFIX,)
) -> list[Unread]:
    """Of these names those that begin like ours or are nearly a setting's, but are none, and that the configuration
    file does not refer to.

    Capitals or not is the same, as it is when settings are read.
    """
    names = set(environment)
    settings = {name: frozenset(name) for name in variables_read()}
    others = _service_links(names)
    referred = referred_to_by(file)
    read = referred | {name + SUFFIX for name in referred}
    strangers = (name for name in sorted(names - read) if not name.startswith(others))
    return list(_unread(strangers, settings, prefixes))


def _unread(
    names: Iterable[str], settings: Mapping[str, frozenset[str]], prefixes: tuple[str, ...]
) -> Iterator[Unread]:
    """`settings` are names with their letters."""
    for name in names:
        given = name.upper()
        if given in settings:
            continue
        if given.startswith(prefixes):
            yield Unread(name, _most_similar(given, settings))
        elif meant := _nearly(given, settings):
            yield Unread(name, meant)


def _most_similar(given: str, settings: Iterable[str]) -> str | None:
    """By what comes after the prefix: LLMGATEWAY_FOO is like none, LLMGATEWAY_MAX_QUEUED like MAX_QUEUED."""
    by_rest = {name.removeprefix(_PREFIX): name for name in settings}
    found = closest(given.removeprefix(_PREFIX), by_rest)
    return by_rest[found] if found else None


def _nearly(given: str, settings: Mapping[str, frozenset[str]]) -> str | None:
    """As difflib finds it, which alone would take 0.2 ms: most differ by too many letters, or in their lengths."""
    own, length = frozenset(given), len(given)
    candidates = []
    for name, letters in settings.items():
        both = length + len(name)
        unlike = abs(length - len(name))
        if both - unlike >= _NEARLY * both and both - len(own ^ letters) >= _NEARLY * both:
            candidates.append(name)
    found = get_close_matches(given, candidates, n=1, cutoff=_NEARLY) if candidates else []
    return found[0] if found else None


def _service_links(names: Iterable[str]) -> tuple[str, ...]:
    """How the variables begin that Kubernetes sets for a Service, LLMGATEWAY_EU_SERVICE_HOST and its like."""
    services = [name.removesuffix("_SERVICE_HOST") for name in names if name.endswith("_SERVICE_HOST")]
    return tuple(f"{service}_{kind}" for service in services for kind in ("SERVICE_", "PORT"))
