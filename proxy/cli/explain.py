"""llmgateway explain"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import click

from proxy.cli.failures import settings_or_fail, with_database
from proxy.cli.plain import plain
from proxy.domain.errors import NotServing
from proxy.domain.explanation import ExplainedRequest
from proxy.domain.request_log import CostSource, RequestLog, UsageSource
from proxy.domain.trace import RequestTrace, TracedAttempt, exact_usd
from proxy.settings import Settings


@click.command()
@click.argument("request_id")
@click.option("--json", "as_json", is_flag=True, help="The same object as GET /v1/requests/{id}.")
def explain(request_id: str, as_json: bool) -> None:
    """Show what became of a request and why, by its request id or the id of its row.

    LLMGATEWAY_TRACES says whose traces are kept.
    """
    settings = settings_or_fail()
    found = with_database(_find(settings, request_id))
    if found is None:
        raise click.ClickException(f"No request {request_id} is booked.")
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
        return
    for line in in_words(found, settings.llmgateway_traces):
        click.echo(plain(line))


async def _find(settings: Settings, request_id: str) -> ExplainedRequest | None:
    from proxy.bootstrap.storage import request_archive  # noqa: PLC0415

    async with request_archive(settings) as archive:
        try:
            return await archive.find(request_id)
        except NotServing as problem:
            raise click.ClickException(str(problem)) from None


def in_words(found: ExplainedRequest, mode: str) -> Iterator[str]:
    """The lines of the readable form."""
    yield from _row(found.row)
    if found.trace is None:
        yield f"trace     none is kept (LLMGATEWAY_TRACES={mode})"
    else:
        yield from _plan(found.trace)
        yield from _attempts(found.trace.attempts)
    if found.others:
        yield ""
        yield "other rows of the same request id:"
        for other in found.others:
            yield f"  {other.id}  {other.timestamp:%Y-%m-%d %H:%M:%S}  {other.status}"


def _row(row: RequestLog) -> Iterator[str]:
    yield f"request   {row.request_id}"
    yield f"row       {row.id}, {row.timestamp:%Y-%m-%d %H:%M:%S} UTC"
    fallback = ", a fallback" if row.was_fallback else ""
    yield f"model     {row.requested_model or '-'} -> {row.model} at {row.provider_name}{fallback}"
    http = f", HTTP {row.http_status}" if row.http_status else ""
    yield f"outcome   {row.status}{http}{f' ({row.error_type})' if row.error_type else ''}"
    first_byte = f", first byte after {row.time_to_first_byte_ms} ms" if row.time_to_first_byte_ms is not None else ""
    yield f"time      {row.response_time_ms} ms{first_byte}, {_count(row.attempts, 'upstream call')}"
    counted = "" if row.usage_source is UsageSource.NONE else f" ({row.usage_source})"
    yield f"tokens    {row.input_tokens.value} in, {row.output_tokens.value} out{counted}"
    tier = f", service tier {row.service_tier}" if row.service_tier else ""
    yield f"cost      {_cost(row)}{tier}"


def _cost(row: RequestLog) -> str:
    if row.cost_source is CostSource.NONE:
        return "none"
    cost = row.cost()
    return "unknown" if cost is None else f"{exact_usd(cost)} USD ({row.cost_source})"


def _plan(trace: RequestTrace) -> Iterator[str]:
    yield ""
    yield f"plan{f' ({trace.strategy})' if trace.strategy else ''}:"
    for place, candidate in enumerate(trace.candidates, 1):
        fallback = "fallback: " if candidate.is_fallback else ""
        yield f"  {place}. {candidate.deployment}  {fallback}{candidate.reason}  [{candidate.model}]"
    for drop in trace.dropped:
        yield f"  -  {drop.deployment}  dropped: {drop.reason}  [{drop.model}]"
    if not trace.candidates and not trace.dropped:
        yield "  nobody to ask"
    if trace.omitted:
        yield f"  ({_count(trace.omitted, 'entry', 'entries')} of plan and attempts not kept)"


def _attempts(attempts: Sequence[TracedAttempt]) -> Iterator[str]:
    yield ""
    yield "attempts:"
    if not attempts:
        yield "  none"
    for place, attempt in enumerate(attempts, 1):
        facts = [f"{attempt.seconds:.3f} s"]
        if attempt.queued_seconds >= 0.001:  # noqa: PLR2004
            facts.append(f"after {attempt.queued_seconds:.3f} s in the queue")
        if attempt.calls != 1:
            facts.append(_count(attempt.calls, "call"))
        if attempt.is_hedge:
            facts.append("a hedge")
        if attempt.cost is not None:
            facts.append(f"{exact_usd(attempt.cost)} USD")
        error = f" ({attempt.error})" if attempt.error not in (None, attempt.outcome) else ""
        yield f"  {place}. {attempt.deployment}  {attempt.outcome}{error}, {', '.join(facts)}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"
