"""llmgateway route"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from proxy.cli.failures import settings_or_fail
from proxy.cli.plain import plain
from proxy.cli.running import error_in, key_option, members_of, send

_OK = 200
_PROMPT = "Hello"
_MEMBERS = ("requested", "model", "strategy", "max_attempts", "request_timeout_seconds", "candidates", "dropped")


@click.command()
@click.option("--model", help="The model to ask for; before the one of the file.")
@click.option("--prompt", help=f"The prompt, where no file is given; default: {_PROMPT}.")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A request's JSON body.")
@click.option("--tag", "tags", multiple=True, help="Only deployments with this tag; may be given several times.")
@click.option("--url", help="The gateway's URL; default: the host and port of the settings.")
@key_option
@click.option("--json", "as_json", is_flag=True, help="The answer of POST /v1/route as it is.")
def route(
    model: str | None,
    prompt: str | None,
    file: Path | None,
    tags: Sequence[str],
    url: str | None,
    key_env: str,
    as_json: bool,
) -> None:
    """Show whom a running gateway would ask for a request now, and why. Asks no provider.

    Exit code 1 when the request would be refused.
    """
    settings = settings_or_fail()
    body = _body(model, prompt, file)
    headers = {"x-gateway-tags": ",".join(tags)} if tags else None
    status, answer = send(settings, url, "/v1/route", body, headers, key_env)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif status == _OK:
        for line in in_words(members_of(answer, _MEMBERS, settings, url)):
            click.echo(plain(line))
    if status != _OK:
        if not as_json:
            raise click.ClickException(error_in(answer, status, key_env))
        sys.exit(1)


def _body(model: str | None, prompt: str | None, file: Path | None) -> bytes:
    if file is not None and prompt is not None:
        raise click.UsageError("Give --prompt or --file, not both: the file has messages of its own.")
    if file is None:
        if model is None:
            raise click.UsageError("Give --model, or a request with --file.")
        return json.dumps(
            {"model": model, "messages": [{"role": "user", "content": _PROMPT if prompt is None else prompt}]}
        ).encode()
    if model is None:
        return file.read_bytes()
    try:
        return json.dumps({**json.loads(file.read_bytes()), "model": model}).encode()
    except (ValueError, TypeError):
        raise click.ClickException(f"{file} holds no JSON object.") from None


def in_words(answer: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the readable form."""
    limits = f"at most {answer['max_attempts']} calls within {answer['request_timeout_seconds']:g} s"
    yield f"{answer['requested']} -> {answer['model']}, strategy {answer['strategy']}; {limits}"
    for place, each in enumerate(answer["candidates"], 1):
        fallback = "fallback: " if each["is_fallback"] else ""
        yield f"  {place}. {fallback}{each['deployment']} ({each['model']}): {each['reason']}{_state(answer, each)}"
    for each in answer["dropped"]:
        yield f"  -  {each['deployment'] or each['public_model']}: {each['reason']}"


def _state(answer: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    state = answer["deployments"][candidate["deployment"]]
    parts = [f"{state['in_flight']} in flight"]
    if state["success_rate"] is not None:
        parts.append(f"{state['success_rate']:.0%} answered")
    return f" [{', '.join(parts)}]"
