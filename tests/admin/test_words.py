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
    ],
)
def test_patterns_are_told_in_words(kind: type[BaseModel], body: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(body)
    assert str(invalid_body(refused.value)).startswith(words)
