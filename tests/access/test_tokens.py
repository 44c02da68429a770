"""JWTs of a real issuer: which are good, whom they stand for, and what becomes of them while somebody is away."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.domain.access.permissions import Permission, Role
from proxy.domain.access.principals import Principal, PrincipalKind
from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.budgets import Budget
from proxy.domain.errors import NotAllowed, NotAuthenticated, NotServing
from proxy.domain.rate_limits import RateLimit
from proxy.infrastructure.access.changes import Change
from proxy.infrastructure.access.issuer_keys import (
    MAX_AGE_SECONDS,
    QUIET_SECONDS,
    STALE_SECONDS,
    IssuerKeys,
    signing_keys,
)
from proxy.infrastructure.access.team_rows import TeamRows
from proxy.infrastructure.access.token_claims import ClaimRules, Membership
from proxy.infrastructure.access.tokens import KEPT_SECONDS, IssuerTokens, TokenChecks
from proxy.infrastructure.persistence.database import open_database
from tests.access.issuer import AUDIENCE, Issuer, jwk_of, rsa_key, running_issuer
from tests.access.tenancy import Tenancy, budget, limit, scope

ROLES = {"platform": Role.ADMIN, "lead": Role.TEAM_ADMIN, "head": Role.ORGANISATION_ADMIN, "dev": Role.MEMBER}
STALE_MEMBERSHIP_SECONDS = 100.0


@dataclass
class Memberships:
    """A MembershipSource that counts, and is away when told."""

    known: dict[str | None, Membership] = field(default_factory=dict)
    asked: int = 0
    is_away: bool = False

    async def find(self, key_id: UUID, team: str | None) -> Membership:
        del key_id
        self.asked += 1
        if self.is_away:
            raise ConnectionRefusedError
        return self.known.get(team, Membership())


@dataclass
class World:
    """A verifier, its issuer, and the time that passes for it."""

    issuer: Issuer
    http: aiohttp.ClientSession
    memberships: Memberships = field(default_factory=Memberships)
    seconds: float = 1000.0

    def __post_init__(self) -> None:
        self.keys = IssuerKeys(self.http, self.issuer.url, clock=lambda: self.seconds)
        self.rules = ClaimRules(self.issuer.url, ROLES, team_claim=None)
        self.tokens = self.verifier()

    def verifier(self, **rules: Any) -> IssuerTokens:
        return IssuerTokens(
            self.keys,
            self.memberships,
            TokenChecks(self.issuer.url, AUDIENCE, 60.0),
            replace(self.rules, **rules),
            STALE_MEMBERSHIP_SECONDS,
            clock=lambda: self.seconds,
        )

    async def verify(self, token: str) -> Principal:
        return await self.tokens.verify(token)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_issuer() as issuer, aiohttp.ClientSession() as http:
        yield World(issuer, http)


async def test_a_good_token_stands_for_its_subject(world: World) -> None:
    principal = await world.verify(world.issuer.token(email="ada@acme.example"))
    assert (principal.kind, principal.id, principal.name) == (PrincipalKind.TOKEN, "token:ada", "ada@acme.example")
    assert principal.reach == Subject(Scope.KEY, str(principal.key_id))
    assert principal.may(Permission.MODELS_CALL)
    assert not principal.may(Permission.USAGE_READ)
    again = await world.verify(world.issuer.token(jti="another"))
    assert again.key_id == principal.key_id
    assert (await world.verify(world.issuer.token(sub="bob"))).key_id != principal.key_id


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        *((name, rsa_key(1)) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("ES384", ec.generate_private_key(ec.SECP384R1())),
        ("ES512", ec.generate_private_key(ec.SECP521R1())),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_asymmetric_signatures_are_good(world: World, algorithm: str, key: Any) -> None:
    world.issuer.keys = {"one": key}
    assert (await world.verify(world.issuer.token(algorithm=algorithm))).id == "token:ada"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iss": "https://elsewhere.example"}, "another issuer"),
        ({"aud": "another-service"}, "another audience"),
        ({"aud": ["one", "two"]}, "another audience"),
        ({"exp": 1_000_000_000}, "expired"),
        ({"nbf": 9_000_000_000}, "not valid yet"),
        ({"iat": 9_000_000_000}, "not valid yet"),
        ({"exp": None}, ""),
        ({"iss": None}, ""),
        ({"aud": None}, ""),
        ({"sub": None}, ""),
        ({"sub": ""}, ""),
        ({"sub": "s" * 1000}, ""),
        ({"sub": "\ud800"}, ""),
        ({"exp": "soon"}, ""),
        ({"exp": 10**400}, ""),
    ],
    ids=lambda value: ascii(value)[:30],
)
async def test_a_token_that_says_the_wrong_thing_is_refused(world: World, claims: dict[str, Any], said: str) -> None:
    with pytest.raises(NotAuthenticated, match=said or "is not accepted"):
        await world.verify(world.issuer.token(**claims))


async def test_clocks_may_differ_a_little(world: World) -> None:
    now = int(time.time())
    await world.verify(world.issuer.token(exp=now - 30))
    await world.verify(world.issuer.token(nbf=now + 30))
    for token in (world.issuer.token(exp=now - 61), world.issuer.token(nbf=now + 90)):
        with pytest.raises(NotAuthenticated):
            await world.verify(token)


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    def encoded(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    return ".".join((encoded(json.dumps(header).encode()), encoded(json.dumps(claims).encode()), encoded(signature)))


def claims_of(issuer: Issuer) -> dict[str, Any]:
    now = int(time.time())
    return {"iss": issuer.url, "aud": AUDIENCE, "sub": "eve", "exp": now + 300, "role": "platform"}


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, 1, ["RS256"], {"x": 1}])
async def test_a_token_without_a_signature_is_refused(world: World, alg: object) -> None:
    with pytest.raises(NotAuthenticated):
        await world.verify(unsigned({"alg": alg, "kid": "one", "typ": "JWT"}, claims_of(world.issuer)))


@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
async def test_the_public_key_is_no_secret_to_sign_with(world: World, form: PublicFormat) -> None:
    secret = rsa_key(1).public_key().public_bytes(Encoding.PEM, form)
    whole = unsigned({"alg": "HS256", "kid": "one"}, claims_of(world.issuer))
    body = whole.rpartition(".")[0]
    signature = hmac.new(secret, body.encode(), hashlib.sha256).digest()
    forged = f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    with pytest.raises(NotAuthenticated):
        await world.verify(forged)


async def test_a_key_of_another_kind_or_for_another_algorithm_is_not_used(world: World) -> None:
    with pytest.raises(NotAuthenticated):
        await world.verify(world.issuer.token(algorithm="ES256", key=ec.generate_private_key(ec.SECP256R1())))
    world.issuer.jwks = {"keys": [jwk_of(rsa_key(1), "one", alg="RS512")]}
    world.seconds += MAX_AGE_SECONDS + 1
    with pytest.raises(NotAuthenticated):
        await world.verify(world.issuer.token(algorithm="RS256"))
    await world.verify(world.issuer.token(algorithm="RS512"))


async def test_a_signature_by_another_key_is_refused(world: World) -> None:
    with pytest.raises(NotAuthenticated):
        await world.verify(world.issuer.token(key=rsa_key(2)))


async def test_keys_that_the_token_itself_brings_are_not_used(world: World) -> None:
    claims = claims_of(world.issuer)
    for header in ({"jwk": jwk_of(rsa_key(2), "one")}, {"jku": f"{world.issuer.url}/keys"}, {"crit": ["exp"]}):
        with pytest.raises(NotAuthenticated):
            await world.verify(unsigned({"alg": "RS256", "kid": "one", **header}, claims, b"x" * 256))


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é.é.é", "e30.e30.e30", "x" * 20_000, "a.b.c.d.e"])
async def test_what_is_no_token_is_refused(world: World, text: str) -> None:
    with pytest.raises(NotAuthenticated):
        await world.verify(text)
    assert world.issuer.fetches == 0


async def test_rotated_keys_are_fetched_when_a_token_names_one(world: World) -> None:
    await world.verify(world.issuer.token())
    world.issuer.keys = {"two": rsa_key(2)}
    world.seconds += QUIET_SECONDS
    await world.verify(world.issuer.token("two"))
    assert world.issuer.fetches == 2
    with pytest.raises(NotAuthenticated):
        await world.verify(world.issuer.token("one", key=rsa_key(1), sub="later"))


@pytest.mark.parametrize("kid", ["one", None])
async def test_a_key_that_has_another_in_its_place_is_fetched_anew(world: World, kid: str | None) -> None:
    """Issuers with one key may name none, and some give a new key the name of the old one."""
    await world.verify(world.issuer.token(kid))
    old = world.issuer.token(kid, key=rsa_key(1), sub="later")
    world.issuer.keys = {"one": rsa_key(2)}
    world.seconds += QUIET_SECONDS
    await world.verify(world.issuer.token(kid))
    assert world.issuer.fetches == 2
    for _ in range(3):
        with pytest.raises(NotAuthenticated):
            await world.verify(old)
    assert world.issuer.fetches == 2


@pytest.mark.parametrize("members", [{}, {"alg": "RS256"}], ids=["of any algorithm", "of one algorithm"])
@pytest.mark.parametrize("kid", ["one", None])
async def test_a_key_that_has_one_of_another_kind_in_its_place_is_fetched_anew(
    world: World, kid: str | None, members: dict[str, str]
) -> None:
    world.issuer.jwks = {"keys": [jwk_of(rsa_key(1), "one", **members)]}
    await world.verify(world.issuer.token(kid))
    world.issuer.jwks, world.issuer.keys = None, {"one": ec.generate_private_key(ec.SECP256R1())}
    world.seconds += QUIET_SECONDS
    await world.verify(world.issuer.token(kid, algorithm="ES256"))
    for algorithm, key in (("RS256", rsa_key(1)), ("EdDSA", ed25519.Ed25519PrivateKey.generate())):
        with pytest.raises(NotAuthenticated):
            await world.verify(world.issuer.token(kid, algorithm=algorithm, key=key, sub="later"))
    assert world.issuer.fetches == 2


async def test_strangers_cannot_make_the_gateway_hammer_the_issuer(world: World) -> None:
    await world.verify(world.issuer.token())
    for number in range(50):
        for kid in (f"made up {number}", "one"):
            with pytest.raises(NotAuthenticated):
                await world.verify(world.issuer.token(kid, key=rsa_key(2), sub=str(number)))
    assert world.issuer.fetches == 1
    world.seconds += QUIET_SECONDS
    for number in range(50):
        with pytest.raises(NotAuthenticated):
            await world.verify(world.issuer.token(f"made up {number}", key=rsa_key(2)))
    assert world.issuer.fetches == 2


async def test_a_token_that_names_no_key_is_good_with_the_only_one(world: World) -> None:
    await world.verify(world.issuer.token(None))
    world.issuer.keys["two"] = rsa_key(2)
    world.seconds += MAX_AGE_SECONDS + 1
    with pytest.raises(NotAuthenticated):
        await world.verify(world.issuer.token(None))


async def test_an_issuer_that_is_away_is_503_and_known_keys_serve_on_for_a_while(world: World) -> None:
    world.issuer.status = 500
    with pytest.raises(NotServing):
        await world.verify(world.issuer.token())
    world.issuer.status = 200
    world.seconds += QUIET_SECONDS
    await world.verify(world.issuer.token())
    world.issuer.status = 500
    world.seconds += MAX_AGE_SECONDS + 1
    await world.verify(world.issuer.token(sub="still"))
    with pytest.raises(NotServing):  # it may be a new key that cannot be fetched
        await world.verify(world.issuer.token("new", key=rsa_key(2)))
    world.seconds += STALE_SECONDS
    with pytest.raises(NotServing):
        await world.verify(world.issuer.token())
    world.issuer.status = 200
    world.seconds += QUIET_SECONDS
    await world.verify(world.issuer.token())


async def test_an_issuer_that_hangs_holds_up_nobody_whose_key_is_known(world: World) -> None:
    await world.verify(world.issuer.token())
    world.issuer.status = 500
    world.seconds += MAX_AGE_SECONDS + 1
    await world.verify(world.issuer.token(sub="bob"))
    world.issuer.status, world.issuer.hangs = 200, True
    try:
        for number in range(3):
            world.seconds += QUIET_SECONDS
            async with asyncio.timeout(1):
                await world.verify(world.issuer.token(sub=f"later {number}"))
    finally:
        world.issuer.hangs = False
        await world.keys.close()


async def test_keys_are_fetched_anew_behind_those_who_need_not_wait(world: World) -> None:
    await world.verify(world.issuer.token())
    world.issuer.status = 500
    world.seconds += MAX_AGE_SECONDS + 1
    await world.verify(world.issuer.token(sub="bob"))
    world.issuer.status, world.issuer.keys = 200, {"two": rsa_key(2)}
    world.seconds += QUIET_SECONDS
    token = world.issuer.token("one", key=rsa_key(1), sub="carol")
    await world.verify(token)
    async with asyncio.timeout(5):
        while world.issuer.fetches < 2:
            await asyncio.sleep(0.01)
    await world.verify(world.issuer.token("two"))
    with pytest.raises(NotAuthenticated):
        await world.verify(world.issuer.token("one", key=rsa_key(1), sub="dave"))


async def test_an_answer_that_makes_no_sense_is_an_issuer_that_is_away_and_the_log_says_why(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = {"Location": f"{world.issuer.url}/keys"}
    troubles: list[tuple[dict[str, Any], str]] = [
        ({"status": 302, "headers": elsewhere}, "openid-configuration was answered with HTTP 302"),
        ({"jwks": {"keys": []}}, "no key that could be used"),
        ({"jwks": ["x"]}, "/keys is no JSON object"),
        ({"jwks": {"keys": "x" * 300_000}}, "/keys is larger than"),
        ({"discovery": {"issuer": f"{world.issuer.url}/"}}, f"calls itself '{world.issuer.url}/'; OIDC_ISSUER must"),
        ({"discovery": {"issuer": ["x" * 10_000]}}, "calls itself ['xxx"),
        ({"discovery": {"jwks_uri": None}}, "jwks_uri"),
        ({"discovery": {"jwks_uri": "http://127.0.0.1:1/keys"}}, "ClientConnectorError"),
    ]
    for trouble, reason in troubles:
        untroubled = dict(vars(world.issuer))
        vars(world.issuer).update(trouble)
        caplog.clear()
        with pytest.raises(NotServing):
            await world.verify(world.issuer.token())
        (told,) = (vars(record)["reason"] for record in caplog.records)
        assert reason in told
        assert len(told) < 400
        vars(world.issuer).update({name: untroubled[name] for name in trouble})
        world.seconds += QUIET_SECONDS
    await world.verify(world.issuer.token())


def test_only_public_keys_for_signatures_are_used() -> None:
    good = jwk_of(rsa_key(1), "good")
    document = {
        "keys": [
            {"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"},
            jwk_of(rsa_key(2), "encryption", use="enc"),
            jwk_of(rsa_key(2), "symmetric", alg="HS256"),
            jwk_of(rsa_key(3, 1024), "short"),
            {"kty": "RSA", "kid": "broken", "n": "x"},
            {"kty": "??", "kid": "unknown"},
            jwk_of(rsa_key(2), "odd", alg=["RS256"]),
            {**jwk_of(rsa_key(2), None), "kid": ["odd"]},
            "nonsense",
            jwk_of(rsa_key(2), None),
            good,
        ]
    }
    assert set(signing_keys(document)) == {"good"}


async def test_a_verified_token_is_kept_for_a_minute_and_never_beyond_its_end(world: World) -> None:
    token = world.issuer.token()
    for _ in range(3):
        await world.verify(token)
    assert world.memberships.asked == 1
    world.seconds += KEPT_SECONDS + 1
    await world.verify(token)
    assert world.memberships.asked == 2
    ending = IssuerTokens(
        world.keys,
        world.memberships,
        TokenChecks(world.issuer.url, AUDIENCE, 0.0),
        world.rules,
        STALE_MEMBERSHIP_SECONDS,
        now=lambda: datetime(2100, 1, 1, tzinfo=UTC),
        clock=lambda: world.seconds,
    )
    await ending.verify(token)
    await ending.verify(token)
    assert world.memberships.asked == 4  # by that clock it has ended: what is kept is not used


async def test_a_database_that_is_away_is_503_and_known_holders_serve_on_for_a_while(world: World) -> None:
    world.memberships.is_away = True
    with pytest.raises(NotServing):
        await world.verify(world.issuer.token())
    world.memberships.is_away = False
    token = world.issuer.token()
    await world.verify(token)
    world.memberships.is_away = True
    world.tokens.heed(None)  # the connection was lost
    await world.verify(token)
    world.tokens.heed([Change("teams", "x")])
    with pytest.raises(NotServing):
        await world.verify(token)
    world.memberships.is_away = False
    await world.verify(token)
    world.memberships.is_away = True
    world.seconds += STALE_MEMBERSHIP_SECONDS + KEPT_SECONDS
    with pytest.raises(NotServing):
        await world.verify(token)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"role": None}, "'role'"),
        ({"role": "intern"}, "'role'"),
        ({"role": "admin"}, "'role'"),  # our word for it is not the issuer's
        ({"role": ["Dev", 7, None, {"dev": 1}]}, "'role'"),
        ({"role": {"dev": True}}, "'role'"),
    ],
)
async def test_a_role_that_is_not_mapped_gives_nothing(world: World, claims: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotAllowed, match=reason):
        await world.verify(world.issuer.token(**claims))


async def test_the_first_mapped_role_counts_and_claims_may_be_nested(world: World) -> None:
    nested = world.verifier(role_claim="realm_access.roles")
    principal = await nested.verify(world.issuer.token(realm_access={"roles": ["dev", "platform"]}))
    assert principal.reach == GATEWAY
    assert principal.may(Permission.CONFIG_WRITE)
    assert not principal.may(Permission.MODELS_CALL)
    everyone = world.verifier(roles={"*": Role.MEMBER})
    assert (await everyone.verify(world.issuer.token(role=None))).reach.scope is Scope.KEY
    silent = world.verifier(calls_models=False)
    assert not (await silent.verify(world.issuer.token())).may(Permission.MODELS_CALL)


async def test_a_team_gives_its_models_budgets_and_limits(world: World, tenancy: Tenancy) -> None:
    organisation = await tenancy.organisation(models=scope("a/*", "b/*"))
    team = await tenancy.team(organisation.id, models=scope("a/*"))
    of_team, of_organisation = Subject(Scope.TEAM, str(team.id)), Subject(Scope.ORGANISATION, str(organisation.id))
    rules: list[Budget | RateLimit] = [
        budget(of_team),
        budget(of_organisation),
        limit(of_team, requests_per_minute=7),
    ]
    for rule in (*rules, budget(Subject(Scope.TEAM, "another"))):
        await tenancy.add(rule)
    async with open_database(tenancy.url) as database:
        tokens = IssuerTokens(
            world.keys,
            TeamRows(database),
            TokenChecks(world.issuer.url, AUDIENCE),
            replace(world.rules, team_claim="team"),
            STALE_MEMBERSHIP_SECONDS,
        )
        member = await tokens.verify(world.issuer.token(team=team.name))
        assert (member.team_id, member.organisation_id) == (team.id, organisation.id)
        assert [one.allowed for one in member.model_scopes] == [("a/*", "b/*"), ("a/*",)]
        assert {one.id for one in member.budgets} | {one.id for one in member.limits} == {rule.id for rule in rules}
        own = budget(Subject(Scope.KEY, str(member.key_id)))
        await tenancy.add(own)
        tokens.heed([Change("budgets", str(own.id))])
        assert own in (await tokens.verify(world.issuer.token(team=team.name))).budgets

        lead = await tokens.verify(world.issuer.token(role="lead", team=[team.name]))
        assert lead.reach == of_team
        head = await tokens.verify(world.issuer.token(role="head", team=team.name))
        assert head.reach == of_organisation
        assert not any(one.may(Permission.MODELS_CALL) for one in (lead, head))

        for claims, reason in (
            ({"team": "nowhere"}, "'nowhere' does not exist"),
            ({}, "must name one team; it names 0"),
            ({"team": [team.name, "b"]}, "it names 2"),
        ):
            with pytest.raises(NotAllowed, match=reason):
                await tokens.verify(world.issuer.token(**claims))
        for table, id_ in (("teams", team.id), ("organisations", organisation.id)):
            await tenancy.change(table, id_, disabled=True)
            tokens.heed([Change(table, str(id_))])
            with pytest.raises(NotAllowed, match="disabled"):
                await tokens.verify(world.issuer.token(team=team.name))
            await tenancy.change(table, id_, disabled=False)
