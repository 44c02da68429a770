"""Handlebars templates, of which the gateway has none, loaded when somebody makes one.

Semantic Kernel imports `pybars` for them, and `pybars` compiles the grammar of its language whenever it is imported: a
quarter of the gateway's start. What is imported in its place has the two names that the kernel asks for; the first
template brings the library, and from then on everything is as if it had been there.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Final

_LIBRARY: Final = "pybars"
_USER: Final = "semantic_kernel.prompt_template.handlebars_prompt_template"


def defer_templates() -> None:
    """To be called before Semantic Kernel is imported; else it is too late, and does nothing."""
    if _LIBRARY not in sys.modules:
        sys.modules[_LIBRARY] = _Deferred(_LIBRARY)


class _Compiler:
    """In the place of the library's; an instance is one of those."""

    def __new__(cls) -> Any:
        return _library().Compiler()


class _PybarsError(Exception):
    """In the place of the library's, which is there before anything raises it."""


class _Deferred(ModuleType):
    """The library, as long as nobody has asked for more than names."""

    Compiler = _Compiler
    PybarsError = _PybarsError

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # whoever goes through all modules asks for those, and imports nothing
            raise AttributeError(name)
        return getattr(_library(), name)


def _library() -> Any:
    if isinstance(sys.modules.get(_LIBRARY), _Deferred):
        del sys.modules[_LIBRARY]
    library, user = importlib.import_module(_LIBRARY), sys.modules.get(_USER)
    if user is not None:
        vars(user).update(Compiler=library.Compiler, PybarsError=library.PybarsError)
    return library
