"""An issuer of tokens: a real server with real keys."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "llmgateway"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Made once for each number: it takes a while."""
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def jwk_of(key: PrivateKey, kid: str | None, **members: Any) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        text = RSAAlgorithm.to_jwk(key.public_key())
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        text = ECAlgorithm.to_jwk(key.public_key())
    else:
        text = OKPAlgorithm.to_jwk(key.public_key())
    return {**json.loads(text), **({} if kid is None else {"kid": kid}), "use": "sig", **members}


@dataclass
class Issuer:
    """Serves its discovery document and its keys. In trouble it has another `status` than 200, or `hangs`."""

    url: str = ""
    keys: dict[str, PrivateKey] = field(default_factory=lambda: {"one": rsa_key(1)})
    jwks: Any = None
    discovery: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    fetches: int = 0
    hangs: bool = False

    def token(self, kid: str | None = "one", algorithm: str = "RS256", key: Any = None, **claims: Any) -> str:
        """Good for a member of no team unless claims say otherwise; a claim of None is left out."""
        now = int(time.time())
        standard = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300, "role": "dev"}
        said = {name: value for name, value in {**standard, **claims}.items() if value is not None}
        header = {} if kid is None else {"kid": kid}
        return jwt.encode(said, key or self.keys[kid or "one"], algorithm=algorithm, headers=header)

    async def _discovery(self, _request: web.Request) -> web.Response:
        document = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.discovery}
        return web.json_response(document, status=self.status, headers=self.headers)

    async def _keys(self, _request: web.Request) -> web.Response:
        self.fetches += 1
        while self.hangs:
            await asyncio.sleep(0.01)
        document = self.jwks or {"keys": [jwk_of(key, kid) for kid, key in self.keys.items()]}
        return web.json_response(document, status=self.status, headers=self.headers)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/keys", self._keys)
        return app


@asynccontextmanager
async def running_issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    server = TestServer(issuer.app())
    await server.start_server(access_log=None)
    issuer.url = str(server.make_url("")).rstrip("/")
    try:
        yield issuer
    finally:
        await server.close()
