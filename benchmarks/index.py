"""What the benchmarks say of themselves: found in their docstrings, without importing them.

A docstring's first line says what is measured. A paragraph may begin with `Claim:`, the claim that the figure backs,
and lines with `Short:` give arguments of a run of seconds rather than minutes; several are several runs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_CLAIM = re.compile(r"^Claim: (.+?)(?=\n\n|\nShort:|\Z)", re.MULTILINE | re.DOTALL)
_SHORT = re.compile(r"^Short:(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Benchmark:
    """One that can be run as `python -m benchmarks.NAME`. Empty `short_runs`: it has no short form."""

    name: str
    measures: str
    claim: str
    short_runs: tuple[tuple[str, ...], ...]


def described(name: str, docstring: str) -> Benchmark:
    """What a docstring says."""
    claim = _CLAIM.search(docstring)
    return Benchmark(
        name=name,
        measures=docstring.partition("\n")[0],
        claim=" ".join(claim[1].split()) if claim else "",
        short_runs=tuple(tuple(one.split()) for one in _SHORT.findall(docstring)),
    )


def benchmarks(directory: Path = _HERE) -> Iterator[Benchmark]:
    """All that can be run, by name, but for those that run or list others."""
    for path in sorted(directory.iterdir()):
        source = path / "__init__.py" if path.is_dir() else path
        is_command = (path / "__main__.py").exists() or (path.suffix == ".py" and _is_command(path))
        if is_command and path.stem not in ("__main__", "all"):
            yield described(path.stem, ast.get_docstring(ast.parse(source.read_text())) or "")


def _is_command(path: Path) -> bool:
    return '\nif __name__ == "__main__":' in path.read_text()
