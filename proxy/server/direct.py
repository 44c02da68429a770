"""A connection's requests, one after the other: aiohttp's own loop, with a shorter way for direct routes.

aiohttp starts a task for each request, so that what a handler sets in context variables ends with it; that costs two
more turns of the event loop and some 10 µs. A direct route (`proxy/api/direct.py`) is ours and sets none that it does
not set back: it is served by the connection's own task, and answers whatever happens, so that aiohttp's care for
handlers that do not is left out. For all others everything is as aiohttp has it.

What is below is a rewording of `RequestHandler.start` and `_handle_request`, which offer no way in between: tests/http/
test_aiohttp_internals.py holds marks of the originals, and fails when an upgrade has changed them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import RawRequestMessage, StreamWriter
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import ERROR, RequestHandler, _ErrInfo

Serve = Callable[[Any], Awaitable[web.StreamResponse]]

# In place of what could not be read: aiohttp's ERROR, but that the answer has its server's version (RFC 9112, 2.3).
_NOT_READ: Final = RawRequestMessage(
    ERROR.method, ERROR.path, HttpVersion11, ERROR.headers, ERROR.raw_headers, True, None, False, False, ERROR.url
)
_logger = logging.getLogger(__name__)


class DirectHandler(RequestHandler):
    """One client's connection; `direct` are the routes by path, all of them POST.

    `remembered` is theirs: what they know of this client from its last request.
    """

    __slots__ = ("_direct", "remembered")

    def __init__(self, manager: web.Server, direct: Mapping[str, Serve], **more: Any) -> None:
        super().__init__(manager, **more)
        self._direct = direct
        self.remembered: object = None

    async def start(self) -> None:
        """Serves requests until the connection is to end."""
        manager = self._manager
        assert manager is not None  # noqa: S101  # a connection that has just been made
        while not self._force_close:
            if not self._messages or self._is_held():
                try:
                    self._waiter = self._loop.create_future()
                    await self._waiter
                finally:
                    self._waiter = None
                continue  # what woke it may have been taken away again, or have been the end
            message, payload = self._messages.popleft()
            self._make_room()
            manager.requests_count += 1
            try:
                is_kept = await self._serve_one(message, payload)
            except asyncio.CancelledError:
                self.force_close()
                raise
            except Exception as problem:  # of the answer's sending: nobody is there to be told
                _logger.error("answer could not be sent", exc_info=problem)
                self.force_close()
                break
            except BaseException:
                self.force_close()
                raise
            del message, payload  # an idle connection holds nobody's prompt
            if not is_kept or self._close or self._force_close:
                break
            self._stay_open()
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _serve_one(self, message: RawRequestMessage | _ErrInfo, payload: StreamReader) -> bool:
        """Whether the connection is kept, as far as the answer goes."""
        direct = self._direct_route(message)
        request = self._request_factory(  # type: ignore[misc]  # there is one as long as there is a connection
            _NOT_READ if isinstance(message, _ErrInfo) else message,
            payload,
            self,
            StreamWriter(self, self._loop),
            self._task_handler or asyncio.current_task(self._loop),  # type: ignore[arg-type]
        )
        try:
            if direct is not None:
                response = await self._answer_directly(request, direct)
            else:
                response = await self._answer_in_a_task(request, self._ordinary_handler(message))
        except ConnectionError:
            return False
        finally:
            request._task = None  # noqa: SLF001  # or task and request would hold each other
            self._served()
        self._keepalive = bool(response.keep_alive)
        if not payload.is_eof():
            await self._throw_away(payload)
        if direct is None:
            payload.set_exception(web.PayloadAccessError())  # whoever goes on reading it learns that it is too late
        return self._keepalive

    async def _answer_directly(self, request: web.BaseRequest, direct: Serve) -> web.StreamResponse:
        """Raises ConnectionError if the client has gone."""
        self._request_in_progress = True
        self._current_request = request
        try:
            try:
                response = await direct(request)
            except Exception as problem:  # noqa: BLE001  # a defect around its own handling of errors
                response = self.handle_error(request, 500, problem)
            self._current_request = None
            await response.prepare(request)
            await response.write_eof()
            return response
        finally:
            self._current_request = None
            self._request_in_progress = False
            if self._handler_waiter is not None:  # somebody is stopping the server
                self._handler_waiter.set_result(None)

    async def _answer_in_a_task(self, request: web.BaseRequest, handler: Serve) -> web.StreamResponse:
        started = self._loop.time() if self._logging_enabled else None
        response, is_lost = await self._loop.create_task(self._handle_request(request, started, handler))
        if is_lost:
            raise ConnectionResetError("the client has gone")
        return response

    def _is_held(self) -> bool:
        """Whether what has come is not to be served as yet. Whoever changes that wakes the waiter."""
        return False

    def _served(self) -> None:
        """A request has been answered, or could not be."""

    def _direct_route(self, message: RawRequestMessage | _ErrInfo) -> Serve | None:
        """Only what is plainly for one: an expectation, or a query, is for the application to see to."""
        if isinstance(message, _ErrInfo) or message.method != hdrs.METH_POST or message.upgrade:
            return None
        if hdrs.EXPECT in message.headers:
            return None
        return self._direct.get(message.path)

    def _ordinary_handler(self, message: RawRequestMessage | _ErrInfo) -> Serve:
        if isinstance(message, _ErrInfo):
            return self._make_error_handler(message)
        assert self._request_handler is not None  # noqa: S101  # as long as there is a connection
        return self._request_handler

    def _make_room(self) -> None:
        """A message was taken out of the queue, which may have held back the parser, or the client."""
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()

    async def _throw_away(self, payload: StreamReader) -> None:
        """The rest of a body that nobody wanted; a client that is still sending would not see its answer."""
        if not self._force_close and self._lingering_time:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lingering_time):
                    while not payload.is_eof():
                        await payload.readany()
        if not payload.is_eof() and not self._force_close:
            self.close()

    def _stay_open(self) -> None:
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
