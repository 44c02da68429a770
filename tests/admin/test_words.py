"""What is said of a body that does not fit: what is accepted, in words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from proxy.api.admin.bodies import BudgetBody, KeyBody
from proxy.api.admin.problems import invalid_body


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (KeyBody, {"name": "k", "hash": "zz"}, "hash: must be a SHA-256 in hexadecimal"),
        (
            BudgetBody,
            {"name": "b", "scope": "gateway", "amount_usd": "1", "period": "foo"},
            "period: must be hour, day, week, month, total, or rolling:<seconds>",
        ),
        (
            BudgetBody,
            {"name": "b", "scope": "gateway", "amount_usd": "1", "period": "rolling:59"},
            "period: must be hour, day, week, month, total, or rolling:<seconds> (60 to 999999999)",
        ),
    ],
)
def test_patterns_are_told_in_words(kind: type[BaseModel], body: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(body)
    assert str(invalid_body(refused.value)).startswith(words)


def test_the_shortest_and_the_longest_window_that_the_words_name_are_taken() -> None:
    for period in ("rolling:60", "rolling:99", "rolling:100", "rolling:999999999"):
        body = {"name": "b", "scope": "gateway", "amount_usd": "1", "period": period}
        assert BudgetBody.model_validate(body).period == period
