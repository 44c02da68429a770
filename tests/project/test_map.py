"""The map in proxy/README.md: every module is to be found from it, and it names none that is not there."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import proxy

PROXY = Path(proxy.__file__).parent


def _sections() -> dict[str, str]:
    """What the map says, by the top-level package or module that it says it of."""
    lines = (PROXY / "README.md").read_text().split("```\n")[1].splitlines()[1:]
    sections: defaultdict[str, str] = defaultdict(str)
    place = ""
    for line in lines:
        if named := re.match(r"  ([\w/.]+)", line):
            place = named[1]
        sections[place] += line + "\n"
    return {"cli/" if place == "__main__.py" else place: text for place, text in sections.items()}


SECTIONS = _sections()


def _section_of(module: Path) -> str:
    """Empty where the map has none for it."""
    first, *below = module.relative_to(PROXY).parts
    return SECTIONS.get(f"{first}/" if below else first, SECTIONS["cli/"] if first == "__main__.py" else "")


def test_every_module_is_named_in_its_part_of_the_map() -> None:
    modules = [path for path in PROXY.rglob("*.py") if path.stem != "__init__"]
    missing = [path for path in modules if path.stem not in re.findall(r"\w+", _section_of(path))]
    assert not missing, "proxy/README.md does not name " + ", ".join(str(path.relative_to(PROXY)) for path in missing)


def test_the_map_names_no_module_that_is_not_there() -> None:
    for place, text in SECTIONS.items():
        there = {path.name for path in (PROXY / place).rglob("*.py")} | {"__main__.py", "settings.py"}
        assert set(re.findall(r"\w+\.py\b", text)) <= there, place
