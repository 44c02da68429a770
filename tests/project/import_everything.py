"""python import_everything.py NAME …: imports each of the gateway's modules where those packages do not exist."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import proxy


class Absent(MetaPathFinder):
    """Finds packages before anybody else does, and says that they are not there."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"{name} is left out", name=name)
        return None


sys.meta_path.insert(0, Absent(sys.argv[1:]))
modules = [module.name for module in pkgutil.walk_packages(proxy.__path__, "proxy.")]
for module in modules:
    if not module.endswith("__main__"):
        importlib.import_module(module)
sys.exit(None if len(modules) > 100 else f"there are {len(modules)} modules alone")
