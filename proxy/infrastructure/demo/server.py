"""The demo upstream's HTTP server."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

from aiohttp import web

from proxy.infrastructure.demo.answers import Completion, complete
from proxy.infrastructure.demo.catalogue import Behaviour, behaviour_of, models_document
from proxy.infrastructure.demo.documents import (
    chunk_documents,
    completion_document,
    error_chunk_document,
    error_document,
    to_json,
)
from proxy.infrastructure.demo.generations import Generation, Generations
from proxy.infrastructure.demo.requests import BadRequest, read_request

_PREFIX = "/api/v1"
_HOST = "127.0.0.1"
_SHUTDOWN_SECONDS = 0.25
_FLUSH_SECONDS = 0.01
_RETRY_AFTER = "1"
_RATE_LIMIT = 20
_BAD_GATEWAY = 502
_DONE = b"data: [DONE]\n\n"
_FAILED_LATE = "The demo upstream failed while it was answering, as the model's name asks."


def demo_app(*, chunk_pause_seconds: float = 0.005, slow_seconds: float = 2.0) -> web.Application:
    """The server's application. The times are those between two chunks, and of `demo/slow` before its answer."""
    upstream = _DemoUpstream(chunk_pause_seconds, slow_seconds)
    # No limit of its own (0): the gateway in front has one, and its error is the one to see.
    app = web.Application(middlewares=[_errors_as_json], client_max_size=0)
    app.router.add_post(f"{_PREFIX}/chat/completions", upstream.chat_completions)
    app.router.add_get(f"{_PREFIX}/models", upstream.models)
    app.router.add_get(f"{_PREFIX}/key", upstream.key)
    app.router.add_get(f"{_PREFIX}/generation", upstream.generation)
    return app


@asynccontextmanager
async def demo_upstream(app: web.Application | None = None) -> AsyncIterator[str]:
    """Serves on a free loopback port; yields the base URL. At the end, open answers are cut off at once."""
    runner = web.AppRunner(
        demo_app() if app is None else app,
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_SECONDS,
        access_log=None,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, _HOST, 0).start()
        yield f"http://{_HOST}:{runner.addresses[0][1]}{_PREFIX}/"
    finally:
        await runner.cleanup()


class _DemoUpstream:
    def __init__(self, chunk_pause_seconds: float, slow_seconds: float) -> None:
        self._chunk_pause_seconds = chunk_pause_seconds
        self._slow_seconds = slow_seconds
        self._generations = Generations()
        self._refusable_calls: Counter[str] = Counter()

    async def chat_completions(self, request: web.Request) -> web.StreamResponse:
        asked_at = time.monotonic()
        asked = read_request(await request.read())
        behaviour = behaviour_of(asked.model)
        if behaviour.status is not None and self._refuses(asked.model, behaviour):
            return _error_response(behaviour.status, f"The demo upstream refuses with {behaviour.status}, as asked.")
        if behaviour.slow:
            await asyncio.sleep(self._slow_seconds)
        completion = complete(asked)
        generation = self._generations.begin(completion, asked_at)
        try:
            if asked.stream:
                return await self._send_stream(request, completion, generation, behaviour)
            return await _send_whole(request, completion, generation, behaviour)
        except (asyncio.CancelledError, ConnectionError):
            generation.cancel()
            raise

    async def models(self, _: web.Request) -> web.Response:
        return _json_response(models_document())

    async def key(self, _: web.Request) -> web.Response:
        spent = self._generations.spent
        periods = ("", "_daily", "_weekly", "_monthly")
        return _json_response(
            {
                "data": {
                    "label": "demo",
                    "limit": None,
                    "limit_reset": None,
                    "limit_remaining": None,
                    "include_byok_in_limit": False,
                    **{f"usage{period}": spent for period in periods},
                    **{f"byok_usage{period}": 0 for period in periods},
                    "is_free_tier": False,
                    "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated."},
                }
            }
        )

    async def generation(self, request: web.Request) -> web.Response:
        generation_id = request.query.get("id", "")
        if not generation_id:
            raise BadRequest('The query parameter "id" is missing.')
        generation = self._generations.get(generation_id)
        if generation is None:
            return _error_response(404, f"Generation {generation_id} not found.")
        return _json_response({"data": generation.document()})

    def _refuses(self, model: str, behaviour: Behaviour) -> bool:
        if behaviour.refusals is None:
            return True
        calls_before = self._refusable_calls[model]
        self._refusable_calls[model] += 1
        return calls_before % (behaviour.refusals + 1) < behaviour.refusals

    async def _send_stream(
        self, request: web.Request, completion: Completion, generation: Generation, behaviour: Behaviour
    ) -> web.StreamResponse:
        headers = {"X-Generation-Id": completion.id, "Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(b": OPENROUTER PROCESSING\n\n")
        for number, event in enumerate(_events(completion)):
            await asyncio.sleep(self._chunk_pause_seconds)
            if number == behaviour.cut_after_chunks:
                await _break_connection(request)
                return response
            if number == behaviour.error_after_chunks:
                generation.finish()
                await response.write(_event(error_chunk_document(completion, _BAD_GATEWAY, _FAILED_LATE)))
                return response
            if event is _DONE:
                generation.finish()
            await response.write(event)
        return response


async def _send_whole(
    request: web.Request, completion: Completion, generation: Generation, behaviour: Behaviour
) -> web.StreamResponse:
    headers = {"X-Generation-Id": completion.id}
    generation.finish()
    if behaviour.error_after_chunks is not None:
        return _json_response(error_document(_BAD_GATEWAY, _FAILED_LATE), headers=headers)
    if behaviour.cut_after_chunks is None:
        return _json_response(completion_document(completion), headers=headers)
    body = to_json(completion_document(completion))
    response = web.StreamResponse(headers={**headers, "Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    await _break_connection(request)
    return response


def _events(completion: Completion) -> Iterator[bytes]:
    for document in chunk_documents(completion):
        yield _event(document)
    yield _DONE


def _event(document: dict[str, object]) -> bytes:
    return b"data: " + to_json(document) + b"\n\n"


async def _break_connection(request: web.Request) -> None:
    """Ends the connection without an end of the answer, after what was written has gone out."""
    await asyncio.sleep(_FLUSH_SECONDS)  # abort() throws away what the transport still holds
    if request.transport is not None:
        request.transport.abort()


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadRequest as problem:
        return _error_response(400, str(problem))
    except web.HTTPException as problem:
        response = _error_response(problem.status, problem.reason)
        response.headers.update({name: problem.headers[name] for name in ("Allow",) if name in problem.headers})
        return response


def _error_response(status: int, message: str) -> web.Response:
    headers: dict[str, str] = {}
    if status in (429, 503):
        headers["Retry-After"] = _RETRY_AFTER
    if status != 429:
        return _json_response(error_document(status, message), status=status, headers=headers)
    limits = _rate_limits()
    document = error_document(status, message, {"headers": limits})
    return _json_response(document, status=status, headers=headers | limits)


def _rate_limits() -> dict[str, str]:
    reset_ms = (int(time.time()) + int(_RETRY_AFTER)) * 1000
    return {"X-RateLimit-Limit": str(_RATE_LIMIT), "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset_ms)}


def _json_response(
    document: dict[str, object], *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(body=to_json(document), status=status, headers=headers, content_type="application/json")
