"""The `llmgateway` command. What a command needs is imported when it runs: `--help` must not take three seconds."""

from __future__ import annotations

import io
import sys

import click

from proxy import __version__
from proxy.cli.audit import audit
from proxy.cli.check_config import check_config
from proxy.cli.config_schema import config_schema
from proxy.cli.explain import explain
from proxy.cli.health import health
from proxy.cli.import_litellm import import_litellm
from proxy.cli.keys import keys
from proxy.cli.logs import logs
from proxy.cli.migrate import migrate
from proxy.cli.models import models
from proxy.cli.payload import payload
from proxy.cli.prices import prices
from proxy.cli.reconcile import reconcile
from proxy.cli.route import route
from proxy.cli.rules import budgets, limits
from proxy.cli.serve import serve
from proxy.cli.tenants import organisations, teams
from proxy.cli.usage import usage


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llmgateway")
def main() -> None:
    """LLM Gateway: an OpenAI-compatible reverse proxy that books every request exactly once.

    Settings come from environment variables, providers and models from gateway.yaml if there is one;
    `llmgateway check-config` shows and checks both.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # names hold any letters, which not every locale has
        sys.stdout.reconfigure(errors="backslashreplace")


for command in (
    serve,
    migrate,
    check_config,
    config_schema,
    import_litellm,
    logs,
    models,
    prices,
    health,
    usage,
    route,
    explain,
    reconcile,
    payload,
    organisations,
    teams,
    keys,
    budgets,
    limits,
    audit,
):
    main.add_command(command)
