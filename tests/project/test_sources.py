"""What the checkout holds: text that somebody wrote, and nothing that a tool left lying there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import proxy

ROOT = Path(proxy.__file__).parents[1]
IGNORED = [".git", *(ROOT / ".gitignore").read_text().split()]


def _sources(directory: Path) -> Iterator[Path]:
    """All files but those that git ignores."""
    for path in directory.iterdir():
        if any(path.match(pattern) for pattern in IGNORED):
            continue
        if path.is_dir():
            yield from _sources(path)
        else:
            yield path


def _is_text(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


def test_all_sources_are_text() -> None:
    sources = list(_sources(ROOT))
    assert ROOT / "pyproject.toml" in sources
    assert not [str(path.relative_to(ROOT)) for path in sources if not _is_text(path)]
