"""llmgateway health"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from proxy.cli.failures import settings_or_fail
from proxy.cli.plain import plain
from proxy.cli.running import ask, members_of

_MEMBERS = ("status", "version", "uptime_seconds", "database", "ledger", "providers", "deployments", "problems")


@click.command()
@click.option("--url", help="The gateway's URL; default: the host and port of the settings.")
@click.option("--json", "as_json", is_flag=True, help="The report as it is.")
def health(url: str | None, as_json: bool) -> None:
    """Show the state of a running gateway. Exit code 0 when it serves, 1 when it does not."""
    settings = settings_or_fail()
    _, answer = ask(settings, url, "/health")
    report = members_of(answer, _MEMBERS, settings, url)
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
            click.echo(plain(f"provider  {name}: {seen}"))
        for name, deployment in report["deployments"].items():
            click.echo(plain(f"deployment {name}: {_described(deployment)}"))
        for problem in report["problems"]:
            click.secho(plain(f"problem   {problem}"), fg="yellow")
    if report["status"] == "unavailable":
        sys.exit(1)


def _described(deployment: Mapping[str, Any]) -> str:
    """What someone who looks for trouble wants to know of it."""
    breaker, rate = deployment["circuit_breaker"], deployment["success_rate"]
    parts = ["drained by an operator"] if deployment["drained"] else []
    parts.append(f"circuit breaker {breaker}")
    if deployment["retry_after_seconds"]:
        parts[-1] += f" for {deployment['retry_after_seconds']:g} s"
    parts.append(
        f"{deployment['in_flight']} in flight" + (f", {deployment['queued']} waiting" * bool(deployment["queued"]))
    )
    if rate is not None:
        parts.append(f"{rate:.0%} of the last calls answered")
    for what, seconds in deployment["time_to_first_byte_seconds"].items():
        if seconds is not None:
            parts.append(f"{what.replace('_', ' ')} after {seconds:g} s")
    for model, seconds in deployment["cooling_down_seconds"].items():
        parts.append(f"cooling down for {model}, {seconds:g} s left")
    if deployment["last_error"]:
        parts.append(f"last error {deployment['last_error']} {deployment['last_error_seconds_ago']:.0f} s ago")
    return ", ".join(parts)
