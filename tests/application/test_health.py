"""What a gateway of several workers says of its health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.application.health import merged
from proxy.application.siblings import NoSiblings

Report = dict[str, Any]
LOAD = {
    "in_flight": 1,
    "most_in_flight": 10,
    "connections": 2,
    "most_connections": 100,
    "is_late": False,
    "refused": {"late": 0, "queued": 0, "in_flight": 0, "connections": 0},
}
LEDGER = {
    "can_book": True,
    "booked_rows": 5,
    "waiting_rows": 1,
    "oldest_waiting_seconds": 0.2,
    "spool_bytes": 4096,
    "set_aside_rows": 0,
    "last_error": None,
    "sync_error": None,
}
DEPLOYMENT = {
    "provider": "up",
    "circuit_breaker": "closed",
    "consecutive_failures": 0,
    "retry_after_seconds": None,
    "drained": False,
    "in_flight": 1,
    "queued": 0,
    "success_rate": None,
    "last_error": None,
    "last_error_seconds_ago": None,
    "time_to_first_byte_seconds": {"streams": None, "whole_answers": None},
    "cooling_down_seconds": {},
}
LIMITS = {
    "mode": "shared",
    "valkey": "up",
    "last_error": None,
    "local_processes": 2,
    "counted": 3,
    "waiting": 1,
    "untold": 0,
}
CONFIGURATION: Report = {"file": "a.yaml", "version": "one", "loaded_at": "12:00:00", "problems": [], "failed_at": None}
STORE = {"mode": "on", "waiting": 1, "dropped": 2, "last_error": None}
SAID: Report = {
    "status": "ok",
    "version": "1.0",
    "uptime_seconds": 1.0,
    "problems": [],
    "database": {"status": "up", "kind": "sqlite", "last_error": None},
    "ledger": LEDGER,
    "limits": LIMITS,
    "idempotency": {"mode": "files", "running": 1, "held_bytes": 10, "last_error": None},
    "load": LOAD,
    "providers": {"up": {"healthy": True, "last_checked_at": "12:00:10"}},
    "deployments": {"up/m": DEPLOYMENT},
    "recent_calls": {"up/m": 0},
    "gives_way": False,
    "configuration": CONFIGURATION,
    "payloads": STORE,
    "traces": {"mode": "off"},
    "metrics": {"llmgateway_unpriced_requests": 1},
}


class Known(NoSiblings):
    """Siblings that say this."""

    def __init__(self, reports: Sequence[Mapping[str, Any]], expected: int | None = None) -> None:
        self._reports = reports
        self._expected = len(reports) if expected is None else expected

    def reports(self) -> Sequence[Mapping[str, Any]]:
        return self._reports

    def expected(self) -> int:
        return self._expected


def report(**parts: Any) -> Report:
    """SAID, but for these parts, or for what is said in them."""
    return {
        **SAID,
        **{name: {**SAID[name], **part} if isinstance(part, dict) else part for name, part in parts.items()},
    }


def whole(*reports: Report) -> Report:
    """What the first of them says of all, and each of the others would as well, but for the order."""
    numbered = [{"pid": pid, **each} for pid, each in enumerate(reports)]
    there_should_be = sum(not each["gives_way"] for each in reports) or len(reports)
    told = [
        merged(
            {name: value for name, value in mine.items() if name != "pid"},
            Known([other for other in numbered if other is not mine], there_should_be - 1),
            mine["pid"],
        )
        for mine in numbered
    ]
    problems = {frozenset(each.pop("problems")) for each in told[1:]} | {frozenset(told[0]["problems"])}
    assert len(problems) == 1
    assert all({**each, "problems": told[0]["problems"]} == told[0] for each in told[1:])
    return told[0]


def deployed(*states: tuple[int, Mapping[str, Any]]) -> Report:
    """One deployment of which workers say this, of the last so many calls."""
    reports = [
        report(deployments={"up/m": {**DEPLOYMENT, **state}}, recent_calls={"up/m": calls}) for calls, state in states
    ]
    found: Report = whole(*reports)["deployments"]["up/m"]
    return found


def test_alone_it_says_what_it_knows() -> None:
    shown = {name: value for name, value in SAID.items() if name not in ("recent_calls", "gives_way")}
    assert merged(SAID, NoSiblings(), 1) == shown


def test_of_others_nothing_is_told_that_it_does_not_say_of_itself() -> None:
    told = merged(SAID, Known([{"pid": 7, "order": 3, "written_at": 1.0, **SAID}]), 1)
    assert told.keys() == (SAID.keys() | {"workers"}) - {"recent_calls", "gives_way"}


def test_the_worst_of_all_counts_and_problems_are_told_once() -> None:
    told = whole(
        report(problems=["a"]),
        report(status="degraded", problems=["a", "b"]),
        report(status="unavailable", problems=["a"], uptime_seconds=9.0),
    )
    assert (told["status"], told["problems"], told["uptime_seconds"]) == ("unavailable", ["a", "b"], 9.0)
    assert [(each["pid"], each["status"], each["problems"]) for each in told["workers"]] == [
        (0, "ok", ["a"]),
        (1, "degraded", ["a", "b"]),
        (2, "unavailable", ["a"]),
    ]


def test_who_is_not_heard_of_is_missed() -> None:
    told = merged(report(), Known([], expected=1), 6)
    assert (told["status"], told["problems"]) == ("degraded", ["1 of 2 workers are not heard of"])
    assert (told["load"], told["ledger"]) == (LOAD, LEDGER)
    assert len(told["workers"]) == 1
    assert merged(report(status="unavailable"), Known([], expected=1), 6)["status"] == "unavailable"
    assert SAID["problems"] == []


ENDING: Report = {"status": "unavailable", "problems": ["ending"], "gives_way": True}


def test_who_ends_for_others_counts_but_does_not_make_the_gateway_ill() -> None:
    told = whole(report(**ENDING, load={"in_flight": 3}), report(), report(status="degraded", problems=["a"]))
    assert (told["status"], told["problems"]) == ("degraded", ["a"])
    assert (told["load"]["in_flight"], told["ledger"]["booked_rows"]) == (5, 15)
    assert [(each["pid"], each["status"], each["problems"]) for each in told["workers"]] == [
        (0, "unavailable", ["ending"]),
        (1, "ok", []),
        (2, "degraded", ["a"]),
    ]
    alone = whole(report(**ENDING), report(**ENDING))
    assert (alone["status"], alone["problems"]) == ("unavailable", ["ending"])


def test_who_ends_for_others_is_none_of_those_that_there_should_be() -> None:
    ending, staying = {"pid": 7, **report(**ENDING)}, {"pid": 8, **report()}
    told = merged(report(), Known([ending], expected=1), 6)
    assert (told["status"], told["problems"]) == ("degraded", ["1 of 2 workers are not heard of"])
    assert merged(report(), Known([ending, staying], expected=1), 6)["status"] == "ok"
    # Who has just been told to end does not know its successors yet.
    assert merged(report(**ENDING), Known([staying], expected=1), 6)["status"] == "ok"
    told = merged(report(**ENDING), Known([ending], expected=1), 6)
    assert (told["status"], told["problems"]) == ("unavailable", ["ending"])


def test_load_is_summed_and_late_if_one_worker_is() -> None:
    refused = {"late": 4, "queued": 0, "in_flight": 1, "connections": 0}
    told = whole(report(), report(load={"in_flight": 2, "is_late": True, "refused": refused}), report())
    assert told["load"] == {
        "in_flight": 4,
        "most_in_flight": 30,
        "connections": 6,
        "most_connections": 300,
        "is_late": True,
        "refused": refused,
    }
    assert [each["load"]["in_flight"] for each in told["workers"]] == [1, 2, 1]


def test_the_ledger_books_if_every_worker_does() -> None:
    failing = {
        "can_book": False,
        "waiting_rows": 7,
        "oldest_waiting_seconds": 3.5,
        "set_aside_rows": 1,
        "last_error": "OSError",
        "sync_error": "Input/output error",
    }
    told = whole(report(), report(ledger=failing, database={"status": "down", "last_error": "TimeoutError"}))
    assert told["ledger"] == {**failing, "booked_rows": 10, "waiting_rows": 8, "spool_bytes": 8192}
    assert told["database"] == {"status": "down", "kind": "sqlite", "last_error": "TimeoutError"}
    assert whole(report(), report())["ledger"]["can_book"] is True
    assert [each["ledger"]["can_book"] for each in told["workers"]] == [True, False]


def test_a_deployments_places_are_summed_and_success_is_weighed_by_calls() -> None:
    told = deployed(
        (98, {"success_rate": 1.0, "in_flight": 3, "queued": 2}),
        (2, {"success_rate": 0.5, "drained": True}),
        (0, {"cooling_down_seconds": {"m": 4.0}}),
    )
    assert (told["in_flight"], told["queued"], told["success_rate"], told["drained"]) == (5, 2, 0.99, True)
    assert told["cooling_down_seconds"] == {"m": 4.0}
    assert told.keys() == DEPLOYMENT.keys()
    assert deployed((0, {}), (0, {})) == {**DEPLOYMENT, "in_flight": 2}


def test_a_worker_of_an_older_version_does_not_say_of_how_many_calls_it_tells_or_whether_it_gives_way() -> None:
    older = {name: value for name, value in SAID.items() if name not in ("recent_calls", "gives_way")}
    told = merged(SAID, Known([{"pid": 7, **older}]), 1)
    assert (len(told["workers"]), told["load"]["in_flight"]) == (2, 2)


def test_of_breakers_the_worst_is_told_and_of_errors_the_last() -> None:
    half_open = {"circuit_breaker": "half_open", "consecutive_failures": 9}
    told = deployed(
        (1, {"consecutive_failures": 4, "last_error": "timeout", "last_error_seconds_ago": 2.0}),
        (1, {"circuit_breaker": "open", "consecutive_failures": 5, "retry_after_seconds": 8.0}),
        (1, {**half_open, "last_error": "refused", "last_error_seconds_ago": 1.0}),
    )
    assert (told["circuit_breaker"], told["consecutive_failures"], told["retry_after_seconds"]) == ("open", 5, 8.0)
    assert (told["last_error"], told["last_error_seconds_ago"]) == ("refused", 1.0)
    failing = deployed((0, {}), (1, {"consecutive_failures": 2}))
    assert (failing["circuit_breaker"], failing["consecutive_failures"]) == ("closed", 2)


def test_waits_are_those_of_the_worker_that_waits_longest() -> None:
    told = deployed(
        (1, {"time_to_first_byte_seconds": {"streams": 0.2, "whole_answers": None}, "cooling_down_seconds": {"m": 2}}),
        (1, {"time_to_first_byte_seconds": {"streams": 0.5, "whole_answers": 1.0}, "cooling_down_seconds": {"m": 3}}),
    )
    assert told["time_to_first_byte_seconds"] == {"streams": 0.5, "whole_answers": 1.0}
    assert told["cooling_down_seconds"] == {"m": 3}


def test_a_deployment_that_only_some_know_is_told_as_they_know_it() -> None:
    """For a second after a reload."""
    new = {"up/m": DEPLOYMENT, "up/new": {**DEPLOYMENT, "in_flight": 7}}
    changed = report(
        deployments=new,
        recent_calls={"up/m": 0, "up/new": 0},
        configuration={"version": "two", "loaded_at": "12:00:05"},
    )
    told = whole(report(), changed)
    assert told["deployments"]["up/new"] == new["up/new"]
    assert told["configuration"]["version"] == "two"
    assert [each["configuration"] for each in told["workers"]] == [{"version": "one"}, {"version": "two"}]


def test_a_configuration_that_one_worker_could_not_load_is_told() -> None:
    told = whole(report(), report(configuration={"problems": ["line 1: no"], "failed_at": "12:00:09"}))
    assert told["configuration"] == {**CONFIGURATION, "problems": ["line 1: no"], "failed_at": "12:00:09"}


def test_a_provider_is_as_well_as_the_worst_that_was_seen_of_it() -> None:
    def told(*seen: tuple[bool | None, str | None]) -> Report:
        states = [{"up": {"healthy": healthy, "last_checked_at": at}} for healthy, at in seen]
        found: Report = whole(*(report(providers=each) for each in states))["providers"]["up"]
        return found

    assert told((True, "12:00:10"), (False, "12:00:05")) == {"healthy": False, "last_checked_at": "12:00:05"}
    assert told((True, "12:00:10"), (True, "12:00:20")) == {"healthy": True, "last_checked_at": "12:00:20"}
    assert told((None, None), (True, "12:00:01")) == {"healthy": True, "last_checked_at": "12:00:01"}
    assert told((None, None), (None, None)) == {"healthy": None, "last_checked_at": None}


def test_the_other_parts_are_of_all_workers_too() -> None:
    alone = {"mode": "local", "valkey": "down", "last_error": "ConnectionError", "untold": 4}
    lost = {"mode": "memory", "last_error": "ConnectionError"}
    told = whole(report(), report(limits=alone, idempotency=lost, payloads={"last_error": "DataError"}))
    assert told["limits"] == {**LIMITS, **alone, "counted": 6, "waiting": 2}
    assert told["idempotency"] == {"mode": "memory", "running": 2, "held_bytes": 20, "last_error": "ConnectionError"}
    assert told["payloads"] == {"mode": "on", "waiting": 2, "dropped": 4, "last_error": "DataError"}
    assert told["traces"] == {"mode": "off"}
    assert told["metrics"] == {"llmgateway_unpriced_requests": 2}
