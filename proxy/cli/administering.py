"""Asking the admin API: that of a running gateway, or the same over the database itself."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click

from proxy.cli.failures import settings_or_fail, with_database
from proxy.cli.plain import plain
from proxy.config.environment import SecretFileError
from proxy.config.environment import variable as value_of
from proxy.config.fields import fits_a_header
from proxy.domain.storable import is_storable
from proxy.settings import Settings

if TYPE_CHECKING:
    import aiohttp

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])
_TIMEOUT_SECONDS = 30.0
_MOST_ON_A_PAGE = 200
_FIRST_ERROR, _NO_CONTENT = 400, 204
_PIPED_WIDTH = 200
KEY_VARIABLE = "LLMGATEWAY_MASTER_KEY"


class AdminClient:
    """One connection to an admin API. Every call raises ClickException with what the API says is wrong."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = f"{url}/admin"

    async def get(self, *path: str, **query: str | None) -> Any:
        return await self._call("GET", path, query=query)

    async def post(self, *path: str, body: Mapping[str, Any] | None = None) -> Any:
        return await self._call("POST", path, body or {})

    async def patch(self, *path: str, body: Mapping[str, Any]) -> Any:
        return await self._call("PATCH", path, body)

    async def delete(self, *path: str) -> None:
        await self._call("DELETE", path)

    async def all(self, path: str, most: int | None = None, **query: str | None) -> list[dict[str, Any]]:
        """All pages, or as many entries as are asked for."""
        found: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            limit = _MOST_ON_A_PAGE if most is None else min(_MOST_ON_A_PAGE, most - len(found))
            page = await self.get(path, limit=str(limit), after=after, **query)
            found += page["data"]
            after = page["next"]
            if after is None or (most is not None and len(found) >= most):
                return found

    async def _call(
        self,
        method: str,
        path: Sequence[str],
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | None] | None = None,
    ) -> Any:
        import aiohttp  # noqa: PLC0415
        from yarl import URL  # noqa: PLC0415

        if not is_storable(json.dumps([path, query, body], ensure_ascii=False)):
            raise click.ClickException("An argument has bytes in it that are no text in UTF-8.")
        parts = "/".join(quote(part, safe="") for part in path)
        url = URL(f"{self._url}/{parts}", encoded=True)
        sent = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            async with self._http.request(method, url.with_query(sent), json=body) as response:
                answer = None if response.status == _NO_CONTENT else await response.json(content_type=None)
                status = response.status
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise click.ClickException(
                f"No gateway answers at {self._url} ({type(problem).__name__}). Is it running, and --url right?"
            ) from None
        if status >= _FIRST_ERROR:
            raise click.ClickException(_told(answer))
        return answer


def _told(problem: Any) -> str:
    """What is wrong, with a line for each field."""
    if not isinstance(problem, dict) or "detail" not in problem:
        return f"The gateway's answer is not one of an admin API: {plain(str(problem)[:200])}"
    errors = [plain(f"  {each['field']}: {each['message']}") for each in problem.get("errors", [])]
    detail = plain(problem["detail"])
    is_said = len(errors) == 1 and detail in errors[0]
    return detail if not errors or is_said else "\n".join(["Not accepted:", *errors])


def administering(command: _F) -> _F:
    """The options that say which admin API is asked, and how the answer is shown."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="For machines."),
        click.option(
            "--key-env",
            metavar="NAME",
            default=KEY_VARIABLE,
            show_default=True,
            help="Variable with the key, for --url.",
        ),
        click.option(
            "--url", metavar="URL", help="A running gateway, like http://127.0.0.1:4000. [default: the database]"
        ),
    ):
        command = option(command)
    return command


def ask(url: str | None, key_env: str, work: Callable[[AdminClient], Awaitable[_T]], *, may_create: bool = False) -> _T:
    """The result of work on a gateway, or on the database of the settings, which work that adds something may make."""
    settings = settings_or_fail()
    return with_database(_at(url, key_env, work) if url else _locally(settings, work, may_create))


async def _at(url: str, key_env: str, work: Callable[[AdminClient], Awaitable[_T]]) -> _T:
    key = key_in(key_env)
    if not key:
        raise click.ClickException(
            f"Set {key_env} to a key that may administer {url}, or name another variable (--key-env)."
        )
    return await _asking(_address(url), key, work)


def key_in(variable: str) -> str:
    """The key that a variable or its file holds, empty if there is none.

    Raises ClickException for what can be no key.
    """
    try:
        key = (value_of(variable, os.environ) or "").strip()
    except SecretFileError as problem:
        raise click.ClickException(f"{problem}.") from None
    if not fits_a_header(key):
        raise click.ClickException(f"{variable} has characters that no key has, perhaps several lines.")
    return key


def _address(url: str) -> str:
    """Where the gateway is, below which the admin API is."""
    from yarl import URL  # noqa: PLC0415

    try:
        parsed = URL(url)
        is_address = parsed.scheme in ("http", "https") and parsed.host is not None
        names_somebody = parsed.raw_user is not None or parsed.raw_password is not None
    except ValueError:
        is_address = names_somebody = False
    if names_somebody:  # not repeated: it is a secret
        raise click.ClickException("--url takes no user and no password: the key is taken from --key-env.")
    if not is_address:
        raise click.ClickException(f"{url!r} is not the address of a gateway, like http://127.0.0.1:4000.")
    return url.rstrip("/").removesuffix("/v1").removesuffix("/admin")


async def _locally(settings: Settings, work: Callable[[AdminClient], Awaitable[_T]], may_create: bool) -> _T:
    from proxy.bootstrap.administration import local_admin_api  # noqa: PLC0415
    from proxy.config.problems import ConfigErrors  # noqa: PLC0415

    try:
        async with local_admin_api(settings, may_create=may_create) as api:
            return await _asking(api.url, api.token, work)
    except ConfigErrors as problem:
        raise click.ClickException(f"The configuration is not valid.\n{problem}") from None


async def _asking(url: str, key: str, work: Callable[[AdminClient], Awaitable[_T]]) -> _T:
    import aiohttp  # noqa: PLC0415

    headers = {"Authorization": f"Bearer {key}"}
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
        return await work(AdminClient(http, url))


def show(found: Mapping[str, Any] | Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """A table of these columns for many, a line for each member of one; or JSON."""
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif isinstance(found, Mapping):
        width = max(len(name) for name in found)
        for name, value in found.items():
            click.echo(f"{plain(name):<{width}}  {cell_of(value)}")
    else:
        show_table(found, columns)


def show_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if not rows:
        click.echo("None.", err=True)
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED_WIDTH)
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell_of(row.get(name))) for name in columns))  # Text: a name is not markup
    console.print(table)


def cell_of(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return plain(", ".join(value)) or "none"
    return plain(value if isinstance(value, str) else json.dumps(value))
