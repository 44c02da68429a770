"""Traces of requests: offered in passing, kept for some days, and told again to those who ask why.

They are no ledger: nothing waits for them, and when they come too fast they are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from proxy.domain.access.scopes import GATEWAY, Subject
from proxy.domain.explanation import ExplainedRequest
from proxy.domain.request_log import RequestLog
from proxy.domain.trace import RequestTrace


class TraceMode(StrEnum):
    """Whose traces are kept."""

    OFF = "off"
    NOTABLE = "notable"  # where there was a choice, more than one call, or no success
    ALL = "all"


class TraceStore(Protocol):
    """Takes traces in passing, and stores them later."""

    @property
    def mode(self) -> TraceMode: ...

    def offer(self, row: RequestLog, trace: RequestTrace) -> None:
        """Hand over a request's trace when it has been booked; returns at once and never raises."""
        ...

    def state(self) -> Mapping[str, Any]:
        """For the health report."""
        ...


class NoTraces:
    """The TraceStore that stores none."""

    mode = TraceMode.OFF

    def offer(self, row: RequestLog, trace: RequestTrace) -> None:
        pass

    def state(self) -> Mapping[str, Any]:
        return {"mode": self.mode.value}


class RequestArchive(Protocol):
    """The booked requests, with all that is known of them."""

    async def find(self, asked: str, within: Subject = GATEWAY) -> ExplainedRequest | None:
        """By request id or by a row's id; of several with one request id the newest. Raises NotServing.

        What is not within the asker's reach is not there, also not among the other rows of a request id.
        """
        ...
