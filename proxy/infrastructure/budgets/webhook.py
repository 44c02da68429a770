"""Telling a webhook that a budget has passed its warning share, or its amount: in the background, and once.

Each process sees that a threshold is passed; the one that claims the notice in the database posts it. What could not
be delivered, or was claimed by a process that died, can be claimed again later, by whoever is offered it then.
The URL may be a secret, and so may be what an error says of it: neither is logged.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout
from aiohttp_retry import JitterRetry, RetryClient, RetryOptionsBase

from proxy.infrastructure.budgets.notices import CLAIM_SECONDS, Notice, NoticeClaims, NoticeKey
from proxy.infrastructure.periodic import repeating
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS

_logger = logging.getLogger(__name__)
_SILENT = logging.getLogger(f"{__name__}.aiohttp_retry")  # the library's messages have the URL
_SILENT.setLevel(logging.WARNING)
_QUEUE_NOTICES = 1_000
_REMEMBERED_NOTICES = 10_000
_ATTEMPT_SECONDS = 10.0
_DATABASE_AWAY_SECONDS = 30.0
_FLUSH_SECONDS = 5.0
_FORGET_SECONDS = 6 * 3600.0
_PASSING: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_REACHING_ERRORS: Final = (ClientError, OSError, TimeoutError)


async def _is_final(response: ClientResponse) -> bool:
    """Whether another attempt would get the same answer. The library leaves open what it does not hand out."""
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status in _PASSING:
        response.release()
        return False
    return True


def patient_retries() -> RetryOptionsBase:
    """Five attempts within half a minute, if each is refused at once."""
    return JitterRetry(
        attempts=5,
        start_timeout=0.5,
        max_timeout=10.0,
        statuses=set(),
        exceptions=set(_REACHING_ERRORS),
        retry_all_server_errors=False,
        evaluate_response_callback=_is_final,
    )


class BudgetWebhook:
    """A bounded queue of notices, and the task (`run`) that tells them."""

    def __init__(
        self,
        url: str,
        session: ClientSession,
        claims: NoticeClaims,
        retries: RetryOptionsBase | None = None,
        clock: Callable[[], float] = time.monotonic,
        queue_notices: int = _QUEUE_NOTICES,
    ) -> None:
        self._url = url
        self._client = RetryClient(session, logger=_SILENT, retry_options=retries or patient_retries())
        self._claims = claims
        self._clock = clock
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(queue_notices)
        self._not_before: dict[NoticeKey, float] = {}
        self._is_dropping = False

    def offer(self, notice: Notice) -> None:
        """To be told, if it was not yet. Neither blocks nor raises: what finds no room may be offered again."""
        key = notice.key
        if self._clock() < self._not_before.get(key, -math.inf):
            return
        try:
            self._queue.put_nowait(notice)
        except asyncio.QueueFull:
            if not self._is_dropping:
                _logger.warning("notices of budgets are dropped: too many wait")
            self._is_dropping = True
            return
        self._is_dropping = False
        self._remember(key, math.inf)

    async def run(self) -> None:
        """Tells what is offered until it is cancelled."""
        while True:
            notice = await self._queue.get()
            try:
                await self._handle(notice)
            except Exception:  # a defect here must not end the task
                _logger.exception("notice of a budget not told", extra=_facts(notice))
            finally:
                self._queue.task_done()

    async def idle(self) -> None:
        """Returns when nothing waits or is being told."""
        await self._queue.join()

    async def forget(self) -> None:
        """Removes what was told long ago."""
        try:
            await self._claims.forget_the_past(datetime.now(UTC))
        except DATABASE_ERRORS as problem:
            _logger.warning("old notices of budgets not removed", extra={"reason": type(problem).__name__})

    def _remember(self, key: NoticeKey, not_before: float) -> None:
        """So that the database is not asked each time; the oldest goes first."""
        self._not_before.pop(key, None)
        if len(self._not_before) >= _REMEMBERED_NOTICES:
            del self._not_before[next(iter(self._not_before))]
        self._not_before[key] = not_before

    async def _handle(self, notice: Notice) -> None:
        key = notice.key
        try:
            is_ours = await self._claims.claim(key, datetime.now(UTC), notice.budget.window.seconds)
        except DATABASE_ERRORS as problem:
            self._remember(key, self._clock() + _DATABASE_AWAY_SECONDS)
            _logger.warning("notice of a budget put off", extra={**_facts(notice), "reason": type(problem).__name__})
            return
        if not is_ours:  # told, or being told
            self._remember(key, self._clock() + CLAIM_SECONDS)
            return
        failure = await self._post(notice)
        if failure is not None:
            self._remember(key, self._clock() + CLAIM_SECONDS)
            _logger.error("webhook not told of a budget", extra={**_facts(notice), "reason": failure})
            return
        try:
            await self._claims.delivered(key, datetime.now(UTC))
        except DATABASE_ERRORS as problem:
            _logger.warning(
                "notice of a budget may be told twice", extra={**_facts(notice), "reason": type(problem).__name__}
            )

    async def _post(self, notice: Notice) -> str | None:
        """Why it was not taken; None if it was."""
        try:
            async with self._client.post(
                self._url,
                json=notice.message(),
                headers={"Idempotency-Key": str(notice.key.id)},
                timeout=ClientTimeout(total=_ATTEMPT_SECONDS),
                allow_redirects=False,
            ) as response:
                is_taken = HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES
                return None if is_taken else f"HTTP {response.status}"
        except _REACHING_ERRORS as problem:
            return type(problem).__name__


def _facts(notice: Notice) -> dict[str, object]:
    return {"budget": str(notice.budget.id), "notice": str(notice.key.id)}


@asynccontextmanager
async def telling(webhook: BudgetWebhook, flush_seconds: float = _FLUSH_SECONDS) -> AsyncIterator[None]:
    """Runs the webhook's task; at the end what waits is told if that takes no longer than `flush_seconds`."""
    task = asyncio.create_task(webhook.run(), name="budget webhook")
    try:
        async with repeating(webhook.forget, lambda: _FORGET_SECONDS, "budget notices"):
            yield
    finally:
        flush = asyncio.create_task(webhook.idle())
        await asyncio.wait([flush], timeout=flush_seconds)
        for each in (flush, task):
            each.cancel()
        await asyncio.wait([flush, task])
