"""Who ends and who is missing while new workers take the places of old ones."""

from __future__ import annotations

from proxy.server.succession import Step, Succession

OLD = [1, 2]


def replacing() -> Succession:
    succession = Succession()
    succession.begin(OLD)
    return succession


def test_as_many_are_started_as_there_should_be() -> None:
    succession = Succession()
    assert succession.look([], [], 2) == Step(missing=2)
    assert succession.look([1], [], 2) == Step(missing=1)
    assert succession.look(OLD, OLD, 2) == Step()
    assert succession.look(OLD, OLD, 1) == Step(ends=[1])


def test_old_ones_end_once_and_only_when_all_that_replace_them_serve() -> None:
    succession = replacing()
    assert succession.look([*OLD, 3, 4], OLD, 2) == Step()
    assert succession.look([*OLD, 3, 4], [*OLD, 4], 2) == Step()
    assert succession.is_under_way
    assert succession.look([*OLD, 3, 4], [*OLD, 3, 4], 2) == Step(ends=OLD)
    assert not succession.is_under_way
    assert succession.look([3, 4], [3, 4], 2) == Step()


def test_a_new_one_that_is_gone_is_replaced_if_another_serves() -> None:
    succession = replacing()
    assert succession.look([*OLD, 3], OLD, 2) == Step()  # it may be that none can
    assert succession.look([*OLD, 3], [*OLD, 3], 2) == Step(missing=1)
    assert succession.look([*OLD, 3, 5], [*OLD, 3], 2) == Step()
    assert succession.look([*OLD, 3, 5], [*OLD, 3, 5], 2) == Step(ends=OLD)
    assert succession.look([3], [3], 2) == Step(missing=1)


def test_old_ones_stay_if_no_new_one_can_serve() -> None:
    succession = replacing()
    assert succession.look(OLD, OLD, 2) == Step()
    assert not succession.is_under_way
    assert succession.look([2], [2], 2) == Step(missing=1)
