"""Keeping count of what could not be priced."""

from __future__ import annotations

import logging

_logger = logging.getLogger(__name__)
_MOST_MODELS = 1000  # names come from clients; there is no end to what they can make up


class UnpricedModels:
    """Warns once of each model without a price, and counts the requests whose cost is therefore unknown."""

    def __init__(self) -> None:
        self.requests = 0
        self._models: set[str] = set()

    def note(self, model: str) -> None:
        self.requests += 1
        if model not in self._models and len(self._models) < _MOST_MODELS:
            self._models.add(model)
            _logger.warning("no price for model, cost unknown", extra={"model": model})
