"""Which models may be named, and what may be granted of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.access.model_scope import ALL_MODELS, ModelScope

GROUPS = {"cheap": ("small", "tiny/*"), "big": ("large",)}


@pytest.mark.parametrize(
    ("allowed", "model", "is_allowed"),
    [
        (None, "anything", True),
        ((), "anything", False),
        (("gpt-5",), "gpt-5", True),
        (("gpt-5",), "gpt-5-mini", False),
        (("gpt-5",), "GPT-5", False),
        (("gpt-*",), "gpt-5", True),
        (("gpt-*",), "gpt-", False),
        (("gpt-*",), "my-gpt-5", False),
        (("*",), "anything/at/all", True),
        (("openai/*-mini",), "openai/gpt-5-mini", True),
        (("openai/*-mini",), "openai/gpt-5", False),
        (("group:cheap",), "small", True),
        (("group:cheap",), "tiny/one", True),
        (("group:cheap",), "large", False),
        (("group:unknown",), "large", False),
        (("group:cheap",), "group:cheap", False),
        (("group:*",), "group:cheap", False),
    ],
)
def test_a_model_is_allowed_by_name_pattern_or_group(
    allowed: tuple[str, ...] | None, model: str, *, is_allowed: bool
) -> None:
    assert ModelScope(allowed).allows(model, GROUPS) is is_allowed


@pytest.mark.parametrize(
    ("wide", "narrow", "is_included"),
    [
        (None, None, True),
        (None, ("x",), True),
        (("x",), None, False),
        (("x",), (), True),
        ((), ("x",), False),
        (("gpt-*",), ("gpt-5*", "gpt-4"), True),
        (("gpt-5*",), ("gpt-*",), False),
        (("gpt-*",), ("*",), False),
        (("*",), ("gpt-*", "group:big"), True),
        (("group:cheap",), ("group:cheap",), True),
        (("group:cheap",), ("small", "tiny/*"), True),
        (("small", "tiny/*"), ("group:cheap",), True),
        (("small",), ("group:cheap",), False),
        (("small",), ("group:unknown",), False),
        (("a*a",), ("a*",), False),
        (("*-mini",), ("gpt*",), False),
    ],
)
def test_nobody_grants_more_than_it_has(
    wide: tuple[str, ...] | None, narrow: tuple[str, ...] | None, *, is_included: bool
) -> None:
    assert ModelScope(wide).includes(ModelScope(narrow), GROUPS) is is_included


_names = st.text("ab*", min_size=1, max_size=4).filter(lambda name: name.count("*") < 2)
_scopes = st.builds(ModelScope, st.none() | st.lists(_names, max_size=3).map(tuple))


@given(_scopes, _scopes, st.text("ab", min_size=1, max_size=6))
def test_what_an_included_scope_allows_is_allowed_by_the_wider_one(
    wide: ModelScope, narrow: ModelScope, model: str
) -> None:
    if wide.includes(narrow, {}) and narrow.allows(model, {}):
        assert wide.allows(model, {})


def test_all_models_is_no_restriction() -> None:
    assert ALL_MODELS.allowed is None
