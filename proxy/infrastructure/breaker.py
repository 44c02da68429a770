"""The circuit breaker of one deployment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from circuitbreaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN, CircuitBreaker

from proxy.domain.errors import CircuitOpen, TransientUpstreamError

_logger = logging.getLogger(__name__)
_PROBE_WAIT_SECONDS = 1.0


class Permit:
    """Leave to call once. `epoch` counts how often the breaker had opened when it was given."""

    __slots__ = ("epoch", "is_probe")

    def __init__(self, epoch: int, *, is_probe: bool = False) -> None:
        self.epoch = epoch
        self.is_probe = is_probe


class Breaker(CircuitBreaker):  # type: ignore[misc]  # the library has no types
    """A circuit breaker for concurrent callers: opens on consecutive failures, then lets one probe through at a time,
    and the next one when that has not come back within a cool-down.

    `circuitbreaker` counts and keeps the state; added here are what it lacks (see the library's `__exit__` and
    `state`): one probe instead of everyone when half-open, and outcomes that must not count. States are the library's:
    `closed`, `open`, `half_open`.
    """

    def __init__(
        self,
        deployment: str,
        *,
        failure_threshold: int = 5,
        cooldown_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(failure_threshold, cooldown_seconds, TransientUpstreamError, deployment)
        self._deployment = deployment
        self._cooldown_seconds = cooldown_seconds
        self._clock = clock
        self._epoch = 0
        self._opened_at = 0.0
        self._probe: Permit | None = None
        self._probed_at = 0.0
        self._usual = Permit(self._epoch)  # one for all calls while it is closed
        self.is_calm = True  # closed, and no failure counted: asked for each request, so it is no property

    @property
    def open_remaining(self) -> float:
        """Seconds until a probe is let through; 0 or less when one may go."""
        return self._opened_at + self._cooldown_seconds - self._clock()

    def refusing_seconds(self) -> float:
        """For how long it will let nobody through; 0 if it would now."""
        if self.is_calm:
            return 0.0
        if self.state == STATE_OPEN:
            return max(0.0, self.open_remaining)
        return _PROBE_WAIT_SECONDS if self._is_probing() else 0.0

    def allow(self) -> Permit:
        """Leave for one call; hand it back with `succeeded`, `failed` or `release`. Raises CircuitOpen."""
        if self.is_calm:
            return self._usual
        state = self.state
        if state == STATE_CLOSED:
            if self._usual.epoch != self._epoch:
                self._usual = Permit(self._epoch)
            return self._usual
        if state == STATE_OPEN:
            raise CircuitOpen(self._deployment, self.open_remaining)
        if self._is_probing():
            raise CircuitOpen(self._deployment, _PROBE_WAIT_SECONDS)
        self._probe, self._probed_at = Permit(self._epoch, is_probe=True), self._clock()
        _logger.info("circuit half-open, probing", extra={"deployment": self._deployment, "state": STATE_HALF_OPEN})
        return self._probe

    def succeeded(self, permit: Permit) -> None:
        """The call was answered."""
        if self.is_calm:
            return
        self.release(permit)
        if permit.epoch != self._epoch:
            return
        self.reset()
        if self._usual.epoch != self._epoch:
            self._usual = Permit(self._epoch)
        self.is_calm = True
        if permit.is_probe:
            _logger.info("circuit closed", extra={"deployment": self._deployment, "state": STATE_CLOSED})

    def failed(self, permit: Permit, error: TransientUpstreamError) -> None:
        """The upstream failed the call, and no retry mended it."""
        self.release(permit)
        if permit.epoch != self._epoch:
            return
        self.is_calm = False
        self.__exit__(type(error), error, None)
        if self.state != STATE_CLOSED:
            self._opened_at = self._clock()
            self._epoch += 1
            _logger.error(
                "circuit opened",
                extra={
                    "deployment": self._deployment,
                    "state": STATE_OPEN,
                    "failures": self.failure_count,
                    "cooldown_seconds": self._cooldown_seconds,
                    "reason": error.kind,
                },
            )

    def _is_probing(self) -> bool:
        return self._probe is not None and self._clock() < self._probed_at + self._cooldown_seconds

    def release(self, permit: Permit) -> None:
        """The call ended without telling anything of the upstream's health."""
        if self._probe is permit:
            self._probe = None
