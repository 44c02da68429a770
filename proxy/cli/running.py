"""Asking a running gateway."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Iterable, Mapping
from typing import Any

import click

from proxy.cli.administering import KEY_VARIABLE, key_in
from proxy.cli.plain import plain
from proxy.settings import Settings

_TIMEOUT_SECONDS = 15.0
_NOT_LET_IN = (401, 403)
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}


key_option = click.option(
    "--key-env", metavar="NAME", default=KEY_VARIABLE, show_default=True, help="Variable with the key to ask with."
)


def ask(settings: Settings, url: str | None, path: str, key_env: str = KEY_VARIABLE) -> tuple[int, Any]:
    """Status and JSON body of a GET. Raises ClickException when nothing answers, or not as a gateway would."""
    return asyncio.run(_call("GET", _base(settings, url) + path, _key(settings, key_env)))


def send(
    settings: Settings,
    url: str | None,
    path: str,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    key_env: str = KEY_VARIABLE,
) -> tuple[int, Any]:
    """Status and JSON body of a POST of JSON. Raises as `ask` does."""
    return asyncio.run(_call("POST", _base(settings, url) + path, _key(settings, key_env), body, headers))


def members_of(answer: Any, names: Iterable[str], settings: Settings, url: str | None) -> Mapping[str, Any]:
    """The answer, if it has these members. Raises ClickException for that of some other server."""
    if not isinstance(answer, dict) or not answer.keys() >= set(names):
        raise click.ClickException(f"No LLM Gateway answers at {_base(settings, url)}, but something else. Try --url.")
    return answer


def error_in(answer: Any, status: int, key_env: str) -> str:
    """The message of an error in OpenAI's form, for people, the whole answer if it is in another; and what helps."""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = plain(str(error.get("message") if isinstance(error, dict) else answer))
    if status not in _NOT_LET_IN:
        return message
    return f"{message} Set {key_env} to a key that may ask for this, or name another variable (--key-env)."


def _base(settings: Settings, url: str | None) -> str:
    return (url or _own_url(settings)).rstrip("/").removesuffix("/v1")


def _own_url(settings: Settings) -> str:
    return f"http://{_reached(settings.llmgateway_host)}:{settings.llmgateway_port}"


def _reached(host: str) -> str:
    """The host of a URL for the one that is listened on: of all addresses the loopback one, IPv6 in brackets."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        host = _LOOPBACK[address.version]
    return host if address.version == 4 else f"[{host}]"  # noqa: PLR2004


def _key(settings: Settings, variable: str) -> str:
    """What the variable holds; settings are found whatever the case of their names."""
    if variable == KEY_VARIABLE and settings.llmgateway_master_key is not None:
        return settings.llmgateway_master_key.get_secret_value()
    return key_in(variable)


async def _call(
    method: str, url: str, key: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    import aiohttp  # noqa: PLC0415

    sent = {**(headers or {}), "Content-Type": "application/json"}
    if key:
        sent["Authorization"] = f"Bearer {key}"
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, headers=sent, data=body) as response,
        ):
            return response.status, await response.json()
    except (aiohttp.ClientError, OSError, json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise click.ClickException(
            f"No gateway answers at {url} ({type(problem).__name__}). Is `llmgateway serve` running? Else give --url."
        ) from None
    except ValueError:  # of what was to be sent, which may hold a secret
        raise click.ClickException("The key or a tag has characters in it that no HTTP header can carry.") from None
