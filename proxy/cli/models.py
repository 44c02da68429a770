"""llmgateway models"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any

import click

from proxy.cli.failures import settings_or_fail
from proxy.cli.plain import plain
from proxy.cli.running import ask, error_in, key_option, members_of

_OK = 200


@click.command()
@click.option("--url", help="The gateway's URL; default: the host and port of the settings.")
@key_option
@click.option("--json", "as_json", is_flag=True, help="The list as the gateway gives it.")
def models(url: str | None, key_env: str, as_json: bool) -> None:
    """List the models that a running gateway serves, with context length and prices (USD per 1M tokens)."""
    settings = settings_or_fail()
    status, answer = ask(settings, url, "/v1/models", key_env)
    if status != _OK:
        raise click.ClickException(f"The gateway answered HTTP {status}: {error_in(answer, status, key_env)}")
    listed = members_of(answer, ("data",), settings, url)
    if as_json:
        click.echo(json.dumps(listed, indent=2))
        return
    if not listed["data"]:
        click.echo("None.", err=True)
        return
    names = [plain(model["id"]) for model in listed["data"]]
    width = max(map(len, names))
    click.echo(f"{'model':{width}}  {'context':>9}  {'input':>10}  {'output':>10}")
    for name, model in zip(names, listed["data"], strict=True):
        pricing = model.get("pricing") or {}
        prices = [_per_1m(pricing.get(side)) for side in ("prompt", "completion")]
        click.echo(f"{name:{width}}  {model.get('context_length') or '-':>9}  {prices[0]:>10}  {prices[1]:>10}")


def _per_1m(per_token: Any) -> str:
    try:
        return f"{(Decimal(str(per_token)) * 1_000_000).normalize():f}"
    except InvalidOperation:
        return "-"
