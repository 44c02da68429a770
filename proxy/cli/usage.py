"""llmgateway usage"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

import click

from proxy.cli.failures import not_there, settings_or_fail, with_database
from proxy.cli.plain import csv_cell, plain
from proxy.domain.errors import InvalidRequest, NotServing, ObjectNotFound
from proxy.domain.usage_report import OWNERS, Dimension, UsageQuery, UsageReport, usage_query
from proxy.settings import Settings


@click.command()
@click.option("--by", required=True, help=f"What to group by: {', '.join(Dimension)}.")
@click.option("--since", help="From this ISO date or time on; UTC unless it has a zone.")
@click.option("--until", help="Up to this date or time, which is not included itself.")
@click.option("--key", help="Only of this key: its id, or its name.")
@click.option("--team", help="Only of this team: its id, or its name.")
@click.option("--organisation", help="Only of this organisation: its id, or its name.")
@click.option("--json", "as_json", is_flag=True, help="The same object as GET /v1/usage.")
@click.option(
    "--csv",
    "as_csv",
    is_flag=True,
    help="One line for each row, for spreadsheets; what looks like a formula gets a leading apostrophe.",
)
def usage(as_json: bool, as_csv: bool, **asked: str | None) -> None:
    """Show requests, tokens, cost and times by model, provider, day (UTC), status, key, team or organisation.

    Times are medians and 95th percentiles in ms: exact up to 20 ms, within 5 % above.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other.")
    try:
        query = usage_query({name: [value] for name, value in asked.items() if value is not None})
    except InvalidRequest as problem:
        raise click.BadParameter(str(problem), param_hint=f"--{problem.param}") from None
    report = with_database(_report(settings_or_fail(), query)).as_dict()
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif as_csv:
        click.echo(_as_csv(report), nl=False)
    else:
        _print_table(report)


async def _report(settings: Settings, query: UsageQuery) -> UsageReport:
    from proxy.bootstrap.storage import usage_reports  # noqa: PLC0415

    async with usage_reports(settings) as reports:
        try:
            return await reports.report(query)
        except ObjectNotFound as problem:
            raise not_there(problem) from None
        except NotServing as problem:
            raise click.ClickException(str(problem)) from None


def _as_csv(report: Mapping[str, Any]) -> str:
    """One line for each row, without the total; costs by source have a column for each source there is."""
    sources = list(report["total"]["cost_usd_by_source"])
    text = io.StringIO()
    rows = [_flat(row, sources) for row in report["data"]]
    headings = list(_flat({**dict.fromkeys(_labels(report), ""), **report["total"]}, sources))
    writer = csv.DictWriter(text, headings, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _flat(row: Mapping[str, Any], sources: list[str]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == "cost_usd_by_source":
            flat |= {f"cost_usd_{source}": value.get(source, "0") for source in sources}
        elif isinstance(value, Mapping):
            flat |= {f"{name}_{percentile}": time for percentile, time in value.items()}
        else:
            flat[name] = value
    return flat


def _labels(report: Mapping[str, Any]) -> list[str]:
    """The columns that say what a row is of."""
    by = report["by"]
    return [by, f"{by}_name"] if by in OWNERS else [by]


def _label(row: Mapping[str, Any], by: str) -> str:
    """For people: a name if there is one, else the id."""
    return row.get(f"{by}_name") or row[by] or "-"


_PIPED_WIDTH = 200


def _print_table(report: Mapping[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    by = report["by"]
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED_WIDTH)
    table = Table(box=None, pad_edge=False)
    for heading in (by, *_cells(report["total"])):
        side = "left" if heading == by else "right"
        table.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
    for row in [*report["data"], {by: "total", **report["total"]}]:
        table.add_row(
            Text(plain(_label(row, by))), *(Text(cell) for cell in _cells(row).values())
        )  # Text: a name is not markup
    console.print(table)


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    unknown = row["requests_of_unknown_cost"]
    times, first_byte = row["response_time_ms"], row["time_to_first_byte_ms"]
    return {
        "requests": str(row["requests"]),
        "errors": str(row["errors"]),
        "in": str(row["input_tokens"]),
        "out": str(row["output_tokens"]),
        "cost USD": row["cost_usd"] + (f" + {unknown} unknown" if unknown else ""),
        "ms p50": _or_dash(times["p50"]),
        "ms p95": _or_dash(times["p95"]),
        "first byte p50": _or_dash(first_byte["p50"]),
        "first byte p95": _or_dash(first_byte["p95"]),
    }


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
