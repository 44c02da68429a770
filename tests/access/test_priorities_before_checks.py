"""The priority by which requests are refused before anything else is known of them."""

from __future__ import annotations

from proxy.application.access import Authenticator
from proxy.domain.access.keys import NewKey, generate_key
from proxy.domain.access.known_keys import known_key
from proxy.domain.rate_limits import Priority
from tests.access.tenancy import virtual_key
from tests.access.test_directory import World


async def test_it_is_that_of_a_key_that_is_known_and_nobody_is_asked_for_it() -> None:
    world = World()
    authenticator = Authenticator(world.directory, lambda: True)
    secrets = {priority: _add(world, priority) for priority in Priority}

    def told() -> list[Priority]:
        return [authenticator.priority_of(f"Bearer {secret.secret}") for secret in secrets.values()]

    assert told() == [Priority.NORMAL] * 3
    assert world.source.asked == []
    for secret in secrets.values():
        await authenticator.authenticate([f"Bearer {secret.secret}"])
    assert told() == list(Priority)
    assert len(world.source.asked) == 3


async def test_whoever_is_not_known_has_the_normal_one() -> None:
    world = World()
    authenticator = Authenticator(world.directory, lambda: True)
    low = _add(world, Priority.LOW)
    await authenticator.authenticate([f"Bearer {low.secret}"])
    for header in (None, "", "Bearer", f"Basic {low.secret}", "Bearer sk-\udcff", f"Bearer {generate_key().secret}"):
        assert authenticator.priority_of(header) is Priority.NORMAL


def _add(world: World, priority: Priority) -> NewKey:
    secret = generate_key()
    known = known_key(virtual_key(secret, priority=priority), None, None)
    world.source.keys[known.key.hash] = known
    return secret
