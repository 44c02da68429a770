"""Bearer JWTs of one issuer: TokenVerifier over its keys and the database's teams."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from uuid import UUID

import jwt

from proxy.domain.access.principals import Principal
from proxy.domain.errors import NotAuthenticated, NotServing
from proxy.infrastructure.access.changes import Changes
from proxy.infrastructure.access.issuer_keys import ALGORITHMS, SigningKey
from proxy.infrastructure.access.token_claims import ClaimRules, Holder, Membership, holder_of, principal_of
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, kind_of

_logger = logging.getLogger(__name__)
KEPT_SECONDS: Final = 60.0
_MOST_KEPT = 10_000
_MOST_CHARACTERS = 16 * 1024
_MOST_SUBJECT_CHARACTERS = 240
_LATEST_END = 2**40  # seconds; what is later makes no sense
_RETRY_AFTER_SECONDS = 2.0
_OPTIONS: Final = {"require": ["exp", "iss", "aud", "sub"]}
_REFUSED: Final = "The token is not accepted."
# A key of another kind is a TypeError, one on another curve an InvalidKeyError. So may be claims that make no sense.
_MISFITS: Final = (jwt.InvalidSignatureError, jwt.InvalidKeyError, TypeError)
_REASONS: Final[Mapping[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is of another issuer",
}


class SigningKeys(Protocol):
    """The issuer's keys."""

    async def find(self, key_id: str | None) -> SigningKey | None:
        """Raises NotServing."""
        ...

    async def find_newer(self, key_id: str | None, known: SigningKey) -> SigningKey | None:
        """What the issuer has put in the place of a key that does not fit, if anything."""
        ...


class MembershipSource(Protocol):
    """Teams, and the rules for them and their members."""

    async def find(self, key_id: UUID, team: str | None) -> Membership:
        """Raises DATABASE_ERRORS or ValueError."""
        ...


@dataclass(frozen=True, slots=True)
class TokenChecks:
    """What a token must say of itself, and by how many seconds clocks may differ."""

    issuer: str
    audience: str
    clock_skew_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class _Verified:
    principal: Principal
    until: float
    expires_at: int


@dataclass(frozen=True, slots=True)
class _Known:
    membership: Membership
    read_at: float


class IssuerTokens:
    """Verifies each token once a minute; in between it is known by its hash.

    Memberships that are known serve on for `staleness_seconds` while the database is away.
    """

    def __init__(
        self,
        keys: SigningKeys,
        memberships: MembershipSource,
        checks: TokenChecks,
        rules: ClaimRules,
        staleness_seconds: float,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._memberships = memberships
        self._checks = checks
        self._rules = rules
        self._staleness_seconds = staleness_seconds
        self._now = now
        self._clock = clock
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._known: OrderedDict[tuple[UUID, str | None], _Known] = OrderedDict()
        self._generation = 0

    async def verify(self, token: str) -> Principal:
        """Raises NotAuthenticated; NotAllowed for a good token without a role or a team; NotServing."""
        if len(token) > _MOST_CHARACTERS or not token.isascii():
            raise NotAuthenticated(_REFUSED)
        name = hashlib.sha256(token.encode()).digest()
        kept = self._verified.get(name)
        if kept is not None and kept.until > self._clock() and kept.expires_at > self._now().timestamp():
            self._verified.move_to_end(name)
            return kept.principal
        generation = self._generation
        claims = await self._claims(token)
        holder = holder_of(claims, self._rules)
        principal = principal_of(holder, await self._membership(holder), self._rules)
        if generation == self._generation:
            verified = _Verified(principal, self._clock() + KEPT_SECONDS, int(claims["exp"]))
            _keep(self._verified, name, verified)
        return principal

    def heed(self, changes: Changes) -> None:
        """A Subscriber: what may have changed is read again at its next use."""
        if changes is not None and all(change.kind == "virtual_keys" for change in changes):
            return
        self._generation += 1
        self._verified.clear()
        if changes is not None:  # else the connection was lost, and the database may be away
            self._known.clear()

    async def _claims(self, token: str) -> dict[str, Any]:
        header = _header(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or not isinstance(key_id, str | None):
            raise NotAuthenticated(_REFUSED)
        if algorithm not in ALGORITHMS or "crit" in header:
            raise NotAuthenticated(_REFUSED)
        key = await self._keys.find(key_id)
        while key is not None:
            if key.algorithm in (None, algorithm):
                with suppress(*_MISFITS):
                    return self._decoded(token, key, algorithm)
            key = await self._keys.find_newer(key_id, key)
        raise NotAuthenticated(_REFUSED)

    def _decoded(self, token: str, key: SigningKey, algorithm: str) -> dict[str, Any]:
        """The algorithm is one of ours, and fits the kind of the key, or PyJWT refuses it. Time is ours, too.

        Raises NotAuthenticated, or one of _MISFITS: another key may fit.
        """
        checks = self._checks
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public_key,
                algorithms=[algorithm],
                audience=checks.audience,
                issuer=checks.issuer,
                leeway=checks.clock_skew_seconds,
                options=_OPTIONS,  # type: ignore[arg-type]
            )
        except _MISFITS:
            raise
        except (jwt.PyJWTError, ValueError, OverflowError) as problem:
            reason = _REASONS.get(type(problem))
            raise NotAuthenticated(f"{_REFUSED[:-1]}: {reason}." if reason else _REFUSED) from None
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _MOST_SUBJECT_CHARACTERS or not _has_bytes(subject):
            raise NotAuthenticated(_REFUSED)
        if int(claims["exp"]) > _LATEST_END:
            raise NotAuthenticated(_REFUSED)
        return claims

    async def _membership(self, holder: Holder) -> Membership:
        name, began, generation = (holder.key_id, holder.team), self._clock(), self._generation
        try:
            found = await self._memberships.find(*name)
        except DATABASE_ERRORS as problem:
            known = self._known.get(name)
            if known is not None and began - known.read_at <= self._staleness_seconds:
                return known.membership
            message = f"The token cannot be checked now: the database does not answer ({kind_of(problem)})."
            raise NotServing(message, _RETRY_AFTER_SECONDS) from problem
        except ValueError as problem:
            _logger.error("team of a token cannot be read", extra={"team": holder.team})
            raise NotServing("The token's team cannot be read; tell the operator.", _RETRY_AFTER_SECONDS) from problem
        if generation == self._generation:
            _keep(self._known, name, _Known(found, began))
        return found


def _header(token: str) -> dict[str, Any]:
    try:
        return jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise NotAuthenticated(_REFUSED) from None


def _has_bytes(text: str) -> bool:
    """JSON can spell lone surrogates, of which no id can be made."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _keep(kept: OrderedDict[Any, Any], name: Any, value: Any) -> None:
    kept[name] = value
    kept.move_to_end(name)
    if len(kept) > _MOST_KEPT:
        kept.popitem(last=False)
