"""OpenRouterChatCompletion over mocked HTTP: no server, OpenRouter's own address."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import aioresponses.core
import pytest
from aioresponses import aioresponses as mocked_http
from yarl import URL

from proxy.domain.errors import CircuitOpen, PermanentUpstreamError, TransientUpstreamError
from proxy.infrastructure.breaker import Breaker
from proxy.infrastructure.chat_completion.openrouter import OpenRouterChatCompletion
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.resilience import Resilience, RetryPolicy
from tests.harness import COMPLETION, FakeTime
from tests.infrastructure.conftest import ask

ADDRESS = "https://openrouter.ai/api/v1/chat/completions"


class _Response(aiohttp.ClientResponse):
    """aioresponses knows nothing of an argument that aiohttp 3.14 has added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"stream_writer": SimpleNamespace(output_size=0), **kwargs})


@pytest.fixture
def http() -> Iterator[mocked_http]:
    """Mocked answers for every client session."""
    names = vars(aioresponses.core)
    original = names["ClientResponse"]
    names["ClientResponse"] = _Response
    try:
        with mocked_http() as mocked:
            yield mocked
    finally:
        names["ClientResponse"] = original


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def service(fake_time: FakeTime) -> AsyncIterator[OpenRouterChatCompletion]:
    settings = WireSettings(provider="OpenRouter", base_url="https://openrouter.ai/api/v1/", api_key="secret")
    breaker = Breaker("OpenRouter", clock=lambda: fake_time.now)
    async with aiohttp.ClientSession() as session:
        resilience = Resilience(breaker, RetryPolicy(), fake_time.timing())
        yield OpenRouterChatCompletion(
            settings, session, resilience, service_id="openrouter", ai_model_id="z-ai/glm-4.6"
        )


def requests(http: mocked_http) -> list[Any]:
    """The calls that were made, all to the one address."""
    assert set(http.requests) <= {("POST", URL(ADDRESS))}
    return http.requests.get(("POST", URL(ADDRESS)), [])


async def test_success_with_metadata(service: OpenRouterChatCompletion, http: mocked_http) -> None:
    http.post(ADDRESS, payload=COMPLETION)
    content = await ask(service, model="z-ai/glm-4.6", temperature=0.7)
    assert content.content == "Hi there!"
    assert (content.metadata["input_tokens"], content.metadata["output_tokens"]) == (10, 5)
    (request,) = requests(http)
    assert request.kwargs["headers"]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("status", [429, 500])
async def test_a_transient_status_is_retried(
    service: OpenRouterChatCompletion, http: mocked_http, fake_time: FakeTime, status: int
) -> None:
    http.post(ADDRESS, status=status, payload={"error": {"message": "busy", "code": status}})
    http.post(ADDRESS, payload=COMPLETION)
    assert (await ask(service)).content == "Hi there!"
    assert len(requests(http)) == 2
    assert fake_time.waits == [1.0]


async def test_a_lost_connection_is_retried(
    service: OpenRouterChatCompletion, http: mocked_http, fake_time: FakeTime
) -> None:
    http.post(ADDRESS, exception=aiohttp.ServerDisconnectedError())
    http.post(ADDRESS, timeout=True)
    http.post(ADDRESS, payload=COMPLETION)
    assert (await ask(service)).content == "Hi there!"
    assert fake_time.waits == [1.0, 2.0]


async def test_five_failed_requests_open_the_breaker(service: OpenRouterChatCompletion, http: mocked_http) -> None:
    http.post(ADDRESS, status=500, payload={"error": {"message": "down"}}, repeat=True)
    for _ in range(5):
        with pytest.raises(TransientUpstreamError):
            await ask(service)
    with pytest.raises(CircuitOpen):
        await ask(service)
    assert len(requests(http)) == 20


@pytest.mark.parametrize("status", [400, 401])
async def test_a_permanent_status_is_not_retried(
    service: OpenRouterChatCompletion, http: mocked_http, fake_time: FakeTime, status: int
) -> None:
    http.post(ADDRESS, status=status, payload={"error": {"message": "no", "code": status}}, repeat=True)
    with pytest.raises(PermanentUpstreamError):
        await ask(service)
    assert len(requests(http)) == 1
    assert fake_time.waits == []
