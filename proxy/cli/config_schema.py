"""llmgateway config-schema"""

from __future__ import annotations

import json

import click


@click.command("config-schema")
def config_schema() -> None:
    """Print the JSON Schema of gateway.yaml, for editors to complete and check by.

    With the YAML extension of VS Code: save it beside gateway.yaml, and begin that file with
    `# yaml-language-server: $schema=gateway.schema.json`.
    """
    from proxy.config.editors import json_schema  # noqa: PLC0415

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False).encode())  # whatever the locale
