"""What the gateway's connections lean on and aiohttp does not promise: an upgrade that moves it must fail here."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import importlib
import inspect
import re
import textwrap
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import StreamReader, web, web_protocol
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_writer import _serialize_headers
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDict

import proxy
from proxy.api.answers import WholeAnswer

_PROXY = Path(proxy.__file__).parent
_SELF = ("self", "super()")
# What the things of aiohttp's are called whose private names are used from outside.
_OTHERS = {
    "plain": web.Server,
    "reader": StreamReader,
    "request": web.Request,
    "request._message": RawRequestMessage,
    "message": RawRequestMessage,
}
_COMPILED = {RawRequestMessage}
# Our own names that are but assigned in `__init__`, in classes without slots.
_ASSIGNED = {"_gate", "_keep_seconds", "_kept", "_next_sweep", "_outbox", "_timeouts", "_transport"}
# What of aiohttp's is overridden on purpose.
_OVERRIDDEN = {
    *("connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing", "pause_reading"),
    *("resume_reading", "handle_error", "log_exception", "_make_error_handler", "start"),
    *("pre_shutdown", "shutdown", "_make_server", "close"),
    *("prepare", "write", "write_eof", "_zlib_executor", "_zlib_executor_size"),
}


def _sources(mark: str) -> Iterator[tuple[Path, ast.Module]]:
    """Every module in which there is something like that."""
    for path in sorted(_PROXY.rglob("*.py")):
        text = path.read_text()
        if re.search(mark, text, re.MULTILINE):
            yield path, ast.parse(text)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _private_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Of what is said to be whose, and the name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            yield ast.unparse(node.value), node.attr


def _is_theirs(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "aiohttp"


def _own(*kinds: type) -> set[str]:
    declared = {name for kind in kinds for name in (*vars(kind), *vars(kind).get("__slots__", ()))}
    return declared - {"_abc_impl"}


def _names_of_theirs(kind: type) -> set[str]:
    """Those that aiohttp's classes above it declare, or assign to themselves."""
    theirs = [each for each in kind.__mro__ if _is_theirs(each)]
    trees = [ast.parse(textwrap.dedent(inspect.getsource(each))) for each in theirs if each not in _COMPILED]
    return _own(*theirs).union(*({name for whose, name in _private_names(tree) if whose == "self"} for tree in trees))


def _classes() -> dict[type, ast.ClassDef]:
    """The gateway's classes over aiohttp's."""
    found = {}
    for path, tree in _sources(r"^class \w+\((?!Protocol|StrEnum)"):
        module = ".".join(path.relative_to(_PROXY.parent).with_suffix("").parts).removesuffix(".__init__")
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                kind = getattr(importlib.import_module(module), node.name)
                if any(map(_is_theirs, kind.__mro__)):
                    found[kind] = node
    return found


_OURS = _classes()


def test_the_classes_over_aiohttp_s_are_found() -> None:
    assert {kind.__name__ for kind in _OURS} >= {
        *("DirectHandler", "ClientConnection", "WatchedConnection", "SheddingHandler", "ClientServer"),
        *("SheddingServer", "SheddingRunner", "UpstreamConnection", "DirectConnector", "WholeAnswer", "StreamedAnswer"),
    }


@pytest.mark.parametrize("kind", _OURS, ids=lambda kind: kind.__name__)
def test_every_private_name_that_is_used_is_there(kind: type) -> None:
    used = {name for whose, name in _private_names(_OURS[kind]) if whose in _SELF}
    ours = _own(*(each for each in kind.__mro__ if each in _OURS))
    assert used - ours - _ASSIGNED <= _names_of_theirs(kind)


@pytest.mark.parametrize("kind", _OURS, ids=lambda kind: kind.__name__)
def test_no_name_of_ours_hides_one_of_theirs(kind: type) -> None:
    names = {name for name in _own(kind) if not name.startswith("__")}
    assert (names | _ASSIGNED) & _names_of_theirs(kind) <= _OVERRIDDEN


def test_every_private_name_that_is_used_from_outside_is_there() -> None:
    used = {
        (whose, name) for _, tree in _sources("aiohttp") for whose, name in _private_names(tree) if whose not in _SELF
    }
    assert {whose for whose, _ in used} == set(_OTHERS)
    assert [f"{whose}.{name}" for whose, name in used if name not in _names_of_theirs(_OTHERS[whose])] == []


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
