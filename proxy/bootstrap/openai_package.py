"""OpenAI's SDK, of which the gateway needs one small module, loaded when somebody wants more of it.

Semantic Kernel describes usage by two of the SDK's models. To import those runs the whole package, some 500 modules: a
quarter of what the gateway's start takes, and 12 MB. Here the package and `openai.types` are there with nothing in
them but that; asked for any other name they run, where they are, as if they had only now been imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = "openai"
_TYPES: Final = "openai.types"
_USAGE: Final = "openai.types.completion_usage"
_MODULES_OF_NAMES: Final = {_TYPES: {"CompletionUsage": _USAGE}}
# Whoever goes through all modules asks them for other names of this kind, and wants nothing of this package.
_ITS_OWN: Final = frozenset({"__all__", "__title__", "__version__"})


def defer_openai() -> None:
    """To be called before Semantic Kernel is imported. Does nothing if the package is there, or there is none."""
    if _PACKAGE not in sys.modules and importlib.util.find_spec(_PACKAGE) is not None:
        vars(_deferred(_PACKAGE)).update(types=_deferred(_TYPES))


class _Deferred(ModuleType):
    """A package that has not run yet. Its modules can be imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _ITS_OWN:
            raise AttributeError(name)
        module = _MODULES_OF_NAMES.get(self.__name__, {}).get(name)
        if module is not None:
            return getattr(importlib.import_module(module), name)
        importlib.reload(self)  # in its place, under the lock of its import
        self.__class__ = ModuleType  # type: ignore[assignment]  # nothing is deferred any more
        return getattr(self, name)


def _deferred(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(name=name)
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Deferred
    sys.modules[name] = module
    return module
