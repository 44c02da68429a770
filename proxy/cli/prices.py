"""llmgateway prices"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import click

from proxy.cli.failures import settings_or_fail, with_database
from proxy.cli.plain import plain
from proxy.cli.price_options import distinct, price_options
from proxy.domain.exact_prices import exact_text
from proxy.domain.price_tiers import PriceTier
from proxy.domain.pricing import PRICES, ModelPricing, PriceChanges, PriceSource
from proxy.domain.values import ModelName
from proxy.settings import Settings

_json = click.option("--json", "as_json", is_flag=True, help="For machines; prices are exact decimal strings.")


@click.group()
def prices() -> None:
    """Show and change what models cost. Prices are USD per 1M tokens and hold from a moment on.

    They price requests whose cost the upstream does not report, and the estimate beside those that it does.
    A running gateway takes changes up within two seconds.
    """


@prices.command("list")
@_json
def list_prices(as_json: bool) -> None:
    """List the prices in force now."""
    _show(with_database(_in_force(settings_or_fail())), as_json)


@prices.command()
@click.argument("model")
@_json
def history(model: str, as_json: bool) -> None:
    """List every price that MODEL ever had or will have, the latest first."""
    found = with_database(_history(settings_or_fail(), model))
    if not found:
        raise click.ClickException(f"{model} has no price. `llmgateway prices list` shows the models that have.")
    _show(found, as_json)


@prices.command("set")
@click.argument("model")
@price_options
@_json
def set_price(
    model: str,
    tiers: Sequence[PriceTier],
    context: int | None,
    valid_from: datetime | None,
    as_json: bool,
    **given: Decimal | None,
) -> None:
    """Set the prices of MODEL from now on, or from another moment on. Earlier prices stay in the history, and requests
    that are booked keep the cost that they have.

    Tokens whose own price is not given cost what other input (or output) tokens do. A later sync supersedes this
    price if the upstream asks another.

    Long requests, and those that a provider serves in another service tier than the default one, may have other prices:
    each --tier says which requests, and what is different for them.
    """
    settings = settings_or_fail()
    price = with_database(_set(settings, model, context, valid_from, {**given, "tiers": distinct(tiers)}))
    if price is None:
        raise click.ClickException(
            f"{model} has a price from that very moment on already, and prices are never changed. Give another --from."
        )
    if as_json:
        click.echo(json.dumps(as_dict(price), indent=2))
    else:
        click.echo(f"{model} costs this from {_span(price, with_database(_history(settings, model)))}:")
        _print_table([price])


@prices.command()
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@_json
def sync(dry_run: bool, as_json: bool) -> None:
    """Take over the prices that the upstream gives in its list of models (OpenRouter's `GET /models`).

    Prices that differ from those in force get a new row, valid from now on; models that cost nothing fixed are ignored.
    """
    settings = settings_or_fail()
    changes, ignored = _sync(settings, dry_run)
    if as_json:
        click.echo(json.dumps(_changes_as_dict(changes, ignored, dry_run), indent=2))
        return
    for model in changes.added:
        click.echo(f"added    {plain(model)}")
    for model in changes.changed:
        click.echo(f"changed  {plain(model)}")
    click.echo(
        ("Would be: " if dry_run else "")
        + f"{len(changes.added)} added, {len(changes.changed)} changed, {len(changes.unchanged)} unchanged"
        + (f"; {ignored} without a fixed price ignored" if ignored else "")
    )


async def _in_force(settings: Settings) -> Sequence[ModelPricing]:
    from proxy.bootstrap.prices import price_history  # noqa: PLC0415

    async with price_history(settings) as repository:
        return await repository.get_all()


async def _history(settings: Settings, model: str) -> Sequence[ModelPricing]:
    from proxy.bootstrap.prices import price_history  # noqa: PLC0415

    async with price_history(settings) as repository:
        return await repository.history(model)


async def _set(
    settings: Settings,
    model: str,
    context: int | None,
    valid_from: datetime | None,
    given: Mapping[str, Any],
) -> ModelPricing | None:
    """The price as it was set; None when there is one from that moment on already."""
    from proxy.bootstrap import prices  # noqa: PLC0415

    name, now = ModelName(model), datetime.now(UTC)

    def made(before: ModelPricing | None) -> ModelPricing:
        return ModelPricing(
            model=name,
            provider=before.provider if before else name.provider,
            max_context_tokens=context or (before.max_context_tokens if before else None),
            updated_at=now,
            valid_from=valid_from or now,
            source=PriceSource.SET,
            **given,
        )

    return await prices.set_price(settings, model, made)


def _sync(settings: Settings, dry_run: bool) -> tuple[PriceChanges, int]:
    from proxy.bootstrap.prices import PriceListUnavailable, sync_prices  # noqa: PLC0415

    try:
        return with_database(sync_prices(settings, dry_run=dry_run))
    except PriceListUnavailable as problem:
        raise click.ClickException(f"The upstream's list of models cannot be read: {plain(str(problem))}") from None


def _show(found: Sequence[ModelPricing], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([as_dict(price) for price in found], indent=2))
    else:
        _print_table(found)


def as_dict(price: ModelPricing) -> dict[str, Any]:
    """The price for machines; null where a kind of token has no price of its own."""
    return {
        "model": price.model.value,
        "provider": price.provider,
        "valid_from": price.valid_from.isoformat(),
        "source": price.source.value,
        **{name: None if (usd := getattr(price, name)) is None else exact_text(usd) for name in PRICES},
        "tiers": [tier.told() for tier in price.tiers],
        "max_context_tokens": price.max_context_tokens,
        "recorded_at": price.updated_at.isoformat(),
    }


def _changes_as_dict(changes: PriceChanges, ignored: int, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "added": list(changes.added),
        "changed": list(changes.changed),
        "counts": {
            "added": len(changes.added),
            "changed": len(changes.changed),
            "unchanged": len(changes.unchanged),
            "ignored": ignored,
        },
    }


def _moment(moment: datetime) -> str:
    return "the beginning" if moment.timestamp() == 0 else f"{moment:%Y-%m-%d %H:%M:%S}"


def _span(price: ModelPricing, history: Sequence[ModelPricing]) -> str:
    """When it holds: a price from some time ago on may have been superseded since."""
    begin = _moment(price.valid_from)
    later = [each.valid_from for each in history if each.valid_from > price.valid_from]
    return f"{begin} to {_moment(min(later))}, when its next price begins" if later else f"{begin} on"


class _Line(NamedTuple):
    """Of a table."""

    price: ModelPricing
    tier: PriceTier | None = None

    def holds_for(self) -> str:
        """Which requests."""
        if self.tier is None:
            return "-"
        above = self.tier.above_input_tokens
        named = (self.tier.service_tier, None if above is None else f"> {above} tokens in")
        return ", ".join(condition for condition in named if condition)


def _column(name: str) -> Callable[[_Line], str]:
    def cell(line: _Line) -> str:
        usd: Decimal | None = getattr(line.price, name)
        return "-" if usd is None else exact_text(usd)

    return cell


_CELLS: Mapping[str, Callable[[_Line], str]] = {
    "model": lambda line: line.price.model.value,
    "only for": _Line.holds_for,
    "input": _column("input_cost_per_1m_tokens"),
    "output": _column("output_cost_per_1m_tokens"),
    "cached": _column("cached_input_cost_per_1m_tokens"),
    "cache write": _column("cache_write_cost_per_1m_tokens"),
    "for 1 h": _column("cache_write_1h_cost_per_1m_tokens"),
    "audio": _column("audio_input_cost_per_1m_tokens"),
    "image": _column("image_input_cost_per_1m_tokens"),
    "reasoning": _column("reasoning_cost_per_1m_tokens"),
    "audio out": _column("audio_output_cost_per_1m_tokens"),
    "image out": _column("image_output_cost_per_1m_tokens"),
    "request": _column("request_fee_usd"),
    "context": lambda line: str(line.price.max_context_tokens or "-"),
    "from (UTC)": lambda line: _moment(line.price.valid_from),
    "source": lambda line: line.price.source.value,
}
_TEXTS = ("model", "only for", "from (UTC)", "source")
_ALWAYS = ("model", "input", "output", "context", "from (UTC)", "source")
_PIPED_WIDTH = 200


def _lines(price: ModelPricing) -> Iterator[_Line]:
    """Its own prices, and below them those of its tiers."""
    yield _Line(price)
    for tier, prices in price.by_tier:
        yield _Line(prices, tier)


def _print_table(found: Sequence[ModelPricing]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED_WIDTH)
    table = Table(box=None, pad_edge=False, caption="USD per 1M tokens; request: USD each", caption_justify="left")
    lines = [line for price in found for line in _lines(price)]
    rows = {heading: [cell(line) for line in lines] for heading, cell in _CELLS.items()}
    shown = [heading for heading in rows if heading in _ALWAYS or set(rows[heading]) - {"-"}]
    for heading in shown:
        table.add_column(heading, justify="left" if heading in _TEXTS else "right", no_wrap=heading != "model")
    for cells in zip(*(rows[heading] for heading in shown), strict=True):
        table.add_row(*(Text(plain(cell)) for cell in cells))  # Text: a model's name is not markup
    console.print(table)
