"""Names from rows and from gateways, shown on a terminal or in a spreadsheet: who chose them may mean harm."""

from __future__ import annotations

import re

_FORMULA_BEGINS = ("=", "+", "-", "@")
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def plain(text: str) -> str:
    """Text of one line, in which nothing moves the cursor or changes colours: what is not printable is U+FFFD."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def csv_cell(value: object) -> object:
    """The same for a cell of CSV; text that a spreadsheet would take for a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    is_formula = value.startswith(_FORMULA_BEGINS) and _NUMBER.fullmatch(value) is None
    return ("'" if is_formula else "") + plain(value)
