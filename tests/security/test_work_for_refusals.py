"""Whether a key is unknown, almost right, disabled or expired: the same work is done, so the time tells nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from proxy.application.access import Authenticator, RequireKeys
from proxy.domain.access.keys import NewKey, generate_key, key_hash
from proxy.domain.access.known_keys import KnownKey, known_key
from proxy.domain.access.principals import Principal
from proxy.domain.errors import NotAuthenticated
from proxy.infrastructure.access.directory import CachedKeyDirectory
from tests.access.tenancy import NOW, virtual_key


@dataclass
class Source:
    """A KeySource that notes what it is asked."""

    keys: dict[str, KnownKey] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    confirmed_at: float = 0.0

    async def find(self, key_hash: str, now: datetime) -> KnownKey | None:  # tells bad ones, too
        self.asked.append(key_hash)
        return self.keys.get(key_hash)

    def add(self, **members: object) -> NewKey:
        new = generate_key()
        known = known_key(virtual_key(new, **members), None, None)
        self.keys[new.hash] = known
        if known.key.previous_hash is not None:
            self.keys[known.key.previous_hash] = known
        return new


@pytest.mark.parametrize("is_warm", [False, True], ids=["never seen", "seen when it was good"])
async def test_every_refusal_asks_once_and_by_the_hash(*, is_warm: bool) -> None:
    source = Source()
    now = [NOW]
    directory = CachedKeyDirectory(source, source, 3600, now=lambda: now[0], clock=lambda: 0.0)
    authenticator = Authenticator(directory, lambda: True, RequireKeys.ALWAYS, key_hash("sk-master"))
    old = generate_key()
    good = source.add()
    nearly = good.secret[:-1] + ("A" if good.secret[-1] != "A" else "B")
    later = NOW + timedelta(seconds=1)
    source.add(previous_hash=old.hash, previous_until=later)
    refused = {
        "unknown": generate_key().secret,
        "last character wrong": nearly,
        "disabled": source.add(disabled=True).secret,
        "expired": source.add(expires_at=later).secret,
        "rotated": old.secret,
    }
    if is_warm:
        for name in ("expired", "rotated"):
            await authenticator.authenticate([f"Bearer {refused[name]}"])
        await authenticator.authenticate([f"Bearer {good.secret}"])
    now[0] = later
    messages = set()
    for secret in refused.values():
        source.asked.clear()
        with pytest.raises(NotAuthenticated) as raised:
            await authenticator.authenticate([f"Bearer {secret}"])
        messages.add(str(raised.value))
        assert source.asked == [key_hash(secret)]
    assert len(messages) == 1


async def test_refusals_take_their_time() -> None:
    """So that what a look-up takes does not show."""
    now, waits = [0.0], []

    @dataclass
    class Slow:
        """A KeyDirectory that takes its time, too."""

        seconds: float
        has_priorities: bool = False

        async def find(self, key_hash: str) -> Principal:
            now[0] += self.seconds
            raise NotAuthenticated(key_hash)

        def certain(self, key_hash: str) -> Principal | None:
            return None

        def remembered(self, key_hash: str) -> Principal | None:
            return None

    async def sleep(seconds: float) -> None:
        waits.append(round(seconds, 6))

    for seconds in (0.0, 0.003, 0.01, 1.0):
        authenticator = Authenticator(
            Slow(seconds), lambda: True, RequireKeys.ALWAYS, clock=lambda: now[0], sleep=sleep
        )
        with pytest.raises(NotAuthenticated):
            await authenticator.authenticate([f"Bearer {generate_key().secret}"])
    assert waits == [0.01, 0.007, 0.0, 0.0]


async def test_what_cannot_be_a_key_is_not_looked_up() -> None:
    source = Source()
    directory = CachedKeyDirectory(source, source, 3600)
    authenticator = Authenticator(directory, lambda: True, RequireKeys.ALWAYS, key_hash("sk-master"))
    for token in ("", "sk-", "sk-short", "sk-" + "x" * 201, "pk-0123456789abcdef", "sk-0123456789abcde\n", "a.b.c"):
        with pytest.raises(NotAuthenticated):
            await authenticator.authenticate([f"Bearer {token}"])
    assert source.asked == []
