"""Composing who may ask: keys, tokens, and the rules that hold for everyone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp

from proxy.application.access import Authenticator, RequireKeys, TokenVerifier, master_principal
from proxy.domain.access.keys import key_hash
from proxy.infrastructure.access.changes import ChangeFeed, following_changes
from proxy.infrastructure.access.directory import key_directory
from proxy.infrastructure.access.key_rows import KeyRows
from proxy.infrastructure.access.rules import StandingRules, keeping_rules
from proxy.infrastructure.periodic import once
from proxy.infrastructure.persistence.arrival import Arrival
from proxy.settings import Settings


@dataclass(frozen=True, slots=True)
class AccessControl:
    """`changes` takes more subscribers as long as the database is not being followed, so before the start's end."""

    authenticator: Authenticator
    rules: StandingRules
    changes: ChangeFeed

    async def take_up(self) -> None:
        """Has this process heed what was changed: its next request is judged by it."""
        await self.changes.caught_up()
        await self.rules.load_or_later()


@asynccontextmanager
async def access_control(
    settings: Settings, arrival: Arrival, http: aiohttp.ClientSession
) -> AsyncIterator[AccessControl]:
    """Keys are looked up, and changes followed, once the database is there."""
    async with AsyncExitStack() as stack:
        stale_seconds = settings.llmgateway_keys_stale_seconds
        changes = ChangeFeed(arrival.database)
        directory = await stack.enter_async_context(key_directory(KeyRows(arrival.database), changes, stale_seconds))
        rules = StandingRules(arrival.database, changes, stale_seconds)
        verifier: TokenVerifier | None = None
        if settings.oidc_issuer is not None:
            from proxy.bootstrap.tokens import issuer_tokens  # noqa: PLC0415  # 9 MB that are for issuers alone

            verifier = tokens = issuer_tokens(settings, settings.oidc_issuer, arrival, http, stack)
            changes.subscribe(tokens.heed)
        changes.subscribe(directory.heed)
        changes.subscribe(rules.heed)
        if arrival.here.is_set():
            await rules.load_or_later()
        await stack.enter_async_context(keeping_rules(rules))
        await stack.enter_async_context(once(arrival.here, following_changes(changes)))
        secret = settings.llmgateway_master_key
        authenticator = Authenticator(
            directory,
            rules.has_keys,
            RequireKeys(settings.llmgateway_require_keys),
            None if secret is None else key_hash(secret.get_secret_value()),
            master_principal(calls_models=settings.llmgateway_master_key_calls_models),
            verifier,
        )
        yield AccessControl(authenticator, rules, changes)
