"""llmgateway budgets, and llmgateway limits"""

from __future__ import annotations

from typing import Any

import click

from proxy.cli.administering import AdminClient, administering, ask, show, show_table
from proxy.cli.naming import with_subjects

_BUDGET_COLUMNS = ("name", "scope", "subject", "amount_usd", "period", "hard", "warn_percent", "id")
_WHOM = "Say whom it is for: one of --gateway, --organisation, --team, --key, --end-user, --model."
_DIMENSIONS = {
    "requests_per_minute": ("--rpm", "Requests per minute."),
    "tokens_per_minute": ("--tpm", "Tokens per minute, input and output."),
    "input_tokens_per_minute": ("--input-tpm", "Input tokens per minute."),
    "output_tokens_per_minute": ("--output-tpm", "Output tokens per minute."),
    "concurrent_requests": ("--concurrent", "Requests at once."),
}
_STANDING_COLUMNS = ("subject", "spent_usd", "reserved_usd", "leased_usd", "remaining_usd", "warning", "leased_by")
_LIMIT_COLUMNS = ("scope", "subject", *_DIMENSIONS, "id")


def _subject(command: Any) -> Any:
    """Whom it is for: exactly one of these."""
    for option in (
        click.option("--gateway", "gateway", is_flag=True, help="For the whole gateway."),
        click.option("--model", help="For this model; `*`: for each by itself."),
        click.option("--end-user", help="For this end user; `*`: for each by itself."),
        click.option("--key", help="For this key, by name or id."),
        click.option("--team", help="For this team, by name or id."),
        click.option("--organisation", help="For this organisation, by name or id."),
    ):
        command = option(command)
    return command


def _chosen(given: dict[str, Any]) -> dict[str, str]:
    """Scope and subject, taken out of what was given. Raises UsageError unless one is named."""
    chosen = _chosen_or_all(given)
    if not chosen:
        raise click.UsageError(_WHOM)
    return chosen


def _chosen_or_all(given: dict[str, Any]) -> dict[str, str]:
    """The same, but nothing if nobody is named."""
    named = {scope: given.pop(scope) for scope in ("organisation", "team", "key", "end_user", "model")}
    chosen = [(scope, name) for scope, name in named.items() if name is not None]
    if given.pop("gateway"):
        chosen.append(("gateway", ""))
    if len(chosen) > 1:
        raise click.UsageError(_WHOM)
    return {"scope": chosen[0][0], "subject": chosen[0][1]} if chosen else {}


def _given(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _list(kind: str, given: dict[str, Any], url: str | None, key_env: str, *, as_json: bool) -> Any:
    whose = _chosen_or_all(given)

    async def work(api: AdminClient) -> Any:
        found = await api.all(kind, None, **whose)
        return found if as_json else await with_subjects(api, found)

    return ask(url, key_env, work)


@click.group()
def budgets() -> None:
    """Make, show and change budgets: how much may be spent, by whom, in which time."""


@budgets.command("create")
@click.argument("name")
@click.argument("amount_usd", metavar="USD")
@_subject
@click.option(
    "--period", default="month", show_default=True, help="hour, day, week, month, total, or rolling:<seconds>."
)
@click.option("--hard/--soft", default=True, show_default=True, help="Refuse what does not fit, or warn only.")
@click.option("--warn", "warn_percent", type=click.IntRange(1, 100), help="Warn from this share on. [default: 80]")
@administering
def create_budget(name: str, amount_usd: str, url: str | None, key_env: str, as_json: bool, **given: Any) -> None:
    """Make a budget called NAME of USD for somebody."""
    body = {"name": name, "amount_usd": amount_usd, **_chosen(given), **_given(given)}
    show(
        ask(url, key_env, lambda api: api.post("budgets", body=body), may_create=True), _BUDGET_COLUMNS, as_json=as_json
    )


@budgets.command("list")
@_subject
@administering
def list_budgets(url: str | None, key_env: str, as_json: bool, **given: Any) -> None:
    """List budgets, newest first; only somebody's if one is named."""
    show(_list("budgets", given, url, key_env, as_json=as_json), _BUDGET_COLUMNS, as_json=as_json)


@budgets.command("show")
@click.argument("budget")
@administering
def show_budget(budget: str, url: str | None, key_env: str, as_json: bool) -> None:
    """Show BUDGET, by name or id: what is spent, reserved and leased, and by whom."""
    if as_json:
        show(ask(url, key_env, lambda api: api.get("budgets", budget)), _BUDGET_COLUMNS, as_json=True)
        return

    async def work(api: AdminClient) -> Any:
        found = await api.get("budgets", budget)
        standing = [{"scope": found["scope"], **each} for each in found.pop("subjects")]
        return await with_subjects(api, [found, *standing])

    found, *standing = ask(url, key_env, work)
    show(found, _BUDGET_COLUMNS, as_json=False)
    click.echo()
    show_table([{**each, "leased_by": _holders(each)} for each in standing], _STANDING_COLUMNS)


def _holders(standing: dict[str, Any]) -> list[str]:
    """The processes that have taken money to set aside from."""
    return [f"{lease['holder']}: {lease['leased_usd']}" for lease in standing["leases"]]


@budgets.command("set")
@click.argument("budget")
@click.argument("amount_usd", metavar="[USD]", required=False)
@click.option("--name", help="Another name.")
@click.option("--hard/--soft", default=None, help="Refuse what does not fit, or warn only.")
@click.option("--warn", "warn_percent", type=click.IntRange(1, 100), help="Warn from this share on.")
@administering
def set_budget(budget: str, url: str | None, key_env: str, as_json: bool, **given: Any) -> None:
    """Change BUDGET, by name or id, to USD; what is spent stays spent."""
    changed = ask(url, key_env, lambda api: api.patch("budgets", budget, body=_given(given)))
    show(changed, _BUDGET_COLUMNS, as_json=as_json)


@budgets.command("delete")
@click.argument("budget")
@administering
def delete_budget(budget: str, url: str | None, key_env: str, as_json: bool) -> None:
    """Take BUDGET away, by name or id."""
    ask(url, key_env, lambda api: api.delete("budgets", budget))
    if as_json:
        click.echo("null")


@click.group()
def limits() -> None:
    """Make, show and change rate limits."""


def _dimensions(command: Any) -> Any:
    for name, (option, text) in reversed(_DIMENSIONS.items()):
        command = click.option(option, name, type=click.IntRange(1), help=text)(command)
    return command


@limits.command("set")
@_subject
@_dimensions
@click.option(
    "--clear",
    type=click.Choice(tuple(option.removeprefix("--") for option, _text in _DIMENSIONS.values())),
    multiple=True,
    help="Limit this no more.",
)
@administering
def set_limits(clear: tuple[str, ...], url: str | None, key_env: str, as_json: bool, **given: Any) -> None:
    """Limit somebody; a limit that is there is changed, and what is not given stays.

    One of which nothing is left is taken away.
    """
    cleared = {name: None for name, (option, _text) in _DIMENSIONS.items() if option.removeprefix("--") in clear}
    subject, dimensions = _chosen(given), _given(given) | cleared
    if not dimensions:
        raise click.UsageError(f"Limit something: {', '.join(option for option, _text in _DIMENSIONS.values())}.")

    async def work(api: AdminClient) -> Any:
        there = await api.all("limits", scope=subject["scope"], subject=subject["subject"])
        if len(there) > 1:  # from before a second one was refused; the lowest counts
            ids = ", ".join(each["id"] for each in there)
            raise click.ClickException(f"There are several limits for this: delete all but one of {ids}.")
        if there and not any((dimensions if name in dimensions else there[0])[name] for name in _DIMENSIONS):
            await api.delete("limits", there[0]["id"])
            return None
        if there:
            return await api.patch("limits", there[0]["id"], body=dimensions)
        return await api.post("limits", body={**subject, **dimensions})

    limit = ask(url, key_env, work, may_create=True)
    if limit is None:
        click.echo("null" if as_json else "Nothing is left of the limit: it was taken away.")
    else:
        show(limit, _LIMIT_COLUMNS, as_json=as_json)


@limits.command("list")
@_subject
@administering
def list_limits(url: str | None, key_env: str, as_json: bool, **given: Any) -> None:
    """List limits, newest first; only somebody's if one is named."""
    show(_list("limits", given, url, key_env, as_json=as_json), _LIMIT_COLUMNS, as_json=as_json)


@limits.command("delete")
@click.argument("limit")
@administering
def delete_limit(limit: str, url: str | None, key_env: str, as_json: bool) -> None:
    """Take LIMIT away, by id."""
    ask(url, key_env, lambda api: api.delete("limits", limit))
    if as_json:
        click.echo("null")
