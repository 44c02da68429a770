"""The public keys with which an issuer signs its tokens, fetched from it and kept for a while.

They are fetched again when they are old, when a token names a key that is not among them, and when the one that it
names (or the only one, if it names none) does not fit: there may be another in its place by now. None of it more often
than every few seconds, so that strangers with invented names cannot make the gateway hammer the issuer. While the
issuer does not answer, the keys that are known serve on for a bounded time, and nobody who brings one waits for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from yarl import URL

from proxy.domain.errors import NotServing

_logger = logging.getLogger(__name__)
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
MAX_AGE_SECONDS: Final = 600.0
QUIET_SECONDS: Final = 10.0
STALE_SECONDS: Final = 4 * 3600.0
_TIMEOUT_SECONDS = 5.0
_MOST_BYTES = 256 * 1024
_MOST_KEYS = 100
_LEAST_RSA_BITS = 2048
_RETRY_AFTER_SECONDS = 5.0
_DISCOVERY = ".well-known/openid-configuration"
_FETCH_ERRORS = (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError)
_OK = 200
_SHOWN_CHARACTERS = 200


class _Unusable(ValueError):
    """What the issuer says is no use; the message says why, for the operator."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key. `algorithm` is the only one that it may be used with, None if the issuer does not say."""

    public_key: Any
    algorithm: str | None


class IssuerKeys:
    """Of one issuer; `jwks_url` None is asked of it."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        issuer: str,
        jwks_url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._clock = clock
        self._keys: Mapping[str | None, SigningKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._has_failed = True
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> SigningKey | None:
        """The key of that name, or the only one if none is named. Raises NotServing if that cannot be said now."""
        if self._age() > MAX_AGE_SECONDS:
            # An issuer that hangs would hold everybody up again each time that it is asked.
            await self._refresh(and_wait=self._age() > STALE_SECONDS or not self._has_failed)
        if self._age() > STALE_SECONDS:
            raise self._away()
        found = self._keys.get(key_id)
        if found is None:
            await self._refresh()
            found = self._keys.get(key_id)
            if found is None and self._has_failed:
                raise self._away()
        return found

    async def find_newer(self, key_id: str | None, known: SigningKey) -> SigningKey | None:
        """The issuer's key of that name if it is another one by now."""
        await self._refresh()
        found = self._keys.get(key_id)
        return None if found == known else found

    async def close(self) -> None:
        """Ends a fetch that nobody waits for any more."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    def _away(self) -> NotServing:
        return NotServing("The token cannot be checked now: its issuer's keys are not to be had.", _RETRY_AFTER_SECONDS)

    async def _refresh(self, *, and_wait: bool = True) -> None:
        """Once for all who want it, and only if the last time is long enough ago; keeps what is there if it fails."""
        if self._fetching is None:
            if self._tried_at is not None and self._clock() - self._tried_at < QUIET_SECONDS:
                return
            self._fetching = asyncio.create_task(self._fetch(), name="issuer's keys")
            self._fetching.add_done_callback(self._fetched)
        if and_wait:
            await asyncio.shield(self._fetching)

    def _fetched(self, _task: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        self._tried_at = self._clock()
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                url = self._jwks_url or await self._discover()
                self._keys = signing_keys(await self._get(url))
        except _FETCH_ERRORS as problem:
            self._has_failed = True
            reason = str(problem) if isinstance(problem, _Unusable) else type(problem).__name__
            _logger.warning("keys of the token issuer not fetched", extra={"reason": reason})
            return
        self._fetched_at, self._has_failed = self._tried_at, False

    async def _discover(self) -> str:
        found = await self._get(f"{self._issuer.rstrip('/')}/{_DISCOVERY}")
        url, name = found.get("jwks_uri"), found.get("issuer")
        if name != self._issuer:
            shown = repr(name)[:_SHOWN_CHARACTERS]
            raise _Unusable(f"the issuer calls itself {shown}; OIDC_ISSUER must be the same, to the last slash")
        if not isinstance(url, str):
            raise _Unusable("the issuer does not say where its keys are (jwks_uri)")
        if URL(url).scheme != "https" and URL(self._issuer).scheme == "https":
            raise _Unusable("the issuer's keys are not at an https address")
        return url

    async def _get(self, url: str) -> Mapping[str, Any]:
        async with self._session.get(
            url, allow_redirects=False, headers={"Accept": "application/json"}, raise_for_status=False
        ) as response:
            if response.status != _OK:
                raise _Unusable(f"{response.url.path} was answered with HTTP {response.status}")
            body = b""
            async for chunk in response.content.iter_chunked(64 * 1024):
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise _Unusable(f"{response.url.path} is larger than {_MOST_BYTES} bytes")
        found = json.loads(body)
        if not isinstance(found, dict):
            raise _Unusable(f"{URL(url).path} is no JSON object")
        return found


def signing_keys(document: Mapping[str, Any]) -> dict[str | None, SigningKey]:
    """The usable keys by their names; under None the only one, if there is but one. Others are passed over.

    Raises ValueError if there is none.
    """
    listed = document.get("keys")
    keys: dict[str | None, SigningKey] = {}
    for entry in listed[:_MOST_KEYS] if isinstance(listed, list) else ():
        key = _signing_key(entry)
        name = entry.get("kid") if key is not None else None
        if key is not None and (name is None or isinstance(name, str)):
            keys[name] = key
    if not keys:
        raise _Unusable("the issuer has no key that could be used")
    if len(keys) == 1:
        keys[None] = next(iter(keys.values()))
    elif None in keys:
        del keys[None]  # which of several a token means that names none cannot be said
    return keys


def _signing_key(entry: Any) -> SigningKey | None:
    """Public keys for signatures only: a symmetric one that a document shows to everybody is no secret."""
    if not isinstance(entry, dict) or entry.get("kty") == "oct" or entry.get("use", "sig") != "sig":
        return None
    algorithm = entry.get("alg")
    if algorithm is not None and not (isinstance(algorithm, str) and algorithm in ALGORITHMS):
        return None
    public = {name: value for name, value in entry.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")}
    try:
        key = jwt.PyJWK.from_dict(public).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        return None
    return SigningKey(key, algorithm)
