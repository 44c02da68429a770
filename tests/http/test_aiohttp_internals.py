"""What the gateway's connections lean on and aiohttp does not promise: an upgrade that moves it must fail here."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import inspect
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import StreamReader, web, web_protocol
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_writer import _serialize_headers
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDict

from proxy.api.answers import WholeAnswer
from proxy.server import direct, protocol, shedding, stalls

_MODULES = (direct, protocol, stalls, shedding)
_OURS = (direct.DirectHandler, protocol.ClientConnection, stalls.WatchedConnection, shedding.SheddingHandler)


def _private_names_used(module: object) -> set[str]:
    """Every `self._name` of the classes that stand over aiohttp's."""
    tree = ast.parse(Path(inspect.getfile(module)).read_text())  # type: ignore[arg-type]
    return {
        node.attr
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef) and kind.name.endswith(("Connection", "Handler"))
        for node in ast.walk(kind)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and node.attr.startswith("_")
    }


def _own(*kinds: type) -> set[str]:
    return {name for kind in kinds for name in (*vars(kind), *getattr(kind, "__slots__", ()))}


def test_every_private_name_that_is_used_is_there() -> None:
    used = set().union(*map(_private_names_used, _MODULES))
    ours = _own(*_OURS)
    theirs = {name for kind in web_protocol.RequestHandler.__mro__ for name in (*vars(kind), *_own(kind))}
    assert len(used - ours) >= 10
    assert used - ours <= theirs


def test_no_name_of_ours_hides_one_of_theirs() -> None:
    theirs = {name for kind in web_protocol.RequestHandler.__mro__ for name in _own(kind)}
    overridden = {"connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing"}
    overridden |= {"resume_reading", "handle_error", "log_exception", "_make_error_handler", "start"}
    dunder = {name for name in theirs if name.startswith("__")}
    for kind in _OURS:
        assert _own(kind) & theirs - dunder <= overridden


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (web_protocol.RequestHandler.data_received, ["self", "data"]),
        (web_protocol.RequestHandler._make_error_handler, ["self", "err_info"]),
        (web_protocol.RequestHandler.handle_error, ["self", "request", "status", "exc", "message"]),
        (web_protocol.RequestHandler.log_exception, ["self", "args", "kw"]),
        (web_protocol.RequestHandler._handle_request, ["self", "request", "start_time", "request_handler"]),
        (web_protocol._ErrInfo, ["status", "exc", "message"]),
        (web.AppRunner._make_server, ["self"]),
        (web.Server.shutdown, ["self", "timeout"]),
        (web.Server.pre_shutdown, ["self"]),
    ],
)
def test_what_is_overridden_or_called_takes_what_it_took(function: object, parameters: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == parameters  # type: ignore[arg-type]


async def test_a_server_holds_what_is_taken_over_from_it() -> None:
    async def nobody(request: web.BaseRequest) -> web.StreamResponse:
        raise AssertionError

    server = web.Server(nobody, debug=False)
    assert (server._kwargs, server._connections) == ({"debug": False}, {})


@pytest.mark.parametrize(
    ("function", "mark"),
    [
        (web_protocol.RequestHandler.start, "2e565fd40c8e04fb"),
        (web_protocol.RequestHandler._handle_request, "a88a34ee65a2714c"),
        (web_protocol.RequestHandler.finish_response, "b7eb53db8f4b30ca"),
    ],
)
def test_what_is_done_around_a_request_is_what_ours_rewords(function: Callable[..., object], mark: str) -> None:
    """If not: read what has changed in it, do the same in proxy/server/direct.py, and note the new mark here."""
    assert hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16] == mark


def test_the_serializer_of_heads_takes_what_it_took_and_lets_nobody_end_one() -> None:
    assert _serialize_headers("HTTP/1.1 200 OK", CIMultiDict({"a": "b"})) == b"HTTP/1.1 200 OK\r\na: b\r\n\r\n"
    for spoilt in ("b\r\nc: d", "b\nc: d", "b\0"):
        with pytest.raises(ValueError, match="header"):
            _serialize_headers("HTTP/1.1 200 OK", CIMultiDict({"a": spoilt}))


def test_an_answer_is_made_of_what_aiohttp_makes_one_of() -> None:
    theirs = web.Response(body=b"{}", content_type="application/json", headers={"a": "b"})
    ours = WholeAnswer(b"{}", "application/json", {"a": "b"})
    for name, value in vars(theirs).items():
        if not name.startswith(("_zlib", "_compressed")):
            assert vars(ours)[name] == value
    assert not ours.compression
    assert ours.body == theirs.body


async def test_a_body_that_came_in_one_piece_can_be_taken_out_of_its_reader() -> None:
    reader = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16, loop=asyncio.get_running_loop())
    reader.feed_data(b"whole")
    reader.feed_eof()
    assert (reader._buffer, reader._buffer_offset, reader._exception) == (deque([b"whole"]), 0, None)
    reader._buffer.popleft()
    assert reader.at_eof()
    assert EMPTY_PAYLOAD.total_bytes == 0  # it has no buffer


async def test_the_parser_tells_whether_it_has_begun_a_head() -> None:
    """Asked of a connection that has been idle for long, and if there is one it is never asked again."""

    async def nobody(request: web.BaseRequest) -> web.StreamResponse:
        raise AssertionError

    connection = web.Server(nobody)()
    parser = connection._parser
    assert parser is not None
    assert isinstance(parser, HttpRequestParser)
    whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert parser.feed_eof() is None
    assert len(parser.feed_data(whole)[0]) == 1
    assert parser.feed_eof() is None
    assert len(parser.feed_data(whole + whole[:20])[0]) == 1

    began: object
    try:
        began = parser.feed_eof()
    except Exception as problem:  # noqa: BLE001  # whatever it says, it has begun
        began = problem
    assert began is not None
