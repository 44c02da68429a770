"""llmgateway teams, and llmgateway organisations"""

from __future__ import annotations

from typing import Any

import click

from proxy.cli.administering import administering, ask, show

_TEAM_COLUMNS = ("name", "organisation_id", "models", "disabled", "id")
_ORGANISATION_COLUMNS = ("name", "models", "disabled", "id")
_model = click.option(
    "--model", "models", multiple=True, help="Only these: names, patterns with one `*`, `group:<name>`."
)


def _body(**given: Any) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value not in (None, ())
    }


@click.group()
def teams() -> None:
    """Make, show and change teams: who shares keys, budgets and limits."""


@teams.command("create")
@click.argument("name")
@click.option("--organisation", help="Its organisation, by name or id.")
@_model
@administering
def create_team(
    name: str, organisation: str | None, models: tuple[str, ...], url: str | None, key_env: str, as_json: bool
) -> None:
    """Make a team called NAME."""
    body = _body(name=name, organisation=organisation, models=models)
    show(ask(url, key_env, lambda api: api.post("teams", body=body)), _TEAM_COLUMNS, as_json=as_json)


@teams.command("list")
@click.option("--organisation", help="Only of this organisation, by name or id.")
@administering
def list_teams(organisation: str | None, url: str | None, key_env: str, as_json: bool) -> None:
    """List teams, newest first."""
    show(ask(url, key_env, lambda api: api.all("teams", organisation=organisation)), _TEAM_COLUMNS, as_json=as_json)


@teams.command("show")
@click.argument("team")
@administering
def show_team(team: str, url: str | None, key_env: str, as_json: bool) -> None:
    """Show TEAM, by name or id."""
    show(ask(url, key_env, lambda api: api.get("teams", team)), _TEAM_COLUMNS, as_json=as_json)


@teams.command("update")
@click.argument("team")
@click.option("--name", help="Another name.")
@click.option("--disable/--enable", "disabled", default=None, help="Whether its keys are good for nothing.")
@_model
@administering
def update_team(team: str, url: str | None, key_env: str, as_json: bool, **given: Any) -> None:
    """Change TEAM, by name or id; what is not given stays."""
    show(ask(url, key_env, lambda api: api.patch("teams", team, body=_body(**given))), _TEAM_COLUMNS, as_json=as_json)


@click.group()
def organisations() -> None:
    """Make and show organisations: what teams belong to."""


@organisations.command("create")
@click.argument("name")
@_model
@administering
def create_organisation(name: str, models: tuple[str, ...], url: str | None, key_env: str, as_json: bool) -> None:
    """Make an organisation called NAME."""
    made = ask(url, key_env, lambda api: api.post("organisations", body=_body(name=name, models=models)))
    show(made, _ORGANISATION_COLUMNS, as_json=as_json)


@organisations.command("list")
@administering
def list_organisations(url: str | None, key_env: str, as_json: bool) -> None:
    """List organisations, newest first."""
    show(ask(url, key_env, lambda api: api.all("organisations")), _ORGANISATION_COLUMNS, as_json=as_json)


@organisations.command("show")
@click.argument("organisation")
@administering
def show_organisation(organisation: str, url: str | None, key_env: str, as_json: bool) -> None:
    """Show ORGANISATION, by name or id."""
    found = ask(url, key_env, lambda api: api.get("organisations", organisation))
    show(found, _ORGANISATION_COLUMNS, as_json=as_json)
