"""A limit on retries, so that an outage is not answered with a multiple of the usual calls.

After Envoy's retry budgets (`retry_budget` of its circuit breakers): retries under way are at most a share of the
requests under way, and a few are always allowed.
"""

from __future__ import annotations

_PERCENT = 100.0


class RetryBudget:
    """Of one provider; shared by all its deployments."""

    def __init__(self, percent: float = 20.0, min_retries: int = 3) -> None:
        self._percent = percent
        self._min_retries = min_retries
        self.requests = 0
        self.retries = 0

    def take(self) -> bool:
        """Whether one more retry may be made now; each that may is ended by `give_back`."""
        if self.retries >= max(self._min_retries, self.requests * self._percent / _PERCENT):
            return False
        self.retries += 1
        return True

    def give_back(self) -> None:
        self.retries -= 1
