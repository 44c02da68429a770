"""llmgateway migrate"""

from __future__ import annotations

import click

from proxy.cli.failures import settings_or_fail, with_database


@click.command()
def migrate() -> None:
    """Bring the database's schema up to date, and seed the prices. Safe to run at any time, also by several at once."""
    settings = settings_or_fail()
    from proxy.bootstrap.storage import database_description, migrate_database  # noqa: PLC0415
    from proxy.domain.errors import InvalidValue  # noqa: PLC0415

    try:
        click.echo(f"Database: {database_description(settings)}")
    except InvalidValue as problem:
        raise click.ClickException(str(problem)) from None
    applied = with_database(migrate_database(settings))
    for migration in applied:
        click.echo(f"applied {migration}")
    if not applied:
        click.echo("Nothing to do: the schema is up to date.")
