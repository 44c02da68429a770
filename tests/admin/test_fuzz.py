"""Whatever is sent to the admin API: an answer in the standard form, never a defect, and never a wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from tests.admin.company import MASTER, Company
from tests.admin.test_lives import BODIES, PATCHES
from tests.harness import TestGateway

_WAIT_SECONDS = 20.0
_UUID = "0f1e2d3c-4b5a-4697-8899-aabbccddeeff"
_MOMENTS = ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"]
_ODD = ["", "\x00", "a\x00b", "\ud800", "*", "%", "'; DROP TABLE teams; --", "ü" * 300, "../..", "9" * 1900, "\r\nx: y"]
_WORDS = [*_ODD, *_MOMENTS, "null", "1e999", "NaN", "-1", "rolling:10", _UUID, _UUID.upper()]
_TEXTS = st.sampled_from(_WORDS)
_ODD_NUMBERS = [0, -1, 1, 2**31, 2**53, 2**63, 10**400, 1.5, -0.0, float("nan"), float("inf"), 1e308]
_NUMBERS = st.sampled_from(_ODD_NUMBERS)
_SCALARS = _TEXTS | _NUMBERS | st.none() | st.booleans() | st.text(max_size=20)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS | st.text(max_size=8), inner, max_size=3),
)
_OTHER_FIELDS = (
    *("subject", "team", "organisation", "role", "calls_models", "hash", "expires_at", "monthly_budget_usd"),
    *("grace_seconds", "model", "valid_from", "input_cost_per_1m_tokens", "nonsense"),
)
_FIELDS = sorted({name for bodies in (BODIES, PATCHES) for body in bodies.values() for name in body} | {*_OTHER_FIELDS})
_QUERIES = ["limit", "after", "name", "team", "key", "organisation", "role", "disabled", "scope", "subject", "since"]
_QUERIES += ["until", "by", "actor", "action", "kind", "object", "end_user", "status", "nonsense"]
_PRICE = {"model": "m", "input_cost_per_1m_tokens": "1", "output_cost_per_1m_tokens": "1"}
_GOOD: Mapping[str, Mapping[str, Any]] = {**BODIES, "prices": _PRICE}
_KINDS = st.sampled_from([*BODIES, "prices", "deployments", "usage", "requests", "audit", "config/reload", "none"])
_PLACES = st.sampled_from(["", f"/{_UUID}", "/x/rotate", "/x/revoke", "/x/drain", "/"]) | _TEXTS.map(
    lambda text: f"/{quote(text, safe='', errors='surrogatepass')}"
)
# Too long to be drawn, and told of, themselves.
_LONG = {
    b"deep": b"[" * 100_000,
    b"deep metadata": b'{"metadata":' * 300 + b"1" + b"}" * 300,
    b"many digits": b'{"name":"x","scope":"gateway","requests_per_minute":' + b"9" * 5000 + b"}",
    b"2 MB": b'{"name":"' + b"x" * 2_000_000 + b'"}',
}
_RAW = (
    st.sampled_from([b"", b"\xff\xfe", b"null", b"[]", b'{"a":1,"a":2}', b'{"name":"\\ud800"}', *_LONG]) | st.binary()
)


@st.composite
def _bodies(draw: st.DrawFn, kind: str) -> bytes:
    """One that would be taken but for some of its members, or anything."""
    if draw(st.booleans()):
        return draw(_RAW)
    changes = draw(st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=3))
    return json.dumps({**_GOOD.get(kind, {}), **changes}).encode()


@st.composite
def _requests(draw: st.DrawFn) -> tuple[str, URL, bytes, str, str]:
    kind, place = draw(_KINDS), draw(_PLACES)
    pairs = draw(st.lists(st.tuples(st.sampled_from(_QUERIES), _TEXTS), max_size=3))
    query = "&".join(f"{name}={quote(value, safe='', errors='surrogatepass')}" for name, value in pairs)
    method = draw(st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"]))
    content_type = draw(st.sampled_from(["application/json"] * 6 + ["text/plain", "application/json; charset=x", "x"]))
    who = draw(st.sampled_from(["master", "lead", "head", "auditor"]))
    body = b"" if method == "GET" else draw(_bodies(kind))
    return method, URL(f"admin/{kind}{place}?{query}", encoded=True), body, content_type, who


# The gateway, on another thread than what draws, may use `random` in between: that is no strategy's doing.
@pytest.mark.filterwarnings("ignore:Do not use the .random. module:hypothesis.errors.HypothesisDeprecationWarning")
async def test_nothing_that_is_sent_is_a_defect(gateway: TestGateway, firm: Company) -> None:
    loop = asyncio.get_running_loop()

    async def answer_to(method: str, url: URL, body: bytes, content_type: str, who: str) -> None:
        secret = MASTER if who == "master" else firm.secrets[who]
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": content_type}
        target = URL(f"{gateway.url}{url.raw_path.lstrip('/')}?{url.raw_query_string}", encoded=True)
        async with asyncio.timeout(_WAIT_SECONDS):
            try:
                async with gateway.http.request(
                    method, target, data=BytesIO(_LONG.get(body, body)), headers=headers
                ) as response:
                    text = await response.text()
            except aiohttp.ClientConnectionError:
                assert body == b"2 MB"  # it may hang up on what is too long
                return
        if response.status == 503 and "/config/reload" in str(url):
            return
        assert response.status < 500, text
        if response.status >= 400:
            assert response.content_type == "application/problem+json"
            assert json.loads(text)["status"] == response.status
        elif text:
            json.loads(text, parse_constant=_refuse)

    @settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(_requests())
    def fuzz(sent: tuple[str, URL, bytes, str, str]) -> None:
        asyncio.run_coroutine_threadsafe(answer_to(*sent), loop).result()

    await asyncio.to_thread(fuzz)


async def test_no_member_of_a_body_is_a_defect_whatever_it_is(gateway: TestGateway) -> None:
    """Each one by itself, with the others as they should be."""
    odd: list[Any] = [*_WORDS, *_ODD_NUMBERS, None, True, [], {}]
    more: dict[str, dict[str, Any]] = {
        "keys": {"expires_at": None, "hash": None, "monthly_budget_usd": "1"},
        "prices": {"valid_from": None},
    }
    headers = {"Authorization": f"Bearer {MASTER}", "Content-Type": "application/json"}
    for kind, good in _GOOD.items():
        for field in {**good, **more.get(kind, {})}:
            for value in (*odd, *([each] for each in odd), *({"a": each} for each in odd)):
                data = json.dumps({**good, field: value})
                async with gateway.http.post(f"{gateway.url}admin/{kind}", data=data, headers=headers) as response:
                    text = await response.text()
                assert response.status in (201, 400, 404, 409), (kind, field, repr(value)[:99], text)
                json.loads(text, parse_constant=_refuse)
    for kind in _GOOD:
        async with gateway.http.get(f"{gateway.url}admin/{kind}", headers=headers) as response:
            assert response.status == 200
            json.loads(await response.text(), parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")
