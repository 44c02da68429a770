"""What is taken for a key, and what is not."""

from __future__ import annotations

import pytest

from proxy.domain.key_like import holds_key, without_keys

KEY_LIKE = {
    "sk-12345678": "[redacted]",
    "/v1/models/pk-live_abc-DEF-0123/x": "/v1/models/[redacted]/x",
    "mine_rk-12345678.2": "mine_[redacted].2",
    "/v1/Bearer abc/sk-12345678": "/v1/[redacted]",
}
OTHERS = [
    "/v1/chat/completions",
    "sk-1234567",
    "deepseek-reasoner",
    "task-12345678",
    "req-0123456789abcdef",
    "Bearer",
    "",
]


@pytest.mark.parametrize(("text", "blotted"), KEY_LIKE.items())
def test_what_looks_like_a_key_is_blotted_out(text: str, blotted: str) -> None:
    assert holds_key(text)
    assert without_keys(text) == blotted


@pytest.mark.parametrize("text", OTHERS)
def test_other_texts_stay(text: str) -> None:
    assert not holds_key(text)
    assert without_keys(text) == text
