"""The table of payloads as Piccolo sees it."""

from __future__ import annotations

from piccolo.columns import UUID, BigInt, Boolean, Bytea, Timestamptz, Varchar
from piccolo.columns.defaults.timestamptz import TimestamptzNow
from piccolo.columns.defaults.uuid import UUID4
from piccolo.table import Table

from proxy.infrastructure.persistence.tables import NAME_LENGTH


class RequestPayloadTable(Table, tablename="request_payloads"):
    """The bodies of one request, each a gzip file of its own; no headers, no keys.

    The migration makes this table with raw statements, so it is not among those that `--auto` compares.
    """

    id = UUID(default=UUID4(), primary_key=True)  # of the ledger's row
    request_id = Varchar(length=128)
    timestamp = Timestamptz(default=TimestamptzNow())
    request_body = Bytea(null=True, default=None)
    request_bytes = BigInt(null=True, default=None)
    request_truncated = Boolean(default=False)
    response_body = Bytea(null=True, default=None)
    response_bytes = BigInt(null=True, default=None)
    response_truncated = Boolean(default=False)
    content_type = Varchar(length=NAME_LENGTH, null=True, default=None)
