"""Redacting, cutting and compressing; captures; finding the hook."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.application.payloads import Capture
from proxy.domain.errors import InvalidValue
from proxy.infrastructure.payloads.preparing import GZIP_FORMAT, prepare
from proxy.infrastructure.payloads.redaction import load_redaction
from tests.payloads.conftest import capture, row
from tests.payloads.redactions import hide_hello, shorten


def unpacked(body: bytes | None) -> bytes:
    assert body is not None
    return zlib.decompress(body, GZIP_FORMAT)


@given(st.binary(max_size=300), st.lists(st.binary(max_size=60), max_size=12), st.integers(1, 200))
def test_what_is_stored_is_the_beginning_and_what_is_said_of_it_is_true(
    request: bytes, chunks: list[bytes], max_bytes: int
) -> None:
    made = Capture(max_bytes, request=request)
    for chunk in chunks:
        made.add(chunk)
    response = b"".join(chunks)
    prepared = prepare(row(), made, None)
    assert unpacked(prepared.request_body) == request[:max_bytes]
    assert (prepared.request_bytes, prepared.request_truncated) == (len(request), len(request) > max_bytes)
    assert made.held_bytes() <= len(request) + max_bytes + 60
    if response:
        assert unpacked(prepared.response_body) == response[:max_bytes]
        assert (prepared.response_bytes, prepared.response_truncated) == (len(response), len(response) > max_bytes)
    else:
        assert (prepared.response_body, prepared.response_bytes) == (None, None)


def test_redaction_comes_before_the_cut() -> None:
    """Else half of a secret that crosses the limit would stay, unknown to the hook."""
    prepared = prepare(row(), capture(b"aaaHello", b"bbHello", max_bytes=5), hide_hello)
    assert unpacked(prepared.request_body) == b"aaa[."
    assert unpacked(prepared.response_body) == b"bb[.."
    assert prepared.request_bytes == 8


def test_a_body_that_redaction_made_short_is_whole() -> None:
    prepared = prepare(row(), capture(b"x" * 500, max_bytes=100), shorten)
    assert unpacked(prepared.request_body) == b"x" * 10
    assert (prepared.request_bytes, prepared.request_truncated) == (500, False)


def test_a_stream_whose_kept_chunks_end_at_the_limit_is_marked_truncated() -> None:
    prepared = prepare(row(), capture(b"", b"x" * 60, b"y" * 40, b"z", max_bytes=100), None)
    assert unpacked(prepared.response_body) == b"x" * 60 + b"y" * 40
    assert (prepared.response_bytes, prepared.response_truncated) == (101, True)


def test_a_content_type_that_no_database_would_take_is_made_plain() -> None:
    made = capture()
    made.content_type = "text/\x00plain" + "x" * 500
    content_type = prepare(row(), made, None).content_type
    assert content_type is not None
    assert content_type.startswith("text/plain")
    assert len(content_type) == 255


def test_the_hook_is_found_by_its_name() -> None:
    assert load_redaction("tests.payloads.redactions:hide_hello")(b"Hello") == b"[...]"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("no_such_module:hook", "ModuleNotFoundError"),
        ("tests.payloads.redactions:no_such_function", "AttributeError"),
        ("tests.payloads.redactions:NOT_CALLABLE", "not callable"),
    ],
)
def test_a_hook_that_cannot_be_had_is_told_of_by_its_name(reference: str, said: str) -> None:
    with pytest.raises(InvalidValue, match=said) as caught:
        load_redaction(reference)
    assert "PAYLOAD_REDACTION" in str(caught.value)
    assert reference in str(caught.value)
