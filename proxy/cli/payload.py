"""llmgateway payload"""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Sequence
from typing import Any

import click

from proxy.application.payloads import StoredBody, StoredPayload
from proxy.cli.failures import settings_or_fail, with_database
from proxy.settings import Settings

# A model's answer must not move the cursor of whoever reads it.
_CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
}


@click.command()
@click.argument("request_id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, the bodies as text (else base64).")
def payload(request_id: str, as_json: bool) -> None:
    """Show the stored bodies of a request, by its request id or the id of its row.

    Bodies are stored only if LLMGATEWAY_STORE_PAYLOADS says so.
    """
    settings = settings_or_fail()
    found = with_database(_find(settings, request_id))
    if not found:
        raise click.ClickException(
            f"No payload is stored for {request_id} (LLMGATEWAY_STORE_PAYLOADS={settings.llmgateway_store_payloads})."
        )
    newest, *others = found
    if others:
        ids = ", ".join(str(other.id) for other in others)
        click.echo(f"Other requests had the same request id; ask for them by the id of their row: {ids}", err=True)
    if as_json:
        click.echo(json.dumps(as_dict(newest), indent=2))
    else:
        _print(newest)


async def _find(settings: Settings, request_id: str) -> Sequence[StoredPayload]:
    from proxy.bootstrap.storage import payload_archive  # noqa: PLC0415

    async with payload_archive(settings) as archive:
        return await archive.find(request_id)


def as_dict(stored: StoredPayload) -> dict[str, Any]:
    """The payload for machines."""
    return {
        "id": str(stored.id),
        "request_id": stored.request_id,
        "timestamp": stored.timestamp.isoformat(),
        "content_type": stored.content_type,
        "request": stored.request and _body(stored.request),
        "response": stored.response and _body(stored.response),
    }


def _body(stored: StoredBody) -> dict[str, Any]:
    facts: dict[str, Any] = {"full_bytes": stored.full_bytes, "truncated": stored.is_truncated}
    try:
        return facts | {"text": _text(stored, "strict")}
    except UnicodeDecodeError:
        return facts | {"base64": base64.b64encode(stored.body).decode()}


def _text(stored: StoredBody, errors: str) -> str:
    """Where a body was cut in the middle of a character, without that character."""
    return codecs.getincrementaldecoder("utf-8")(errors).decode(stored.body, final=not stored.is_truncated)


def _print(stored: StoredPayload) -> None:
    click.echo(f"row {stored.id}, request id {stored.request_id}, {stored.timestamp:%Y-%m-%d %H:%M:%S} UTC")
    _print_body("request", stored.request, "")
    _print_body("response", stored.response, f", {stored.content_type}" if stored.content_type else "")


def _print_body(which: str, stored: StoredBody | None, content_type: str) -> None:
    if stored is None:
        click.echo(f"\n{which}: none")
        return
    kept = f"the first {len(stored.body)} of " if stored.is_truncated else ""
    click.echo(f"\n{which} ({kept}{stored.full_bytes} bytes{content_type}):")
    click.echo(_text(stored, "replace").translate(_CONTROLS))
