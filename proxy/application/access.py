"""Finding out who makes a request."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from proxy.domain.access.keys import has_key_shape, hint_of, key_hash
from proxy.domain.access.permissions import Role, permissions_of
from proxy.domain.access.principals import ANONYMOUS, Principal, PrincipalKind
from proxy.domain.access.scopes import GATEWAY
from proxy.domain.errors import NotAuthenticated, NotServing
from proxy.domain.rate_limits import Priority

_logger = logging.getLogger(__name__)
NO_KEY: Final = "No API key given. Send it as 'Authorization: Bearer <key>'."
WRONG_KEY: Final = "Incorrect API key given."  # unknown, disabled or expired: a stranger is not told which
_QUIET_SECONDS = 1.0
_LEAST_REFUSAL_SECONDS = 0.01
_RETRY_AFTER_SECONDS = 2.0
_DOTS_OF_A_JWT = 2
_AS_NEARLY_ALL: Final = "Bearer "  # write it


class Presented(NamedTuple):
    """An Authorization header, and the hash of the key in it, which takes as long as all the rest of a look at it."""

    authorization: str
    key_hash: str

    @classmethod
    def by(cls, authorization: str) -> Presented:
        return cls(authorization, key_hash(_bearer_token((authorization,))))


class RequireKeys(StrEnum):
    """When requests without a key are refused."""

    AUTO = "auto"  # as soon as there is any key that one could have
    ALWAYS = "always"
    NEVER = "never"


class KeyDirectory(Protocol):
    """Knows the virtual keys."""

    async def find(self, key_hash: str) -> Principal:
        """Whom a good key stands for. Raises NotAuthenticated, or NotServing when that cannot be said now."""
        ...

    def certain(self, key_hash: str) -> Principal | None:
        """Whom a good key stands for, if that is beyond doubt without asking anybody: nearly always."""
        ...

    @property
    def has_priorities(self) -> bool:
        """Whether any key that was asked for has another priority than the normal one."""
        ...

    def remembered(self, key_hash: str) -> Principal | None:
        """Whom a key stands for as far as is known without asking anybody. Not for letting anyone in."""
        ...


class TokenVerifier(Protocol):
    """Knows the tokens of an issuer."""

    async def verify(self, token: str) -> Principal:
        """Whom a good token stands for.

        Raises NotAuthenticated; NotAllowed for one that gives no rights here; NotServing when that cannot be said now.
        """
        ...


def master_principal(*, calls_models: bool) -> Principal:
    """Whoever has the key from the environment."""
    return Principal(
        kind=PrincipalKind.MASTER,
        id="master",
        name="master key",
        permissions=permissions_of(Role.ADMIN, calls_models=calls_models),
        reach=GATEWAY,
    )


@dataclass(slots=True)
class RefusalLog:
    """One warning a second for keys that are refused, with what tells a key from others and does not give it away."""

    clock: Callable[[], float] = time.monotonic
    _next_at: float = 0.0
    _unsaid: int = 0

    def note(self, token: str) -> None:
        now = self.clock()
        if now < self._next_at:
            self._unsaid += 1
            return
        hint = hint_of(token) if has_key_shape(token) else "no virtual key"
        _logger.warning("API key refused", extra={"hint": hint, "others_since_the_last": self._unsaid})
        self._next_at, self._unsaid = now + _QUIET_SECONDS, 0


@dataclass(frozen=True, slots=True)
class Authenticator:
    """`has_keys` says whether there is any virtual key, None if that is not known."""

    directory: KeyDirectory
    has_keys: Callable[[], bool | None]
    require: RequireKeys = RequireKeys.AUTO
    master_key_hash: str | None = None
    master: Principal = field(default_factory=lambda: master_principal(calls_models=False))
    verifier: TokenVerifier | None = None
    refusals: RefusalLog = field(default_factory=RefusalLog)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def at_once(self, presented: Presented) -> Principal | None:
        """As `authenticate`, for a virtual key that is beyond doubt; None says nothing."""
        return self.directory.certain(presented.key_hash)

    async def authenticate(self, authorizations: Sequence[str]) -> Principal:
        """Whom the request's Authorization headers stand for; ANONYMOUS without a good key where none is required.

        Raises NotAuthenticated, NotAllowed or NotServing.
        """
        if not authorizations:
            if self.requires_keys():
                raise NotAuthenticated(NO_KEY)
            return ANONYMOUS
        token = _bearer_token(authorizations)
        hashed = key_hash(token)
        known = self.directory.certain(hashed)
        if known is not None:
            return known
        began = self.clock()
        try:
            return await self._principal(token, hashed)
        except NotAuthenticated:
            if self.requires_keys():
                self.refusals.note(token)
                # What a look-up takes would tell: a disabled key's row is read before it is found to be disabled.
                await self.sleep(max(0.0, began + _LEAST_REFUSAL_SECONDS - self.clock()))
                raise
        except NotServing:
            if self.requires_keys():
                raise
        return ANONYMOUS

    def priority_of(self, authorization: str | None) -> Priority:
        """That of the key in an Authorization header, if it is known; normal else. To refuse by, before all checks."""
        if not authorization or not self.directory.has_priorities:
            return Priority.NORMAL
        token = _bearer_token((authorization,))
        known = self.directory.remembered(key_hash(token)) if has_key_shape(token) else None
        return Priority.NORMAL if known is None else known.priority

    def requires_keys(self) -> bool:
        """Raises NotServing if it depends on whether there are keys, and that is not known."""
        if self.require is not RequireKeys.AUTO:
            return self.require is RequireKeys.ALWAYS
        if self.master_key_hash is not None or self.verifier is not None:
            return True
        has_keys = self.has_keys()
        if has_keys is None:
            raise NotServing(
                "The database does not answer, so it is not known whether API keys are required. "
                "LLMGATEWAY_REQUIRE_KEYS=always or never says so without it.",
                _RETRY_AFTER_SECONDS,
            )
        return has_keys

    async def _principal(self, token: str, hashed: str) -> Principal:
        """The hash is made of whatever comes, and compared in a time that does not depend on it."""
        if self.master_key_hash is not None and hmac.compare_digest(hashed, self.master_key_hash):
            return self.master
        if has_key_shape(token):
            return await self.directory.find(hashed)
        if self.verifier is not None and token.count(".") == _DOTS_OF_A_JWT:
            return await self.verifier.verify(token)
        raise NotAuthenticated(WRONG_KEY if token else NO_KEY)


def _bearer_token(authorizations: Sequence[str]) -> str:
    """Empty if there is none: two headers are none, since another server may read the other one."""
    if len(authorizations) > 1:
        return ""
    if authorizations[0].startswith(_AS_NEARLY_ALL):
        return authorizations[0].removeprefix(_AS_NEARLY_ALL).strip()
    scheme, _, token = authorizations[0].partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
