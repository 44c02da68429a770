"""A client of Valkey (or Redis) for requests that wait for it: it tries once, and says soon when it cannot."""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

_MOST_CONNECTIONS: Final = 64
_REFUSAL_CHARACTERS: Final = 300


def valkey_client(url: str, deadline_seconds: float, **options: Any) -> Redis:
    """Waits no longer than the deadline for one of its connections, of which there are few.

    For answers there is no limit but the callers' own: the client's is `asyncio.wait_for`, which before Python 3.12 may
    lose a cancellation, so that whoever is told to end goes on.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=1.0,
        socket_timeout=None,
        max_connections=_MOST_CONNECTIONS,
        timeout=deadline_seconds,
        protocol=2,
        **options,
    )
    return Redis.from_pool(pool)


def refusal(problem: BaseException) -> str | None:
    """What the server says, for the log: which right is missing, or that it is a replica. No password is in it."""
    return str(problem)[:_REFUSAL_CHARACTERS] if isinstance(problem, ResponseError) else None
