"""Composing the check of tokens. Imported only where there is an issuer: jwt and cryptography take 9 MB."""

from __future__ import annotations

from contextlib import AsyncExitStack

import aiohttp

from proxy.infrastructure.access.issuer_keys import IssuerKeys
from proxy.infrastructure.access.team_rows import TeamRows
from proxy.infrastructure.access.token_claims import ClaimRules
from proxy.infrastructure.access.tokens import IssuerTokens, TokenChecks
from proxy.infrastructure.persistence.arrival import Arrival
from proxy.settings import Settings


def issuer_tokens(
    settings: Settings, issuer: str, arrival: Arrival, http: aiohttp.ClientSession, stack: AsyncExitStack
) -> IssuerTokens:
    """The settings see to it that an issuer comes with an audience and roles."""
    keys = IssuerKeys(http, issuer, settings.oidc_jwks_url)
    stack.push_async_callback(keys.close)
    return IssuerTokens(
        keys,
        TeamRows(arrival.database),
        TokenChecks(issuer, settings.oidc_audience or "", settings.oidc_clock_skew_seconds),
        ClaimRules(
            issuer,
            settings.oidc_role_mapping(),
            settings.oidc_role_claim,
            settings.oidc_team_claim,
            settings.oidc_calls_models,
        ),
        settings.llmgateway_keys_stale_seconds,
    )
