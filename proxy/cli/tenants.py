"""llmgateway teams, and llmgateway organisations"""

from __future__ import annotations

from typing import Any

import click

from proxy.cli.administering import AdminClient, administering, ask, show
from proxy.cli.naming import with_owners

_TEAM_COLUMNS = ("name", "organisation", "models", "disabled", "id")
_ORGANISATION_COLUMNS = ("name", "models", "disabled", "id")
_model = click.option(
    "--model", "models", multiple=True, help="Only these: names, patterns with one `*`, `group:<name>`."
)
_any_model = click.option("--any-model", is_flag=True, help="All models again.")


def _body(**given: Any) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value not in (None, ())
    }


def _changes(*, any_model: bool, **given: Any) -> dict[str, Any]:
    body = _body(**given)
    if any_model and "models" in body:
        raise click.UsageError("Give --model or --any-model.")
    return body | ({"models": None} if any_model else {})


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
    show(ask(url, key_env, lambda api: api.post("teams", body=body), may_create=True), _TEAM_COLUMNS, as_json=as_json)


@teams.command("list")
@click.option("--organisation", help="Only of this organisation, by name or id.")
@administering
def list_teams(organisation: str | None, url: str | None, key_env: str, as_json: bool) -> None:
    """List teams, newest first."""

    async def work(api: AdminClient) -> Any:
        found = await api.all("teams", organisation=organisation)
        return found if as_json else await with_owners(api, found)

    show(ask(url, key_env, work), _TEAM_COLUMNS, as_json=as_json)


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
@_any_model
@administering
def update_team(team: str, url: str | None, key_env: str, as_json: bool, **given: Any) -> None:
    """Change TEAM, by name or id; what is not given stays."""
    body = _changes(**given)
    show(ask(url, key_env, lambda api: api.patch("teams", team, body=body)), _TEAM_COLUMNS, as_json=as_json)


@click.group()
def organisations() -> None:
    """Make, show and change organisations: what teams belong to."""


@organisations.command("create")
@click.argument("name")
@_model
@administering
def create_organisation(name: str, models: tuple[str, ...], url: str | None, key_env: str, as_json: bool) -> None:
    """Make an organisation called NAME."""
    made = ask(
        url, key_env, lambda api: api.post("organisations", body=_body(name=name, models=models)), may_create=True
    )
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


@organisations.command("update")
@click.argument("organisation")
@click.option("--name", help="Another name.")
@click.option("--disable/--enable", "disabled", default=None, help="Whether its keys are good for nothing.")
@_model
@_any_model
@administering
def update_organisation(organisation: str, url: str | None, key_env: str, as_json: bool, **given: Any) -> None:
    """Change ORGANISATION, by name or id; what is not given stays."""
    body = _changes(**given)
    changed = ask(url, key_env, lambda api: api.patch("organisations", organisation, body=body))
    show(changed, _ORGANISATION_COLUMNS, as_json=as_json)
