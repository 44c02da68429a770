"""llmgateway keys"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from proxy.cli.administering import AdminClient, administering, ask, show
from proxy.cli.naming import with_owners
from proxy.cli.plain import plain

_COLUMNS = ("name", "hint", "role", "team", "models", "priority", "expires_at", "disabled", "id")
_ROLES = ("member", "team_admin", "organisation_admin", "auditor", "admin")
_PRIORITIES = ("low", "normal", "high")
_CLEARED: dict[str, Any] = {"owner": None, "models": None, "endpoints": None, "expires_at": None, "tags": []}


def _fields(command: Any) -> Any:
    """What create and update have in common."""
    for option in (
        click.option(
            "--priority", type=click.Choice(_PRIORITIES), help="Who waits or is refused first under pressure."
        ),
        click.option("--expires", "expires_at", type=click.DateTime(), help="When it ends, UTC."),
        click.option("--tag", "tags", multiple=True, help="Any words; may be given several times."),
        click.option(
            "--endpoint",
            "endpoints",
            multiple=True,
            help="Only these: chat.completions, models, route, usage, requests, me.",
        ),
        click.option(
            "--model", "models", multiple=True, help="Only these: names, patterns with one `*`, `group:<name>`."
        ),
        click.option("--owner", help="Whose it is, for people."),
    ):
        command = option(command)
    return command


def _body(given: dict[str, Any]) -> dict[str, Any]:
    """What was given on the command line, as the API takes it."""
    body = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value not in (None, ())
    }
    expires_at = body.get("expires_at")
    if isinstance(expires_at, datetime):
        body["expires_at"] = expires_at.replace(tzinfo=UTC).isoformat()
    return body


@click.group()
def keys() -> None:
    """Make, show and end virtual keys: what applications show for themselves. Names are taken wherever ids are."""


@keys.command()
@click.argument("name")
@click.option("--team", help="Its team, by name or id.")
@click.option("--organisation", help="Its organisation, for a key without a team.")
@click.option("--role", type=click.Choice(_ROLES), help="What it is for. [default: member]")
@click.option("--calls-models", is_flag=True, default=None, help="An administrator's key may call models, too.")
@click.option("--budget", "monthly_budget_usd", metavar="USD", help="With a hard budget for each month.")
@click.option("--rpm", "requests_per_minute", type=click.IntRange(1), help="With a limit on requests per minute.")
@click.option("--tpm", "tokens_per_minute", type=click.IntRange(1), help="With a limit on tokens per minute.")
@_fields
@administering
def create(name: str, url: str | None, key_env: str, as_json: bool, **given: Any) -> None:
    """Make a key called NAME. It is shown once, and only its hash is kept."""
    made = ask(url, key_env, lambda api: api.post("keys", body={"name": name, **_body(given)}), may_create=True)
    _show_secret(made, as_json=as_json)


@keys.command("import")
@click.argument("name")
@click.option(
    "--hash",
    "hash_",
    required=True,
    help="SHA-256 of the key in hexadecimal, as LiteLLM keeps it; the key must be sk- and 16 to 200 letters, digits, - "
    "or _, for no other is looked up.",
)
@click.option("--team", help="Its team, by name or id.")
@click.option("--budget", "monthly_budget_usd", metavar="USD", help="With a hard budget for each month.")
@click.option("--rpm", "requests_per_minute", type=click.IntRange(1), help="With a limit on requests per minute.")
@_fields
@administering
def import_key(name: str, hash_: str, url: str | None, key_env: str, as_json: bool, **given: Any) -> None:
    """Take over a key that exists elsewhere: whoever has it goes on using it."""
    body = {"name": name, "hash": hash_.strip().lower(), **_body(given)}
    show(ask(url, key_env, lambda api: api.post("keys", body=body), may_create=True), _COLUMNS, as_json=as_json)


@keys.command("list")
@click.option("--team", help="Only of this team, by name or id.")
@click.option("--organisation", help="Only of this organisation, by name or id.")
@click.option("--owner", help="Only of this owner.")
@click.option("--name", help="Only those whose name has this in it.")
@click.option("--disabled/--enabled", default=None, help="Only those that are, or are not, revoked.")
@administering
def list_keys(url: str | None, key_env: str, as_json: bool, disabled: bool | None, **filters: str | None) -> None:
    """List keys, newest first."""
    state = None if disabled is None else str(disabled).lower()

    async def work(api: AdminClient) -> Any:
        found = await api.all("keys", None, disabled=state, **filters)
        return found if as_json else await with_owners(api, found)

    show(ask(url, key_env, work), _COLUMNS, as_json=as_json)


@keys.command("show")
@click.argument("key")
@administering
def show_key(key: str, url: str | None, key_env: str, as_json: bool) -> None:
    """Show KEY, by name or id."""
    show(ask(url, key_env, lambda api: api.get("keys", key)), _COLUMNS, as_json=as_json)


@keys.command()
@click.argument("key")
@click.option("--name", help="Another name.")
@click.option("--disable/--enable", "disabled", default=None, help="Whether it is good for nothing.")
@click.option("--clear", type=click.Choice(tuple(_CLEARED)), multiple=True, help="Take this away, as if never given.")
@_fields
@administering
def update(key: str, clear: tuple[str, ...], url: str | None, key_env: str, as_json: bool, **given: Any) -> None:
    """Change KEY, by name or id; what is not given stays."""
    body = _body(given) | {name: _CLEARED[name] for name in clear}
    show(ask(url, key_env, lambda api: api.patch("keys", key, body=body)), _COLUMNS, as_json=as_json)


@keys.command()
@click.argument("key")
@click.option(
    "--grace",
    "grace_seconds",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Seconds that the old one stays good.",
)
@administering
def rotate(key: str, grace_seconds: float, url: str | None, key_env: str, as_json: bool) -> None:
    """Give KEY, by name or id, a new secret. It is shown once.

    While an old secret has its grace another rotation with one is refused; without a grace all old ones end at once.
    """
    made = ask(url, key_env, lambda api: api.post("keys", key, "rotate", body={"grace_seconds": grace_seconds}))
    _show_secret(made, as_json=as_json)


@keys.command()
@click.argument("key")
@administering
def revoke(key: str, url: str | None, key_env: str, as_json: bool) -> None:
    """End KEY, by name or id. Within a second no process takes it any more."""
    show(ask(url, key_env, lambda api: api.post("keys", key, "revoke")), _COLUMNS, as_json=as_json)


def _show_secret(made: dict[str, Any], *, as_json: bool) -> None:
    """On a terminal with a word of warning; the secret alone on stdout, so that a shell can take it."""
    if as_json:
        show(made, _COLUMNS, as_json=True)
        return
    click.echo(made["key"])
    click.echo(f"Key '{plain(made['name'])}' ({made['id']}). It is not shown again.", err=True)
