"""llmgateway audit"""

from __future__ import annotations

import click

from proxy.cli.administering import administering, ask, show
from proxy.cli.naming import with_objects

_COLUMNS = ("timestamp", "actor", "action", "object_kind", "object", "changes")


@click.command()
@click.option("-n", "--limit", "most", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option("--actor", help="Only by those whose name or id has this in it.")
@click.option("--action", help="Only these: create, update, rotate, revoke, delete, …")
@click.option("--kind", help="Only of these: keys, teams, budgets, …")
@click.option("--object", "object", help="Only of the object with this id.")
@click.option("--since", metavar="TIME", help="Only from then on, ISO 8601, UTC if not said.")
@administering
def audit(most: int, url: str | None, key_env: str, as_json: bool, **filters: str | None) -> None:
    """Show who changed what, newest first; with --json what it was before, and after."""
    found = ask(url, key_env, lambda api: api.all("audit", most, **filters))
    show(found if as_json else with_objects(found), _COLUMNS, as_json=as_json)
