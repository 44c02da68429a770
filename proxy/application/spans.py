"""Spans of requests, for whoever traces over several services. Nothing of this is there while it is off."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from proxy.domain.request_log import RequestLog


class ServerSpan(Protocol):
    """One request that is being answered."""

    def answered(self, status: int, request_id: str, row: RequestLog | None) -> None:
        """It was answered with that status. The row is that of a request that was booked."""
        ...


class Spans(Protocol):
    """Begins spans."""

    def serving(self, method: str, route: str | None, headers: Mapping[str, str]) -> AbstractContextManager[ServerSpan]:
        """The span of a request, as a part of the trace that its headers name, if any; ends with the `with` block.

        `route` is the path's template. An exception that passes through is noted by its kind, never by its words.
        """
        ...
