"""The one HTTP client session of the process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from proxy.infrastructure.connector import DirectConnector

_READ_BUFFER_BYTES = 64 * 1024
_DNS_CACHE_SECONDS = 60


@asynccontextmanager
async def client_session(
    connect_timeout_seconds: float, idle_timeout_seconds: float
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session for upstream calls; closed with all its connections at the end.

    Not aiohttp's defaults, on purpose: no connection limit (100 would let one hung upstream stop everything), no total
    time-out (300 s would cut long streams), no cookies, no proxies from the environment.
    """
    session = aiohttp.ClientSession(
        connector=DirectConnector(ttl_dns_cache=_DNS_CACHE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_seconds, sock_read=idle_timeout_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        read_bufsize=_READ_BUFFER_BYTES,
    )
    try:
        yield session
    finally:
        await session.close()


def detail_for_the_log(problem: BaseException | None) -> dict[str, str]:
    """What the system says of a connection: an expired certificate, another host's, a name that nobody knows.

    Only of connections: the words of other errors may quote what was sent or answered.
    """
    return {"detail": str(problem)} if isinstance(problem, OSError) and str(problem) else {}
