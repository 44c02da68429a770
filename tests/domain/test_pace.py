"""When new requests are let in more slowly, and how slowly."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.domain.overload import Pace
from proxy.domain.rate_limits import Priority

MANY = 10_000


def observed(pace: Pace, turns: Iterable[tuple[float, float]]) -> Pace:
    """Having seen turns, each with the moment of its end and its length in seconds."""
    for now, seconds in turns:
        pace.observe(seconds, now)
    return pace


def late_again_and_again(pace: Pace, since: float = 0.0) -> Pace:
    return observed(pace, [(since + number * 0.05, 0.03) for number in range(5)])


def test_one_long_turn_is_no_overload() -> None:
    pace = observed(Pace(0.02), [(1.0, 0.001), (1.5, 0.5), (1.52, 0.001), (1.7, 0.001), (2.5, 0.4)])
    assert not pace.is_on
    assert pace.allows(MANY, Priority.LOW)


def test_long_turns_again_and_again_are() -> None:
    pace = late_again_and_again(Pace(0.02))
    assert pace.is_on
    assert not pace.allows(MANY, Priority.HIGH)


def test_one_very_long_turn_is_if_a_crowd_made_it() -> None:
    pace = Pace(0.02)
    pace.observe(0.09, 1.0, is_crowd=True)
    assert not pace.is_on
    pace.observe(0.11, 1.01, is_crowd=True)
    assert pace.is_on


def test_a_turn_that_others_made_long_takes_little_of_the_limit() -> None:
    pace = late_again_and_again(Pace(0.02))
    pace.learn(0.5, was_limited=False)
    assert pace.allows(50, Priority.NORMAL)


def test_short_turns_between_long_ones_do_not_make_up_for_them() -> None:
    """Requests go through the loop in waves."""
    turns = [(number * 0.01, 0.03 if number % 6 == 0 else 0.0001) for number in range(30)]
    assert observed(Pace(0.02), turns).is_on


def test_turns_so_long_that_few_are_seen_are() -> None:
    assert observed(Pace(0.02), [(0.4, 0.3), (0.8, 0.3)]).is_on


def test_it_is_over_when_turns_have_been_short_for_two_seconds() -> None:
    pace = late_again_and_again(Pace(0.02))
    assert observed(pace, [(2.0, 0.001)]).is_on
    assert not observed(pace, [(2.3, 0.001)]).is_on
    assert pace.allows(MANY, Priority.LOW)


def test_without_a_target_no_turn_is_too_long() -> None:
    assert not late_again_and_again(Pace(0.0)).is_on


def test_the_limit_follows_what_new_requests_do_to_the_turns() -> None:
    """Turns of which each request takes 2 ms: there is room for ten within 20 ms."""
    pace = late_again_and_again(Pace(0.02))
    limits = []
    for _ in range(60):
        begun = next(count for count in range(MANY) if not pace.allows(count, Priority.NORMAL))
        pace.learn(begun * 0.002, was_limited=True)
        limits.append(begun)
    assert min(limits[10:]) >= 9
    assert max(limits[10:]) <= 12


def test_what_was_not_limited_says_nothing_about_the_limit() -> None:
    pace = late_again_and_again(Pace(0.02))
    for _ in range(100):
        pace.learn(0.001, was_limited=False)
    assert not pace.allows(MANY, Priority.HIGH)


def test_nobody_begins_while_turns_are_long_without_them() -> None:
    """Open streams alone can take all the time there is."""
    pace = late_again_and_again(Pace(0.02))
    for _ in range(30):
        pace.learn(0.2, was_limited=True)
    assert not pace.allows(0, Priority.HIGH)
    pace.learn(0.001, was_limited=True)
    assert pace.allows(0, Priority.LOW)
    assert not pace.allows(1, Priority.NORMAL)


def test_those_of_low_priority_are_refused_first_and_those_of_high_last() -> None:
    pace = late_again_and_again(Pace(0.02))
    pace.limit = 10.0
    most = {priority: next(count for count in range(MANY) if not pace.allows(count, priority)) for priority in Priority}
    assert most == {Priority.LOW: 5, Priority.NORMAL: 10, Priority.HIGH: 20}
