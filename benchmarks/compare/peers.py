"""Other gateways, installed by name and pinned version into a directory of their own."""

from __future__ import annotations


class NotMeasured(Exception):
    """Why a target cannot be measured here."""
