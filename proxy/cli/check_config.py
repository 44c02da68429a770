"""llmgateway check-config"""

from __future__ import annotations

import os
from difflib import get_close_matches

import click
from pydantic import SecretStr

from proxy.cli.failures import settings_or_fail
from proxy.settings import Settings

_OUR_PREFIXES = (
    "LLMGATEWAY_",
    "OPENROUTER_",
    "CIRCUIT_BREAKER_",
    "RETRY_",
    "LEDGER_",
    "PRICES_",
    "RECONCILE_",
    "PAYLOAD_",
)


@click.command("check-config")
def check_config() -> None:
    """Check the settings and show what is in force, secrets masked. Exit code 1 when something is wrong."""
    settings = settings_or_fail()
    from proxy.bootstrap.storage import database_description  # noqa: PLC0415
    from proxy.domain.errors import InvalidValue  # noqa: PLC0415

    try:
        database = database_description(settings)
    except InvalidValue as problem:
        raise click.ClickException(f"DATABASE_URL: {problem}") from None
    for name, field in Settings.model_fields.items():
        shown = database if name == "database_url" else _shown(getattr(settings, name))
        origin = "environment" if name in settings.model_fields_set else "default"
        click.echo(f"{name.upper():40} {shown:45} {origin:12} {field.description}")
    strangers = _misspelt(set(os.environ))
    for stranger, meant in strangers:
        hint = f"; did you mean {meant}?" if meant else ""
        click.secho(f"Warning: no setting is called {stranger}{hint}", fg="yellow", err=True)
    click.echo(
        f"\nUpstream: {'the built-in demo upstream' if settings.uses_demo_upstream else settings.openrouter_base_url}"
    )
    click.echo("The settings are valid.")


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "********"
    return "-" if value is None else str(value)


def _misspelt(environment: set[str]) -> list[tuple[str, str | None]]:
    """Variables that look like ours and are not, with the one that was probably meant."""
    known = {name.upper() for name in Settings.model_fields}
    strangers = sorted(name for name in environment - known if name.upper().startswith(_OUR_PREFIXES))
    return [(name, next(iter(get_close_matches(name.upper(), known, n=1)), None)) for name in strangers]
