"""What has been raised remembers where, and with that all that was known there."""

from __future__ import annotations


def forget_where(*raised: BaseException | None) -> None:
    """Where these errors, and those that they came of, were raised: for errors that are told already.

    A request keeps what it failed with, and so would keep itself: its prompt and what came for an answer would wait for
    a search for garbage, of which there are few.
    """
    errors = list(raised)
    while errors:
        each = errors.pop()
        if each is not None and each.__traceback__ is not None:
            each.__traceback__ = None
            errors += (each.__cause__, each.__context__)
