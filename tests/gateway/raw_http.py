"""HTTP by hand, for what a client library would not send, or would hide."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from yarl import URL

_CLOSED_WITHIN_SECONDS = 10


@dataclass(frozen=True)
class RawAnswer:
    """One answer; header names are in lower case, of repeated headers the last is kept."""

    status: int
    headers: dict[str, str]
    body: bytes
    version: str = "HTTP/1.1"

    @property
    def closes(self) -> bool:
        """Whether it announces the end of the connection."""
        return self.headers.get("connection", "").lower() == "close"


@dataclass(frozen=True)
class RawConnection:
    """A connection that one writes bytes to, and reads one answer after the other from."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, to_head: bool = False) -> RawAnswer:
        """The next answer, also an interim one (1xx); an answer to HEAD has no body to wait for."""
        async with asyncio.timeout(_CLOSED_WITHIN_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head.rstrip("\r\n").split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            version, code, _ = status_line.split(" ", 2)
            status = int(code)
            body = b"" if to_head or status < 200 else await self._body(headers)
        return RawAnswer(status, headers, body, version)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.readexactly(int(headers.get("content-length", "0")))
        body = b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            if size == 0:
                return body
            body += data[:-2]

    async def is_closed(self) -> bool:
        """Whether the other side says nothing more and hangs up, now that it is told that nothing more will come."""
        self.writer.write_eof()
        async with asyncio.timeout(_CLOSED_WITHIN_SECONDS):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True


@asynccontextmanager
async def connected(url: URL) -> AsyncIterator[RawConnection]:
    """A connection to that server."""
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=2**24)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def request_bytes(
    body: bytes | None = None,
    *header_lines: bytes,
    method: str = "POST",
    path: str = "/v1/chat/completions",
    content_type: bytes | None = b"application/json",
) -> bytes:
    """A request with its length declared; `body` None sends neither a body nor a word about one."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: gateway", *header_lines]
    if body is not None:
        lines += [b"Content-Length: %d" % len(body)]
        lines += [] if content_type is None else [b"Content-Type: " + content_type]
    return b"\r\n".join([*lines, b"", b""]) + (body or b"")


def chunked(*pieces: bytes) -> bytes:
    """The pieces as a chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def openai_error(raw: bytes) -> dict[str, Any]:
    """The error object of an answer, which must have all four keys of OpenAI's schema, each of its type."""
    error: dict[str, Any] = json.loads(raw)["error"]
    assert {"message", "type", "param", "code"} <= set(error), error
    assert isinstance(error["message"], str), error
    assert error["message"].strip(), error
    assert isinstance(error["type"], str), error
    assert isinstance(error["param"], str | None), error
    assert isinstance(error["code"], str | int | None), error
    return error
