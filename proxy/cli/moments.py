"""Moments as options."""

from __future__ import annotations

from datetime import UTC, datetime

import click


def moment(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    """The callback of an option: a moment in ISO 8601; without a time zone it is UTC."""
    try:
        read = None if value is None else datetime.fromisoformat(value)
        return read and (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is not a time like 2026-12-01 or 2026-12-01T09:30:00+01:00.") from None
