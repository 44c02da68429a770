"""The tables as Piccolo sees them.

Changing one needs a migration, and one that changes nothing where a part of it is done: `piccolo migrations new proxy
--auto` tells what is to be done, but writes one that can be run once.
"""

from __future__ import annotations

from piccolo.columns import (
    UUID,
    BigInt,
    Boolean,
    Integer,
    Numeric,
    SmallInt,
    Text,
    Timestamptz,
    Varchar,
)
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.table import Table

# Money keeps 12 decimals: the seeded prices are down to 1e-10 USD per token.
MONEY_DIGITS = (18, 12)
NAME_LENGTH = 255
WORD_LENGTH = 64


class RequestLogTable(Table, tablename="request_logs"):
    """One row for each request; no prompts, no answers, no keys."""

    id = UUID(default=UUID4(), primary_key=True)
    request_id = Varchar(length=128, index=True)
    timestamp = Timestamptz(default=TimestamptzNow(), index=True)
    requested_model = Varchar(length=NAME_LENGTH, null=True, default=None)
    model_used = Varchar(length=NAME_LENGTH)
    model_provider = Varchar(length=NAME_LENGTH)
    provider_name = Varchar(length=WORD_LENGTH, index=True)
    status = Varchar(length=WORD_LENGTH)
    http_status = SmallInt(null=True, default=None)
    error_type = Varchar(length=WORD_LENGTH, null=True, default=None)
    stream = Boolean(default=False)
    attempts = SmallInt(default=0)
    was_fallback = Boolean(default=False)
    input_tokens = BigInt(default=0)
    output_tokens = BigInt(default=0)
    cached_tokens = BigInt(null=True, default=None)
    reasoning_tokens = BigInt(null=True, default=None)
    usage_source = Varchar(length=WORD_LENGTH)
    estimated_cost_usd = Numeric(digits=MONEY_DIGITS, null=True, default=None)
    reported_cost_usd = Numeric(digits=MONEY_DIGITS, null=True, default=None)
    cost_source = Varchar(length=WORD_LENGTH)
    response_time_ms = Integer(default=0)
    time_to_first_byte_ms = Integer(null=True, default=None)
    generation_id = Varchar(length=128, null=True, default=None)
    key_id = UUID(null=True, default=None)
    team_id = UUID(null=True, default=None)
    organisation_id = UUID(null=True, default=None)
    end_user = Varchar(length=NAME_LENGTH, null=True, default=None)
    service_tier = Varchar(length=WORD_LENGTH, null=True, default=None)


class ModelPricingTable(Table, tablename="model_pricing"):
    """Prices in USD per 1M tokens."""

    id = UUID(default=UUID4(), primary_key=True)
    model_name = Varchar(length=NAME_LENGTH, unique=True)
    provider_name = Varchar(length=NAME_LENGTH)
    input_cost_per_1m_tokens = Numeric(digits=MONEY_DIGITS)
    output_cost_per_1m_tokens = Numeric(digits=MONEY_DIGITS)
    max_context_tokens = Integer()
    updated_at = Timestamptz(default=TimestamptzNow())


class ModelPriceHistoryTable(Table, tablename="model_price_history"):
    """Every price that a model ever had, from `valid_from` on; one row for a model and a moment, never changed.

    Prices are decimal text: SQLite's NUMERIC is a float; `tiers` is JSON, a list of what PriceTier.told gives. The
    migration makes this table with raw statements (Piccolo cannot make an index over two columns on SQLite), so it is
    not among those that `--auto` compares.
    """

    id = UUID(default=UUID4(), primary_key=True)
    model_name = Varchar(length=NAME_LENGTH)
    provider_name = Varchar(length=NAME_LENGTH)
    valid_from = Timestamptz(default=TimestamptzNow())
    source = Varchar(length=WORD_LENGTH)
    input_cost_per_1m_tokens = Varchar(length=WORD_LENGTH)
    output_cost_per_1m_tokens = Varchar(length=WORD_LENGTH)
    cached_input_cost_per_1m_tokens = Varchar(length=WORD_LENGTH, null=True, default=None)
    cache_write_cost_per_1m_tokens = Varchar(length=WORD_LENGTH, null=True, default=None)
    audio_input_cost_per_1m_tokens = Varchar(length=WORD_LENGTH, null=True, default=None)
    image_input_cost_per_1m_tokens = Varchar(length=WORD_LENGTH, null=True, default=None)
    reasoning_cost_per_1m_tokens = Varchar(length=WORD_LENGTH, null=True, default=None)
    request_fee_usd = Varchar(length=WORD_LENGTH, null=True, default=None)
    max_context_tokens = Integer(null=True, default=None)
    recorded_at = Timestamptz(default=TimestamptzNow())
    cache_write_1h_cost_per_1m_tokens = Varchar(length=WORD_LENGTH, null=True, default=None)
    audio_output_cost_per_1m_tokens = Varchar(length=WORD_LENGTH, null=True, default=None)
    image_output_cost_per_1m_tokens = Varchar(length=WORD_LENGTH, null=True, default=None)
    tiers = Text(null=True, default=None)
