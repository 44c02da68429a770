"""Facts that answers and streams tell of themselves."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.domain.chat import NO_FACTS, Usage
from proxy.domain.values import CostAmount
from proxy.infrastructure.chat_completion.reading import Malformed
from proxy.infrastructure.chat_completion.usage import StreamTail, WholeAnswer

_property = settings(max_examples=100, deadline=None, database=None, derandomize=True)

KIBIBYTE = 1024
TAIL_BYTES = 16 * KIBIBYTE
DONE = b"data: [DONE]\n\n"


def answer(usage: bytes = b"null", **members: Any) -> bytes:
    head = json.dumps({"id": "gen-1", "model": "z-ai/glm-4.6", "provider": "Z.AI", "choices": [], **members})
    return head[:-1].encode() + b', "usage": ' + usage + b"}"


def usage_of(usage: bytes) -> Usage | None:
    return WholeAnswer(answer(usage)).facts().usage


def event(**members: Any) -> bytes:
    return b"data: " + json.dumps(members).encode() + b"\n\n"


def delta(content: str | None, finish_reason: str | None = None, **members: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}
    return event(id="gen-1", model="z-ai/glm-4.6", provider="Z.AI", choices=[choice], **members)


def tail_of(*reads: bytes) -> StreamTail:
    tail = StreamTail()
    for read in reads:
        tail.feed(read)
    return tail


# Usage, as whole answers and streams share it


def test_full_usage() -> None:
    usage = usage_of(
        b"""{"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, "cost": 0.000123456789012345,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 7}, "is_byok": false, "cost_details": {"x": null}}"""
    )
    assert usage == Usage(10, 20, 4, 7, CostAmount(Decimal("0.000123456789012345")), estimated=False, audio_tokens=0)


@pytest.mark.parametrize(
    "usage",
    [
        b'{"prompt_tokens": 10, "completion_tokens": 20}',
        b'{"prompt_tokens": 10, "completion_tokens": 20, "cost": null}',
        b'{"prompt_tokens": 10, "completion_tokens": 20, "prompt_tokens_details": null}',
        b'{"prompt_tokens": 10, "completion_tokens": 20, "completion_tokens_details": {}}',
        b'{"prompt_tokens": 10, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": null}}',
        rb'{"prompt_tokens": 10, "completion_tokens": 20, "note": "\ud800"}',
    ],
)
def test_what_usage_does_not_say_is_none(usage: bytes) -> None:
    assert usage_of(usage) == Usage(10, 20, None, None, None)


_ANSWER = b'"id": "x", "model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 5}'


@pytest.mark.parametrize(
    ("told", "tier"),
    [
        (b'"flex"', "flex"),
        (b'"priority"', "priority"),
        (b'"FLEX"', "flex"),
        (b'"default"', None),
        (b'"standard"', None),
        (b'""', None),
        (b"null", None),
        (b"5", None),
        (b'["flex"]', None),
    ],
)
def test_the_service_tier_is_that_of_the_answer(told: bytes, tier: str | None) -> None:
    """Also where the answer is read carefully, which one with an odd member is."""
    for odd in (b"", b', "provider": 5'):
        whole = WholeAnswer(b'{%b%b, "service_tier": %b, "choices": [{"message": {}}]}' % (_ANSWER, odd, told))
        assert whole.facts().usage == Usage(3, 5, service_tier=tier)
        tail = StreamTail()
        tail.feed(b'data: {"id": "x", "model": "m", "service_tier": %b, "choices": []}\n\n' % told)
        tail.feed(b"data: {%b%b}\n\ndata: [DONE]\n\n" % (_ANSWER, odd))
        assert tail.facts().usage == Usage(3, 5, service_tier=tier)


def test_tokens_with_a_price_of_their_own_are_told_apart() -> None:
    usage = usage_of(
        b"""{"prompt_tokens": 100, "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 20, "audio_tokens": 30, "image_tokens": 40,
            "video_tokens": 5, "text_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 7, "audio_tokens": 8, "image_tokens": 9}}"""
    )
    expected = Usage(100, 50, 10, 7, cache_write_tokens=20, audio_tokens=30, image_tokens=40)
    assert usage == expected._replace(audio_output_tokens=8, image_output_tokens=9)


@pytest.mark.parametrize(
    "details",
    [
        b"[]",
        b"[1]",
        b'"x"',
        b"5",
        b"true",
        b'{"cached_tokens": "many"}',
        b'{"cached_tokens": 1.5}',
        b'{"cached_tokens": -1}',
        b'{"cached_tokens": true}',
        b'{"cached_tokens": 1e999}',
        b'{"cached_tokens": [1]}',
    ],
)
def test_a_detail_that_makes_no_sense_costs_neither_the_totals_nor_the_bill(details: bytes) -> None:
    usage = usage_of(
        b'{"prompt_tokens": 10, "completion_tokens": 20, "cost": 0.5, "prompt_tokens_details": %b}' % details
    )
    assert usage == Usage(10, 20, cost=CostAmount(Decimal("0.5")))


def test_a_detail_that_makes_no_sense_leaves_the_others() -> None:
    usage = usage_of(
        b"""{"prompt_tokens": 10, "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": null, "audio_tokens": "3", "image_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5, "accepted_prediction_tokens": "x"}}"""
    )
    assert usage == Usage(10, 20, None, 5, image_tokens=4)


@pytest.mark.parametrize(
    ("counts", "read"),
    [
        (b'"prompt_tokens": 10, "completion_tokens": null,', (10, 0)),
        (b'"prompt_tokens": 10, "completion_tokens": -1,', (10, 0)),
        (b'"prompt_tokens": 10, "completion_tokens": 10.5,', (10, 0)),
        (b'"prompt_tokens": 10, "completion_tokens": 18446744073709551615,', (10, 0)),
        (b'"prompt_tokens": "10", "completion_tokens": 20,', (0, 20)),
        (b'"completion_tokens": 20,', (0, 20)),
        (b"", (0, 0)),
    ],
)
def test_a_bill_is_kept_though_a_count_beside_it_makes_no_sense(counts: bytes, read: tuple[int, int]) -> None:
    """DOMAIN: what was billed is known, and a guess must not take its place."""
    usage = Usage(*read, 4, cost=CostAmount(Decimal("0.5")), estimated=True)
    told = b'{%b "cost": 0.5, "prompt_tokens_details": {"cached_tokens": 4}}' % counts
    assert usage_of(told) == usage
    assert tail_of(b'data: {"choices": [], "usage": %b}\n\n' % told, DONE).facts().usage == usage


def test_whole_numbers_may_be_written_as_fractions() -> None:
    assert usage_of(b'{"prompt_tokens": 10.0, "completion_tokens": 2e1}') == Usage(10, 20)
    details = b'{"cached_tokens": 4.0, "audio_tokens": 4.5}'
    assert usage_of(b'{"prompt_tokens": 10, "prompt_tokens_details": %b}' % details) == Usage(10, 0, 4)


def test_with_a_key_of_ones_own_the_bill_is_the_cost_and_not_what_the_provider_charges() -> None:
    usage = usage_of(
        b"""{"prompt_tokens": 10, "completion_tokens": 20, "cost": 0.0005, "is_byok": true,
        "cost_details": {"upstream_inference_cost": 0.01}}"""
    )
    assert usage == Usage(10, 20, cost=CostAmount(Decimal("0.0005")))


@pytest.mark.parametrize(
    ("members", "cached"),
    [
        (b'"prompt_cache_hit_tokens": 7, "prompt_cache_miss_tokens": 3', 7),
        (b'"prompt_cache_hit_tokens": 0', 0),
        (b'"prompt_cache_hit_tokens": 7, "prompt_tokens_details": {"cached_tokens": 6}', 6),
        (b'"prompt_cache_hit_tokens": -1', None),
        (b'"prompt_cache_hit_tokens": 1.5', None),
        (b'"prompt_cache_hit_tokens": 1e999', None),
        (b'"prompt_cache_hit_tokens": [1]', None),
        (b'"prompt_cache_hit_tokens": null', None),
        (b'"cached_tokens": 7', 7),
        (b'"cached_tokens": 0', 0),
        (b'"cached_tokens": 7, "prompt_tokens_details": {"cached_tokens": 6}', 6),
        (b'"cached_tokens": 7, "prompt_tokens_details": null', 7),
        (b'"cached_tokens": 7, "completion_tokens_details": {"reasoning_tokens": null}', 7),
        (b'"cached_tokens": -1', None),
        (b'"cached_tokens": [1]', None),
        (b'"cached_tokens": 7, "cost": "free"', 7),
    ],
)
def test_cache_hits_are_read_by_other_providers_names_too(members: bytes, cached: int | None) -> None:
    assert usage_of(b'{"prompt_tokens": 10, "completion_tokens": 20, %b}' % members) == Usage(10, 20, cached)


@pytest.mark.parametrize(
    ("details", "written"),
    [
        (b'"cache_creation_input_tokens": 7, "cache_type": "ephemeral"', 7),
        (b'"cache_creation_input_tokens": 0', 0),
        (b'"cache_creation_input_tokens": 7, "cache_write_tokens": 6', 6),
        (b'"cache_creation_input_tokens": -1', None),
        (b'"cache_creation_input_tokens": "7"', None),
    ],
)
def test_what_is_written_to_the_cache_is_read_by_dashscopes_name_too(details: bytes, written: int | None) -> None:
    told = b'{"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 3, %b}}' % details
    assert usage_of(told) == Usage(10, 0, 3, cache_write_tokens=written)


@pytest.mark.parametrize(
    ("members", "cost"),
    [
        (b'"cost": {"request_cost": 0.005, "total_cost": 0.00515}', "0.00515"),  # Perplexity
        (b'"cost": {"total_cost": 0}', "0"),
        (b'"cost": {"total_cost": null}', None),
        (b'"cost": {"total_cost": -1}', None),
        (b'"cost": {"total_cost": "free"}', None),
        (b'"cost": {}', None),
        (b'"cost": [0.5]', None),
        (b'"cost_in_usd_ticks": 232856000', "0.0232856000"),  # xAI
        (b'"cost_in_usd_ticks": 0', "0E-10"),
        (b'"cost_in_usd_ticks": null', None),
        (b'"cost_in_usd_ticks": -5', None),
        (b'"cost_in_usd_ticks": "many"', None),
        (b'"cost_in_usd_ticks": 232856000, "cost": 0.5', "0.5"),
        (b'"cost_in_usd_ticks": 5, "prompt_tokens_details": 7', "5E-10"),
    ],
)
def test_bills_are_read_in_other_providers_forms_too(members: bytes, cost: str | None) -> None:
    told = b'{"prompt_tokens": 10, "completion_tokens": 20, %b}' % members
    usage = Usage(10, 20, cost=None if cost is None else CostAmount(Decimal(cost)))
    assert usage_of(told) == usage
    assert tail_of(b'data: {"choices": [], "usage": %b}\n\n' % told, DONE).facts().usage == usage


def in_choice(usage: bytes) -> bytes:
    choice = b'{"index": 0, "delta": {}, "finish_reason": "stop", "usage": %b}' % usage
    return b'data: {"id": "gen-1", "model": "kimi-k2", "choices": [%b]}\n\n' % choice


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_usage_of_a_stream_is_read_in_its_choice_too(line_end: bytes) -> None:
    """Moonshot's streams tell it there and nowhere else."""
    told = in_choice(b'{"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32, "cached_tokens": 12}')
    stream = (delta("Hi") + told + DONE).replace(b"\n", line_end)
    assert tail_of(stream).facts().usage == Usage(19, 13, 12)


def test_usage_of_the_chunk_wins_over_that_of_its_choice() -> None:
    told = in_choice(b'{"prompt_tokens": 19, "completion_tokens": 13}')
    last = event(choices=[], usage={"prompt_tokens": 19, "completion_tokens": 14})
    assert tail_of(told, last, DONE).facts().usage == Usage(19, 14)
    assert tail_of(told.replace(b"}]}", b'}], "usage": {"prompt_tokens": 1}}'), DONE).facts().usage == Usage(1, 0)


@pytest.mark.parametrize("usage", [b"null", b"{}", b"[]", b'"none"', b'{"prompt_tokens": -1}'])
def test_usage_of_a_choice_that_makes_no_sense_is_none(usage: bytes) -> None:
    facts = tail_of(delta("Hi"), in_choice(usage), DONE).facts()
    assert (facts.usage, facts.finish_reason) == (None, "stop")


def test_nothing_cached_is_zero_and_not_unknown() -> None:
    usage = usage_of(
        b"""{"prompt_tokens": 1, "completion_tokens": 2, "cost": 0, "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0}}"""
    )
    assert usage == Usage(1, 2, 0, 0, CostAmount(Decimal(0)))


def test_tokens_are_read_by_openai_s_field_names() -> None:
    """A regression: with the names of another API, tokens and cost were always zero."""
    assert usage_of(b'{"input_tokens": 10, "output_tokens": 20}') is None
    assert usage_of(b'{"promptTokens": 10, "completionTokens": 20}') is None
    assert usage_of(b'{"prompt_tokens": 10, "input_tokens": 99}') == Usage(10, 0)


def test_completion_tokens_may_be_absent_where_nothing_was_generated() -> None:
    assert usage_of(b'{"prompt_tokens": 10, "total_tokens": 10}') == Usage(10, 0)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        # xAI; then Gemini's compatible endpoint
        (b'"total_tokens": 135, "completion_tokens_details": {"reasoning_tokens": 94}', Usage(32, 103, None, 94)),
        (b'"total_tokens": 135', Usage(32, 103)),
        (b'"total_tokens": 135.0, "cost": "free"', Usage(32, 103)),
        (b'"total_tokens": 41, "completion_tokens_details": {"reasoning_tokens": 8}', Usage(32, 9, None, 8)),
        (b'"total_tokens": 12', Usage(32, 9)),
        (b'"total_tokens": null', Usage(32, 9)),
        (b'"total_tokens": "135"', Usage(32, 9)),
        (b'"total_tokens": -1', Usage(32, 9)),
        (b'"total_tokens": 18446744073709551615', Usage(32, 9)),
    ],
)
def test_output_that_only_the_total_has_is_output(members: bytes, expected: Usage) -> None:
    told = b'{"prompt_tokens": 32, "completion_tokens": 9, %b}' % members
    assert usage_of(told) == expected
    assert tail_of(b'data: {"choices": [], "usage": %b}\n\n' % told, DONE).facts().usage == expected


@pytest.mark.parametrize(
    ("total", "details", "cached", "written"),
    [
        (141, '{"cached_tokens": 100}', 100, None),
        (141, '{"cache_write_tokens": 100}', None, 100),
        (171, '{"cached_tokens": 100, "cache_write_tokens": 30}', 100, 30),
    ],
)
def test_what_a_total_has_of_the_cache_is_no_output(
    total: int, details: str, cached: int | None, written: int | None
) -> None:
    told = (
        f'{{"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": {total}, "prompt_tokens_details": {details}}}'
    )
    assert usage_of(told.encode()) == Usage(32, 9, cached, cache_write_tokens=written)


@pytest.mark.parametrize("details", ["", ', "prompt_tokens_details": {"audio_tokens": 0}', ', "cost": "free"'])
@pytest.mark.parametrize(("total", "output_tokens"), [(1041, 9), (71, 9), (1071, 9), (135, 103), (41, 9)])
def test_nor_is_what_a_total_has_of_the_cache_by_anthropics_names(total: int, output_tokens: int, details: str) -> None:
    told = (
        f'{{"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": {total}, "cache_read_input_tokens": 1000, '
        f'"cache_creation_input_tokens": 30{details}}}'
    )
    usage = usage_of(told.encode())
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (32, output_tokens)


def test_a_total_is_nothing_beside_counts_that_make_no_sense() -> None:
    told = b'{"prompt_tokens": -1, "completion_tokens": 9, "total_tokens": 135, "cost": 0.5}'
    assert usage_of(told) == Usage(0, 9, cost=CostAmount(Decimal("0.5")), estimated=True)


@pytest.mark.parametrize("tokens", [2**53 - 1, 2**53 + 1, 2**63 - 1])
def test_large_integers_are_exact(tokens: int) -> None:
    usage = usage_of(b'{"prompt_tokens": %d, "completion_tokens": %d}' % (tokens, tokens))
    assert usage == Usage(tokens, tokens)


@pytest.mark.parametrize(
    "cost", ["0.1", "0.00014", "1.5e-7", "1E-12", "0.1234567890123456789", "1234.000000000001", "0.30000000000000004"]
)
def test_cost_is_read_digit_for_digit(cost: str) -> None:
    usage = usage_of(b'{"prompt_tokens": 1, "cost": %b}' % cost.encode())
    assert usage is not None
    assert usage.cost is not None
    assert usage.cost.usd.as_tuple() == Decimal(cost).as_tuple()


@_property
@given(st.decimals(min_value=0, max_value=10**6, places=15))
def test_any_cost_is_exact(cost: Decimal) -> None:
    usage = usage_of(b'{"prompt_tokens": 1, "cost": %b}' % str(cost).encode())
    assert usage is not None
    assert usage.cost == CostAmount(cost)


@pytest.mark.parametrize(
    "usage",
    [
        b"null",
        b"{}",
        b"{ }",
        b"[]",
        b"[1]",
        b"0",
        b"5",
        b"true",
        b"false",
        b'""',
        b'"10 tokens"',
        b'{"completion_tokens": 20}',
        b'{"total_tokens": 30}',
        b'{"prompt_tokens": null, "completion_tokens": 1}',
        b'{"prompt_tokens": "10", "completion_tokens": 1}',
        b'{"prompt_tokens": -1, "completion_tokens": 1}',
        b'{"prompt_tokens": 1, "completion_tokens": -1}',
        b'{"prompt_tokens": 1.5, "completion_tokens": 1}',
        b'{"prompt_tokens": 1e999, "completion_tokens": 1}',
        b'{"prompt_tokens": 1, "completion_tokens": 18446744073709551615}',
        b'{"prompt_tokens": 1, "completion_tokens": -1, "cost": "free"}',
        b'{"prompt_tokens": 1' + b"0" * 5000 + b"}",
    ],
)
def test_usage_that_makes_no_sense_is_no_usage_and_no_failure(usage: bytes) -> None:
    facts = WholeAnswer(answer(usage)).facts()
    assert facts.usage is None
    assert facts.generation_id == "gen-1"


@pytest.mark.parametrize("cost", [b"-0.01", b'"NaN"', b'"Infinity"', b'"free"', b"true", b"1e99999999999999999999"])
def test_a_cost_that_makes_no_sense_is_never_believed(cost: bytes) -> None:
    usage = usage_of(b'{"prompt_tokens": 1, "completion_tokens": 2, "cost": %b}' % cost)
    assert usage is None or usage.cost is None


@pytest.mark.parametrize("cost", [b"1e999999999", b"1e-999999999", b"1e400"])
def test_a_cost_that_would_take_a_gigabyte_to_write_out_is_never_believed(cost: bytes) -> None:
    """The answer's headers and the ledger write costs out digit by digit."""
    usage = usage_of(b'{"prompt_tokens": 1, "completion_tokens": 2, "cost": %b}' % cost)
    written_digits = 0 if usage is None or usage.cost is None else abs(usage.cost.usd.adjusted())
    assert written_digits < 100


def test_usage_absent_altogether() -> None:
    assert WholeAnswer(b'{"choices": []}').facts() == NO_FACTS


# Whole answers


def test_facts_of_a_whole_answer() -> None:
    facts = WholeAnswer(answer(b'{"prompt_tokens": 1}')).facts()
    assert (facts.model, facts.generation_id, facts.upstream_provider) == ("z-ai/glm-4.6", "gen-1", "Z.AI")
    assert WholeAnswer(answer()).error is None


@pytest.mark.parametrize("odd", [{}, {"id": 7}])
@pytest.mark.parametrize(
    ("told", "finish_reason"),
    [((), None), ((None,), None), (("",), None), (("length",), "length"), ((None, "stop", "length"), "stop")],
)
def test_the_finish_reason_of_a_whole_answer(
    odd: dict[str, Any], told: tuple[str | None, ...], finish_reason: str | None
) -> None:
    choices = [{"message": {"content": "Hi"}, "finish_reason": each} for each in told]
    assert WholeAnswer(answer(choices=choices, **odd)).facts().finish_reason == finish_reason


@pytest.mark.parametrize(
    "body",
    [b" \n\n\t" + answer(b'{"prompt_tokens": 1}'), answer(b'{"prompt_tokens": 1}', model=None) + b"\r\n "],
)
def test_keep_alive_white_space_around_an_answer_is_fine(body: bytes) -> None:
    assert WholeAnswer(body).facts().usage == Usage(1, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   \n",
        b"<html><body>502 Bad Gateway</body></html>",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"choices": null}',
        b'{"choices": {}}',
        b'{"choices": "[]"}',
        b'{"choices": [1, 2}',
        b'{"choices": []} and more',
        b'{"choices": []',
        rb'{"choices": ["\u0041"',
        b'{"error": null}',
        b'{"error": {}}',
        rb'{"choices": "\ud800"}',
        b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_completion_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        WholeAnswer(body)


def test_a_lone_surrogate_hides_nothing() -> None:
    message = rb'{"choices": [{"message": {"content": "\ud800 \\ud800"}}], "model": "m", "usage": {"prompt_tokens": 5}}'
    facts = WholeAnswer(message).facts()
    assert (facts.usage, facts.model) == (Usage(5, 0), "m")


def test_a_lone_surrogate_in_a_name_breaks_nothing() -> None:
    assert WholeAnswer(rb'{"choices": [], "model": "a\udfffb"}').facts().model == "a?b"


def test_contents_are_not_read_as_facts() -> None:
    body = json.dumps({"choices": [{"usage": {"prompt_tokens": 99}, "model": "x", "error": "y"}]}).encode()
    found = WholeAnswer(body)
    assert found.facts() == NO_FACTS
    assert found.error is None


def test_output_of_a_whole_answer_without_usage_is_estimated_from_its_text() -> None:
    """DOMAIN: a missing usage is estimated and marked so; nobody answers four hundred characters with zero tokens."""
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "x" * 403}}]}).encode()
    assert WholeAnswer(body).estimated_output_tokens() == 100


@pytest.mark.parametrize("error", [b"null", b"{}", b"[]", b'"y"', b"7"])
@pytest.mark.parametrize("finish_reason", [b"null", b'""', b"7", b'"stop"', rb'"\ud800"'])
def test_what_is_no_error_of_a_choice_is_none(finish_reason: bytes, error: bytes) -> None:
    choice = b'{"message": {}, "finish_reason": ' + finish_reason + b', "error": ' + error + b"}"
    found = WholeAnswer(b'{"choices": [' + choice + b"]}")
    assert (found.error, found.facts().choice_error) == (None, None)


def test_a_failure_is_found_beside_members_that_only_our_books_read() -> None:
    choices = [{"message": {"content": "Hi"}, "finish_reason": "error", "error": {"code": 502}}]
    found = WholeAnswer(answer(id=7, choices=choices))
    assert (found.error, found.facts().choice_error) == (None, "unspecified error")


@pytest.mark.parametrize("odd", [{"id": 7}, {"model": 5}, {"provider": {"name": "Z.AI"}}])
def test_an_answer_is_not_refused_for_a_member_that_only_our_books_read(odd: dict[str, Any]) -> None:
    """It has been paid for, and the client may well understand it."""
    found = WholeAnswer(answer(b'{"prompt_tokens": 1}', **odd))
    assert found.error is None
    assert found.facts().usage == Usage(1, 0)


# Error members


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (b'{"code": 502, "message": "down"}', {"code": 502, "message": "down"}),
        (b'{"message": ""}', {"message": ""}),
        (b'"boom"', {"message": "boom"}),
        (b"true", {"message": "True"}),
        (b"17", {"message": "17"}),
        (b'{"code": 12345678901234567890}', {"code": 12345678901234567890}),
        (rb'{"message": "\ud83d\ude00"}', {"message": "😀"}),
        (rb'{"message": "lone \ud83d"}', {"message": "lone ?"}),
    ],
)
def test_an_answer_s_error_as_an_object(error: bytes, expected: dict[str, Any]) -> None:
    assert WholeAnswer(b'{"error": %b}' % error).error == expected
    assert WholeAnswer(b'{"choices": [], "error": %b}' % error).error == expected


@pytest.mark.parametrize("error", [b"null", b"false", b'""', b"{}", b"[]", b"0"])
def test_an_empty_error_is_none(error: bytes) -> None:
    assert WholeAnswer(b'{"choices": [], "error": %b}' % error).error is None


@pytest.mark.parametrize(
    "error",
    [
        b'{"message": "\xff"}',
        b'"\xff"',
        b'{"message": "x", "metadata": {"n": 1e999}}',
        b'{"code": 1' + b"0" * 5000 + b"}",
        b'{"message": "\\ud800 \xff"}',
    ],
)
def test_an_error_that_cannot_be_read_is_malformed_and_no_crash(error: bytes) -> None:
    """Anything but Malformed would reach the client as a 500 of ours."""
    try:
        found = WholeAnswer(b'{"error": %b}' % error)
    except Malformed:
        return
    assert found.error is not None


@pytest.mark.parametrize("error", [b'{"message": "\xff"}', b'{"message": "x", "metadata": {"n": 1e999}}'])
def test_an_error_event_that_cannot_be_read_breaks_no_relay(error: bytes) -> None:
    tail = tail_of(delta("x"), b'data: {"error": %b}\n\n' % error)
    assert tail.facts().generation_id == "gen-1"


# Streams

USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "cost": 0.25}


def test_nothing_came() -> None:
    assert StreamTail().facts() == NO_FACTS
    assert StreamTail().estimated_output_tokens() == 0
    assert tail_of(b": OPENROUTER PROCESSING\n\n", DONE).facts() == NO_FACTS


def test_usage_in_a_last_chunk_without_choices() -> None:
    facts = tail_of(delta("Hi"), delta("", "stop"), event(id="gen-1", choices=[], usage=USAGE), DONE).facts()
    assert facts.usage == Usage(10, 20, cost=CostAmount(Decimal("0.25")))
    assert (facts.model, facts.generation_id, facts.upstream_provider) == ("z-ai/glm-4.6", "gen-1", "Z.AI")
    assert facts.finish_reason == "stop"
    assert facts.error_message is None


def test_of_a_flood_in_one_read_no_more_is_kept_than_the_last_events() -> None:
    tail = tail_of(delta("word") * 4000 + delta("", "stop", usage=USAGE) + DONE)
    assert sum(map(len, tail._reads)) < 2 * TAIL_BYTES
    facts = tail.facts()
    assert facts.usage == Usage(10, 20, cost=CostAmount(Decimal("0.25")))
    assert (facts.model, facts.finish_reason) == ("z-ai/glm-4.6", "stop")


@pytest.mark.parametrize("before", [b"", delta("word"), delta("word") * 4000])
def test_a_last_event_is_kept_however_long_it_is(before: bytes) -> None:
    tail = tail_of(before + delta("word " * 20_000, "stop", usage=USAGE) + DONE)
    assert tail.facts().usage == Usage(10, 20, cost=CostAmount(Decimal("0.25")))


def test_an_error_in_a_flood_is_kept() -> None:
    tail = tail_of(event(error={"message": "Overloaded"}) + delta("word") * 4000 + DONE)
    assert tail.facts().error_message == "Overloaded"


def test_the_error_of_a_choice_in_a_flood_is_kept() -> None:
    broken = event(choices=[{"index": 1, "delta": {}, "finish_reason": "error", "error": {"message": "gone"}}])
    assert tail_of(broken + delta("x") * 20_000 + DONE).facts().choice_error == "gone"


def test_usage_beside_a_delta() -> None:
    facts = tail_of(delta("Hi"), delta("", "length", usage=USAGE), DONE).facts()
    assert facts.usage == Usage(10, 20, cost=CostAmount(Decimal("0.25")))
    assert facts.finish_reason == "length"


def test_usage_in_an_event_of_a_read_with_many() -> None:
    facts = tail_of(delta("Hi") + delta("", "stop") + event(choices=[], usage=USAGE) + DONE).facts()
    assert facts.usage is not None
    assert facts.finish_reason == "stop"


@pytest.mark.parametrize("odd", [{}, {"provider": 7}])
def test_an_empty_finish_reason_is_none_and_hides_none(odd: dict[str, Any]) -> None:
    unfinished = [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": ""}]
    first, last = event(choices=unfinished), event(choices=unfinished, **odd)
    assert tail_of(first, last).facts().finish_reason is None
    assert tail_of(first, delta("", "stop"), last, DONE).facts().finish_reason == "stop"


def test_null_usage_on_other_chunks_hides_none() -> None:
    facts = tail_of(delta("Hi", usage=None), event(choices=[], usage=USAGE), delta("", usage=None), DONE).facts()
    assert facts.usage is not None


def test_the_last_usage_counts() -> None:
    """Some upstreams count up with each chunk."""
    reads = [delta("x", usage={"prompt_tokens": 10, "completion_tokens": count}) for count in range(1, 4)]
    assert tail_of(*reads, DONE).facts().usage == Usage(10, 3)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("events", "output_tokens"),
    [
        ([delta("Hi", usage=USAGE)], 20),
        ([delta("x" * 400, usage=USAGE)], 100),
        ([delta("Hi", usage={**USAGE, "completion_tokens": 0}), delta("x" * 398), delta("x" * 400)], 200),
        ([delta("Hi", usage={**USAGE, "completion_tokens": 1}), delta("Hi", usage=USAGE)], 20),
    ],
)
def test_usage_of_an_answer_that_is_not_complete_is_an_estimate(
    events: list[bytes], output_tokens: int, end: bytes
) -> None:
    """DOMAIN: the larger of what was told so far and what the text amounts to; the bill so far is none."""
    tail = tail_of(*(event.replace(b"\n", end) for event in events))
    assert tail.facts().usage == Usage(10, output_tokens, estimated=True)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    "events",
    [
        [delta("x" * 400, "stop", usage=USAGE)],
        [delta("x" * 400, "stop"), delta("", usage=USAGE)],
        [delta("x" * 400, usage=USAGE), delta("", "stop")],
        [delta("x" * 400, usage=USAGE), DONE],
        [delta("x" * 400), event(choices=[], usage=USAGE)],
        [delta("x" * 400), event(usage=USAGE)],
    ],
)
def test_usage_of_a_complete_answer_is_final(events: list[bytes], end: bytes) -> None:
    tail = tail_of(*(event.replace(b"\n", end) for event in events))
    assert tail.facts().usage == Usage(10, 20, cost=CostAmount(Decimal("0.25")))


@pytest.mark.parametrize("usage", [{"prompt_tokens": -1}, {"cost": -1}, "much", [], {"prompt_tokens": "10"}])
def test_usage_that_makes_no_sense_is_no_usage_of_a_stream(usage: Any) -> None:
    facts = tail_of(delta("x", "stop"), event(choices=[], usage=usage), DONE).facts()
    assert facts.usage is None
    assert facts.finish_reason == "stop"


def test_only_null_usage_is_none() -> None:
    assert tail_of(delta("x", usage=None), DONE).facts().usage is None


def test_usage_is_read_also_without_done() -> None:
    assert tail_of(delta("x"), event(choices=[], usage=USAGE)).facts().usage is not None


def test_an_unfinished_event_tells_nothing() -> None:
    tail = tail_of(delta("x"), event(choices=[], usage=USAGE)[:-1])
    assert tail.facts().usage is None
    assert tail.facts().model == "z-ai/glm-4.6"


def test_facts_follow_what_comes() -> None:
    tail = tail_of(delta("x"))
    assert tail.facts().usage is None
    tail.feed(event(choices=[], usage=USAGE))
    assert tail.facts().usage is not None


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_other_framings(end: bytes) -> None:
    stream = b"".join([delta("x"), b": ping\n\n", event(choices=[], usage=USAGE), DONE]).replace(b"\n", end)
    facts = tail_of(stream).facts()
    assert facts.usage is not None
    assert facts.generation_id == "gen-1"


def test_lone_surrogates_and_large_integers_in_chunks() -> None:
    usage = b'{"prompt_tokens": 9007199254740993, "completion_tokens": 1, "cost": 0.1234567890123456789}'
    chunk = rb'data: {"choices": [{"delta": {"content": "\ud83d"}}], "usage": ' + usage + b"}\n\n"
    facts = tail_of(chunk, DONE).facts()
    assert facts.usage == Usage(2**53 + 1, 1, cost=CostAmount(Decimal("0.1234567890123456789")))


@pytest.mark.parametrize(
    "junk",
    [
        b"data: {half\n\n",
        b"data: \xff\n\n",
        b"data: 5\n\n",
        b"data: [1]\n\n",
        b"event: ping\n\n",
        b'data: {"id": 7}\n\n',
    ],
)
def test_events_that_are_no_chunks_are_passed_over(junk: bytes) -> None:
    facts = tail_of(delta("x", "stop"), event(choices=[], usage=USAGE), junk, DONE).facts()
    assert facts.usage is not None
    assert facts.finish_reason == "stop"


def test_an_error_event_is_a_fact() -> None:
    error = {"code": 502, "message": "provider disconnected"}
    facts = tail_of(delta("x"), delta("", "error", error=error)).facts()
    assert facts.error_message == "provider disconnected"
    assert facts.finish_reason == "error"


@pytest.mark.parametrize("error", [{"code": 1}, {"message": None}, {"message": ""}])
def test_an_error_event_without_a_message_is_still_an_error(error: dict[str, Any]) -> None:
    assert tail_of(event(error=error)).facts().error_message == "unspecified error"


@pytest.mark.parametrize("error", [None, {}, "", False])
def test_an_empty_error_in_a_chunk_is_none(error: Any) -> None:
    assert tail_of(delta("x", error=error)).facts().error_message is None


# The window


def filler(length: int) -> bytes:
    """A comment event of exactly that many bytes."""
    return b":" + b"x" * (length - 3) + b"\n\n"


def test_an_error_is_a_fact_also_when_the_stream_goes_on_to_its_end() -> None:
    ending = [delta("", "stop"), event(id="gen-1", model="m", choices=[], usage=USAGE), DONE]
    facts = tail_of(delta("Hi"), event(id="gen-1", error={"message": "provider gone"}, choices=[]), *ending).facts()
    assert (facts.error_message, facts.finish_reason) == ("provider gone", "stop")
    quoted = tail_of(delta('he said "error": {"message": "x"}'), *ending).facts()
    assert quoted.error_message is None


def test_facts_in_the_last_16_kib_are_seen() -> None:
    usage = event(choices=[], usage=USAGE)
    assert tail_of(usage, filler(TAIL_BYTES - len(usage))).facts().usage is not None
    assert tail_of(usage, *(filler(KIBIBYTE) for _ in range(15))).facts().usage is not None


def test_usage_is_seen_however_long_the_answer_before_it_was() -> None:
    reads = [filler(KIBIBYTE)] * 100
    assert tail_of(*reads, event(choices=[], usage=USAGE), DONE).facts().usage is not None


def test_a_last_read_longer_than_the_window_is_kept_whole() -> None:
    assert tail_of(filler(10), event(choices=[], usage=USAGE) + filler(100 * KIBIBYTE)).facts().usage is not None


def test_what_is_long_past_is_forgotten() -> None:
    """The memory of a stream is bounded: 200 of them at once must not keep all they relay."""
    assert tail_of(event(choices=[], usage=USAGE), *[filler(KIBIBYTE)] * 64).facts().usage is None


# Estimates


@pytest.mark.parametrize(
    ("texts", "tokens"), [([], 0), (["abc"], 0), (["Test"], 1), (["Hello", " world"], 2), (["ab", "", None, "cd"], 1)]
)
def test_output_is_estimated_from_the_text_that_was_relayed(texts: list[str | None], tokens: int) -> None:
    assert tail_of(*(delta(text) for text in texts)).estimated_output_tokens() == tokens


@pytest.mark.parametrize(
    "wrote",
    [
        {"reasoning": "abcd", "content": "efgh"},
        {"reasoning_content": "abcd", "content": "efgh"},
        {"reasoning_content": "abcd", "reasoning": "abcd", "content": "efgh"},
        {"refusal": "abcdefgh", "content": None},
        {
            "tool_calls": [
                {"index": 0, "function": {"name": "abcd", "arguments": "{"}},
                {"function": {"arguments": "}} "}},
            ]
        },
        {"tool_calls": [{"function": {"name": "a", "arguments": {"b": 1}}}]},
        {"function_call": {"name": "abcd", "arguments": "efgh"}},
    ],
)
def test_all_that_the_model_wrote_counts(wrote: dict[str, Any]) -> None:
    """An answer of nothing but a call, or of reasoning by DeepSeek's name, is not free."""
    assert tail_of(event(choices=[{"delta": wrote}])).estimated_output_tokens() == 2
    assert WholeAnswer(answer(choices=[{"message": wrote}])).estimated_output_tokens() == 2


@pytest.mark.parametrize(
    "odd",
    [
        {"tool_calls": 5},
        {"tool_calls": [5, None, {}, {"function": []}, {"function": {"name": 5, "arguments": None}}]},
        {"function_call": "f", "reasoning_content": ["a"], "refusal": 1},
    ],
)
def test_what_is_no_text_counts_nothing(odd: dict[str, Any]) -> None:
    assert WholeAnswer(answer(choices=[{"message": {**odd, "content": "abcd"}}])).estimated_output_tokens() == 1


def test_every_choice_counts() -> None:
    chunk = event(choices=[{"index": 0, "delta": {"content": "abcd"}}, {"index": 1, "delta": {"content": "efgh"}}])
    assert tail_of(chunk).estimated_output_tokens() == 2


@pytest.mark.parametrize("choices", [None, [], [{}], [{"delta": None}], [{"delta": {}}], [{"delta": {"content": 5}}]])
def test_chunks_without_text_count_nothing(choices: Any) -> None:
    assert tail_of(event(choices=choices)).estimated_output_tokens() == 0


def test_what_left_the_window_is_counted_by_proportion() -> None:
    chunk = delta("x" * 400)
    assert tail_of(*[chunk] * 1000).estimated_output_tokens() == 100_000


EVENTS = [
    delta("Hi"),
    delta("", "stop"),
    delta(None, "length", error=None),
    delta("x", usage={"prompt_tokens": 10, "completion_tokens": 5}),
    delta("so", native_finish_reason="x").replace(b"\n", b"\r\n"),
    event(id="gen-2", model="m", choices=[], usage=USAGE),
    event(id="gen-2", model="m", choices=[], usage={"prompt_tokens": -1}),
    event(id=7, model="", usage={"prompt_tokens": "x"}, choices=None),
    event(id="gen-3", error={"message": "no more"}),
    event(id="gen-4", choices=[{"delta": {}, "finish_reason": None}, {"delta": {}, "finish_reason": "stop"}]),
    event(id="gen-5", choices=[{"delta": {}, "finish_reason": "stop"}, {"delta": {}, "finish_reason": "error"}]),
    event(id="gen-6", choices=[{"delta": {}, "error": {"message": "no more"}}]),
    b": a comment\n\n",
    b": a comment\ndata: {}\n\n",
    b"data:{}\n\n",
    b"data: {\n\n",
    b"data: \xff\n\n",
    b"event: x\ndata: {}\n\n",
    b"\n",
    b"{} \n\n",
    DONE,
]


@_property
@given(st.lists(st.sampled_from(EVENTS), max_size=6), st.sampled_from([b"", b"data: {", DONE]))
def test_the_short_way_to_what_a_stream_says_leads_to_the_same(events: list[bytes], rest: bytes) -> None:
    text = b"".join(events) + rest
    assert tail_of(text).facts() == StreamTail.read_carefully(text)
