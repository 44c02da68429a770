"""llmgateway check-config"""

from __future__ import annotations

import os
from pathlib import Path

import click
from pydantic import SecretStr

from proxy.cli.failures import config_or_fail, settings_or_fail
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
    "TRACE_",
)


@click.command("check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--show", "shown", is_flag=True, help="Show the file's values, too, and where each comes from.")
def check_config(file: Path | None, shown: bool) -> None:
    """Check the settings and the configuration file; show what is in force, secrets masked.

    FILE is looked at instead of LLMGATEWAY_CONFIG, or gateway.yaml in the working directory. Exit code 1 when something
    is wrong; all that is wrong with the file is told at once.
    """
    settings = settings_or_fail()
    from proxy.bootstrap.config_file import configuration_file  # noqa: PLC0415

    path = file or configuration_file(settings)
    _show_settings(settings)
    _warn_of_unread_variables(path)
    if path is None:
        upstream = "the built-in demo upstream" if settings.uses_demo_upstream else settings.openrouter_base_url
        click.echo(f"\nUpstream: {upstream}")
    else:
        _check_file(path, settings, shown=shown)
    click.echo("The settings are valid.")


def _check_file(path: Path, settings: Settings, *, shown: bool) -> None:
    loaded = config_or_fail(path, settings)
    if shown:
        from proxy.config.showing import show  # noqa: PLC0415

        rows = list(show(loaded))
        width = max(len(key) for key, _, _ in rows)
        click.echo()
        for key, value, origin in rows:
            click.echo(f"{key:{width}} {value:40} {origin}")
    config = loaded.config
    deployments = sum(len(model.deployments) for model in config.models.values())
    click.echo(
        f"\n{path} is valid: {len(config.providers)} providers, {len(config.models)} models, {deployments} deployments."
    )


def _show_settings(settings: Settings) -> None:
    from proxy.bootstrap.storage import database_description  # noqa: PLC0415
    from proxy.domain.errors import InvalidValue  # noqa: PLC0415

    try:
        database = database_description(settings)
    except InvalidValue as problem:
        raise click.ClickException(f"DATABASE_URL: {problem}") from None
    in_force = {"database_url": database, "answer_timeout_seconds": settings.first_byte_of_answer_seconds}
    for name, field in Settings.model_fields.items():
        shown = _shown(in_force.get(name, getattr(settings, name)))
        origin = "environment" if name in settings.model_fields_set else "default"
        click.echo(f"{name.upper():40} {shown:45} {origin:12} {field.description}")


def _warn_of_unread_variables(file: Path | None) -> None:
    from proxy.bootstrap.unread_variables import unread_variables  # noqa: PLC0415

    for each in unread_variables(os.environ, file, _OUR_PREFIXES):
        click.secho(f"Warning: {each}", fg="yellow", err=True)


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return "-" if value is None else str(value)
