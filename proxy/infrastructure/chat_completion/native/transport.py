"""The HTTP of providers' SDKs, sent over the gateway's own session.

So time-outs, connection limits, proxies (none) and hanging up are the same for all providers, and nothing is sent but
what is meant to be: of an SDK's headers only the named ones pass. Errors are made here, from the bytes that came; they
go up through the SDK and Semantic Kernel, and `service` finds them again under their wrappings.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass, field
from io import BytesIO

import httpx
from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
)
from yarl import URL

from proxy.application.upstream import UpstreamCall
from proxy.infrastructure.chat_completion.headers import CallHeaders
from proxy.infrastructure.chat_completion.upstream_errors import UpstreamErrors
from proxy.infrastructure.chat_completion.wire import WireSettings, read_error_body

_OK, _FIRST_NOT_OK = 200, 300
_REFUSALS = range(400, 500)
_LARGE_BODY_BYTES = 1024 * 1024
_OF_THE_HOP = {"content-encoding", "content-length", "transfer-encoding", "connection"}


@dataclass(slots=True, eq=False)
class Attempt:
    """One try of a call for a stream or for a whole answer, and the response that it got."""

    call: UpstreamCall
    stream: bool
    response: ClientResponse | None = None
    responded: asyncio.Event = field(default_factory=asyncio.Event)


ATTEMPT: ContextVar[Attempt] = ContextVar("attempt")  # the one that whatever an SDK sends now belongs to


class SessionTransport(httpx.AsyncBaseTransport):
    """What an SDK's httpx client sends goes through here. Closing it closes nothing: the session is its owner's."""

    def __init__(
        self,
        settings: WireSettings,
        session: ClientSession,
        headers: CallHeaders,
        errors: UpstreamErrors,
        sdk_headers: Collection[str] = (),
        change: Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]] | None = None,
    ) -> None:
        """`change` is made to the bytes of answers before the SDK reads them."""
        self._settings = settings
        self._session = session
        # The session's limit on pauses would count from the request on, as one on whole answers. Bodies have theirs.
        self._timeout = ClientTimeout(total=None, sock_connect=session.timeout.sock_connect)
        self._headers = headers
        self._errors = errors
        self._sdk_headers = sdk_headers
        self._change = change

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises UpstreamError for anything but a 2xx answer."""
        attempt = ATTEMPT.get()
        call = attempt.call
        body = await request.aread()
        call.attempts += 1
        call.generation_id = None
        attempt.response = response = await self._send(
            request, body, call, self._settings.patience_seconds(stream=attempt.stream)
        )
        if not _OK <= response.status < _FIRST_NOT_OK:
            try:
                body = await read_error_body(response, self._settings.first_byte_timeout_seconds)
            finally:
                response.close()
            call.refusals += response.status in _REFUSALS
            back = self._headers.handed_back(response.headers)
            raise self._errors.from_response(response.status, response.headers, body, back)
        attempt.responded.set()
        return httpx.Response(
            response.status,
            headers=[(name, value) for name, value in response.headers.items() if name.lower() not in _OF_THE_HOP],
            stream=_Body(response, self._settings, self._errors, self._change),
        )

    async def _send(
        self, request: httpx.Request, body: bytes, call: UpstreamCall, most_seconds: float
    ) -> ClientResponse:
        headers = dict(self._headers.of_call(call.headers))
        for name in self._sdk_headers:
            if name not in self._headers.standing and name in request.headers:
                headers[name] = request.headers[name]
        # aiohttp writes bytes in one go, and a file in pieces with back-pressure.
        data = body if len(body) < _LARGE_BODY_BYTES else BytesIO(body)
        url = URL(str(request.url), encoded=True)
        try:
            async with asyncio.timeout(most_seconds):
                return await self._session.request(
                    request.method, url, data=data, headers=headers, allow_redirects=False, timeout=self._timeout
                )
        except (ClientConnectorError, ConnectionTimeoutError) as problem:
            call.refusals += 1  # without a connection nothing can have been sent
            raise self._errors.unreachable(problem) from problem
        except TimeoutError as problem:
            raise self._errors.timeout("did not begin to answer", most_seconds) from problem
        except (ClientError, OSError) as problem:
            raise self._errors.unreachable(problem) from problem


class _Body(httpx.AsyncByteStream):
    """The bytes of an answer as they come."""

    def __init__(
        self,
        response: ClientResponse,
        settings: WireSettings,
        errors: UpstreamErrors,
        change: Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]] | None,
    ) -> None:
        self._response = response
        self._change = change
        self._settings = settings
        self._errors = errors
        self._deadline = time.monotonic() + settings.stream_total_timeout_seconds

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._reads() if self._change is None else self._change(self._reads())

    async def _reads(self) -> AsyncIterator[bytes]:
        """Streams count, too: an SDK holds a line of one until it ends."""
        left = self._settings.max_answer_bytes
        while data := await self._read():
            left -= len(data)
            if left < 0:
                raise self._errors.too_large(self._settings.max_answer_bytes)
            yield data

    async def _read(self) -> bytes:
        if time.monotonic() > self._deadline:
            raise self._errors.timeout("did not finish", self._settings.stream_total_timeout_seconds)
        limit = self._settings.idle_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                return await self._response.content.readany()
        except TimeoutError as problem:
            raise self._errors.timeout("sent nothing", limit) from problem
        except (ClientError, OSError) as problem:
            raise self._errors.unreachable(problem) from problem

    async def aclose(self) -> None:
        self._response.close()
