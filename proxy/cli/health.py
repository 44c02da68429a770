"""llmgateway health"""

from __future__ import annotations

import json
import sys

import click

from proxy.cli.failures import settings_or_fail
from proxy.cli.running import ask


@click.command()
@click.option("--url", help="The gateway's URL; default: the host and port of the settings.")
@click.option("--json", "as_json", is_flag=True, help="The report as it is.")
def health(url: str | None, as_json: bool) -> None:
    """Show the state of a running gateway. Exit code 0 when it serves, 1 when it does not."""
    _, report = ask(settings_or_fail(), url, "/health")
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(f"status    {report['status']}   (version {report['version']}, up {report['uptime_seconds']} s)")
        click.echo(f"database  {report['database']['status']} ({report['database']['kind']})")
        click.echo(
            f"ledger    {report['ledger']['booked_rows']} rows booked, {report['ledger']['waiting_rows']} waiting"
        )
        for name, provider in report["providers"].items():
            seen = {True: "answers", False: "does not answer", None: "not checked yet"}[provider["healthy"]]
            click.echo(f"provider  {name}: {seen}, circuit breaker {provider['circuit_breaker']}")
        for problem in report["problems"]:
            click.secho(f"problem   {problem}", fg="yellow")
    if report["status"] == "unavailable":
        sys.exit(1)
