"""Where the values of a loaded configuration come from."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.config.problems import Path

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Origin:
    """`text` is `gateway.yaml:12`, `gateway.yaml:12 (${NAME})`, `RETRY_BASE_SECONDS` or `default`."""

    text: str
    by_reference: bool = False


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins of all values that are not defaults, by path."""

    by_path: dict[Path, Origin]

    def of(self, path: Path) -> Origin:
        """Where the value at a path comes from."""
        return self.by_path.get(path, Origin(DEFAULT))
