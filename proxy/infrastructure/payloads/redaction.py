"""Finding the operator's redaction hook."""

from __future__ import annotations

import importlib
from functools import reduce

from proxy.application.payloads import Redaction
from proxy.domain.errors import InvalidValue


def load_redaction(reference: str) -> Redaction:
    """The callable that `module:function` names. Raises InvalidValue when there is none."""
    module, _, path = reference.partition(":")
    try:
        found = reduce(getattr, path.split("."), importlib.import_module(module))
    except Exception as problem:  # the module is the operator's own code and may raise anything
        raise InvalidValue(
            f"PAYLOAD_REDACTION: {reference!r} cannot be loaded ({type(problem).__name__}: {problem}). It must be "
            "module:function, importable from where the gateway runs (PYTHONPATH)."
        ) from problem
    if not callable(found):
        raise InvalidValue(f"PAYLOAD_REDACTION: {reference!r} is not callable but of type {type(found).__name__}.")
    hook: Redaction = found  # what it takes and gives shows when it runs
    return hook
