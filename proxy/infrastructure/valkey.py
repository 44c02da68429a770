"""A client of Valkey (or Redis) for requests that wait for it: it tries once, and says soon when it cannot."""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from proxy.domain.errors import InvalidValue

_MOST_CONNECTIONS: Final = 64
_REFUSAL_CHARACTERS: Final = 300
_NO_OPTION: Final = "what follows its ? is none of the client's options, or has a value that it cannot have"


def valkey_client(url: str, deadline_seconds: float, **options: Any) -> Redis:
    """Waits no longer than the deadline for one of its connections, of which there are few.

    For answers there is no limit but the callers' own: the client's is `asyncio.wait_for`, which before Python 3.12 may
    lose a cancellation, so that whoever is told to end goes on.

    Raises InvalidValue for a URL with options that are none; it is not repeated.
    """
    try:
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
        pool.make_connection()  # type: ignore[no-untyped-call]  # connects to nothing yet, but looks at the options
    except (TypeError, ValueError):
        raise InvalidValue(f"LLMGATEWAY_VALKEY_URL: {_NO_OPTION}") from None
    return Redis.from_pool(pool)


def refusal(problem: BaseException) -> str | None:
    """What the server says, or the system of the connection, for the log: which right is missing, that it is a
    replica, or whose certificate it has. No password is in it."""
    is_told = isinstance(problem, ResponseError | RedisConnectionError)
    return str(problem)[:_REFUSAL_CHARACTERS] if is_told else None
