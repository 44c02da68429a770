"""llmgateway logs"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import click

from proxy.cli.failures import not_there, settings_or_fail, with_database
from proxy.cli.plain import plain
from proxy.domain.access.scopes import Scope, Subject
from proxy.domain.errors import ObjectNotFound
from proxy.domain.explanation import row_as_dict
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus
from proxy.domain.trace import exact_usd
from proxy.settings import Settings

_MOST_ROWS = 1_000_000


@click.command()
@click.option("-n", "--limit", type=click.IntRange(1, _MOST_ROWS), default=20, show_default=True, help="How many rows.")
@click.option("--key", help="Only of this key: its id, or its name.")
@click.option("--team", help="Only of this team: its id, or its name.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: rows and totals.")
def logs(limit: int, key: str | None, team: str | None, as_json: bool) -> None:
    """Show the last requests, newest first, with their tokens and cost."""
    of = [Subject(scope, named) for scope, named in ((Scope.KEY, key), (Scope.TEAM, team)) if named is not None]
    try:
        rows, key_names = with_database(_recent(settings_or_fail(), limit, of))
    except ObjectNotFound as problem:
        raise not_there(problem) from None
    if as_json:
        shown = [{**row_as_dict(row), "key_name": _key_name(row, key_names)} for row in rows]
        click.echo(json.dumps({"rows": shown, "totals": totals(rows)}, indent=2))
    else:
        _print_table(rows, key_names)


_KeyNames = Mapping[UUID, str]


def _key_name(row: RequestLog, names: _KeyNames) -> str | None:
    return None if row.key_id is None else names.get(row.key_id)


async def _recent(settings: Settings, limit: int, of: Sequence[Subject]) -> tuple[Sequence[RequestLog], _KeyNames]:
    from proxy.bootstrap.storage import request_logs  # noqa: PLC0415

    async with request_logs(settings) as repository:
        rows = await repository.get_recent(limit, of)
        return rows, await repository.key_names(rows)


def totals(rows: Sequence[RequestLog]) -> dict[str, Any]:
    """Sums over the rows; a cost that is not known is counted apart, not as zero.

    As in usage reports, a call that lost against another one is no request, but its tokens and its cost count.
    """
    costs = [cost.usd for row in rows if (cost := row.cost()) is not None]
    free = sum(row.cost_source is CostSource.NONE for row in rows)
    return {
        "requests": sum(row.status is not RequestStatus.HEDGED for row in rows),
        "input_tokens": sum(row.input_tokens.value for row in rows),
        "output_tokens": sum(row.output_tokens.value for row in rows),
        "cost_usd": f"{sum(costs, Decimal(0)).normalize():f}",
        "requests_without_known_cost": len(rows) - len(costs) - free,
    }


_CELLS: Mapping[str, Callable[[RequestLog], str]] = {
    "time (UTC)": lambda row: f"{row.timestamp:%m-%d %H:%M:%S}",
    "model": lambda row: row.model.value,
    "outcome": lambda row: row.status.value,
    "http": lambda row: str(row.http_status or "-"),
    "tries": lambda row: str(row.attempts),
    "in": lambda row: str(row.input_tokens.value),
    "out": lambda row: str(row.output_tokens.value),
    "cost USD": lambda row: "-" if row.cost_source is CostSource.NONE else exact_usd(row.cost()) or "unknown",
    "ms": lambda row: str(row.response_time_ms),
    "request id": lambda row: row.request_id,
}
_NUMBERS = ("http", "tries", "in", "out", "cost USD", "ms")
_WRAPPED = ("model", "key")
_ONLY_WIDE = ("tries", "request id")
_WIDE, _PIPED_WIDTH = 130, 200


def _print_table(rows: Sequence[RequestLog], key_names: _KeyNames) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED_WIDTH)
    table = Table(box=None, pad_edge=False)
    cells = dict(_CELLS)
    if any(row.key_id for row in rows):
        cells["key"] = lambda row: _key_name(row, key_names) or str(row.key_id or "-")
    if any(row.service_tier for row in rows):
        cells["tier"] = lambda row: row.service_tier or "-"
    headings = [heading for heading in cells if heading not in _ONLY_WIDE or console.width >= _WIDE]
    for heading in headings:
        side: Literal["left", "right"] = "right" if heading in _NUMBERS else "left"
        table.add_column(heading, justify=side, no_wrap=heading not in _WRAPPED, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cells[heading](row))) for heading in headings))  # Text: a model's name is not markup
    console.print(table)
    total = totals(rows)
    unknown = total["requests_without_known_cost"]
    console.print(
        f"{total['requests']} requests, {total['input_tokens']} tokens in, {total['output_tokens']} out, "
        f"{total['cost_usd']} USD" + (f" ({unknown} of unknown cost)" if unknown else "")
    )
