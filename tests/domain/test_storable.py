"""What every database takes as text."""

from __future__ import annotations

import pytest

from proxy.domain.errors import InvalidRequest
from proxy.domain.storable import check_storable, is_storable, storable


@pytest.mark.parametrize("text", ["", "a b", "zoë", "\U0001f984", "\ufffd", "\ud7ff\ue000", "\x01\x7f"])
def test_text_is_stored_as_it_is(text: str) -> None:
    assert (is_storable(text), storable(text)) == (True, text)
    check_storable("name", text)


@pytest.mark.parametrize(
    ("text", "stored"), [("\x00", ""), ("a\x00b", "ab"), ("ë\x00", "ë"), ("\ud800", "?"), ("a\udfffb", "a?b")]
)
def test_what_no_database_takes_is_told_by_the_parameters_name(text: str, stored: str) -> None:
    assert (is_storable(text), storable(text)) == (False, stored)
    with pytest.raises(InvalidRequest, match="'team' must be text") as refused:
        check_storable("team", text)
    assert refused.value.param == "team"
