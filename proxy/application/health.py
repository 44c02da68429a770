"""One health report of a gateway whose workers each have one of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from proxy.application.siblings import Siblings

_Report = Mapping[str, Any]
_Rule = Callable[[Sequence[Any]], Any]
"""Makes one value of the workers', of which the first is that of the worker that is asked."""
_UNTOLD: Final = ("recent_calls", "gives_way")


def merged(own: _Report, siblings: Siblings, pid: int) -> dict[str, Any]:
    """A worker's report as that of the whole gateway, and in `workers` what each says of itself alone.

    Counts are summed, and of states the worst is told. How well the gateway is, only those say that stay, if there are
    any. `recent_calls`, which success rates are weighed by, and `gives_way` are left out.
    """
    shown = [name for name in own if name not in _UNTOLD]
    reports = [{"pid": pid, **own}, *siblings.reports()]
    staying = [each for each in reports if not _gives_way(each)] or reports
    heard = reports if _gives_way(own) else staying  # who has just been told to end may not know its successors yet
    missing = max(0, siblings.expected() + 1 - len(heard))
    if len(reports) == 1 and not missing:
        return {name: own[name] for name in shown}
    whole = _WHOLE([{**each, "deployments": _weighed(each)} for each in reports])
    whole |= _STATE([{name: each[name] for name in ("status", "problems")} for each in staying])
    if missing:
        whole["status"] = _STATUS([whole["status"], "degraded"])
        whole["problems"].append(f"{missing} of {siblings.expected() + 1} workers are not heard of")
    workers = sorted(map(_alone, reports), key=lambda each: int(each["pid"]))
    return {**{name: whole[name] for name in shown}, "workers": workers}


def anybody_stays(siblings: Siblings) -> bool:
    """Whether there is another worker that does not end for those that take its place."""
    return not all(map(_gives_way, siblings.reports()))


def _gives_way(report: _Report) -> bool:
    return bool(report.get("gives_way", False))


def _alone(report: _Report) -> dict[str, Any]:
    told = {name: report[name] for name in ("pid", "status", "problems", "uptime_seconds", "load", "ledger")}
    return {**told, "configuration": {"version": report["configuration"]["version"]}}


def _weighed(report: _Report) -> dict[str, _Report]:
    """The deployments, each with the number of calls that its success rate is of; older versions do not tell it."""
    calls = report.get("recent_calls", {})
    return {name: {**state, "recent_calls": calls.get(name, 0)} for name, state in report["deployments"].items()}


def _first(values: Sequence[Any]) -> Any:
    return values[0]


def _known(values: Sequence[Any]) -> Any:
    """The first that there is."""
    return next((each for each in values if each is not None), None)


def _most(values: Sequence[Any]) -> Any:
    """Of those that there are."""
    return max((each for each in values if each is not None), default=None)


def _all_of(lists: Sequence[Sequence[str]]) -> list[str]:
    """What several say is told once."""
    return list(dict.fromkeys(chain.from_iterable(lists)))


def _worst(*from_good_to_bad: str | None) -> _Rule:
    return lambda values: max(values, key=from_good_to_bad.index)


def _by_name(otherwise: _Rule = _first, **rules: _Rule) -> _Rule:
    """Merges mappings name by name. A name that only some of them have is told as these have it."""

    def merge(mappings: Sequence[_Report]) -> dict[str, Any]:
        gathered: dict[str, list[Any]] = {}
        for name, value in chain.from_iterable(each.items() for each in mappings):
            gathered.setdefault(name, []).append(value)
        return {name: rules.get(name, otherwise)(values) for name, values in gathered.items()}

    return merge


def _provider(states: Sequence[_Report]) -> dict[str, Any]:
    """The worst that was seen, when it was seen last."""
    from_good_to_bad = (None, True, False)
    worst = max(states, key=lambda each: (from_good_to_bad.index(each["healthy"]), each["last_checked_at"] or ""))
    return dict(worst)


def _deployment(states: Sequence[_Report]) -> dict[str, Any]:
    """Places and queues are each worker's own, as are breakers: the one that is worst off is told, as it is."""
    whole: dict[str, Any] = _PLACES(states)
    worst = max(states, key=_trouble)
    failed = min(states, key=lambda each: (each["last_error"] is None, each["last_error_seconds_ago"]))
    whole |= {name: worst[name] for name in ("circuit_breaker", "consecutive_failures", "retry_after_seconds")}
    whole |= {name: failed[name] for name in ("last_error", "last_error_seconds_ago")}
    calls = whole.pop("recent_calls")
    answered = sum((each["success_rate"] or 0) * each["recent_calls"] for each in states)
    return {**whole, "success_rate": round(answered / calls, 3) if calls else None}


def _trouble(state: _Report) -> tuple[int, int, float]:
    """How badly off a worker's breaker is."""
    place = ("closed", "half_open", "open").index(state["circuit_breaker"])
    return place, state["consecutive_failures"], state["retry_after_seconds"] or 0


def _configuration(states: Sequence[_Report]) -> dict[str, Any]:
    """The one that was loaded last."""
    newest = max(states, key=lambda each: each["loaded_at"] or "")
    return {
        **newest,
        "problems": _all_of([each["problems"] for each in states]),
        "failed_at": _most([each["failed_at"] for each in states]),
    }


_STATUS: Final = _worst("ok", "degraded", "unavailable")
_STORE: Final = _by_name(sum, mode=_first, last_error=_known)
_PLACES: Final = _by_name(
    drained=any,
    in_flight=sum,
    queued=sum,
    recent_calls=sum,
    time_to_first_byte_seconds=_by_name(_most),
    cooling_down_seconds=_by_name(max),
)
_STATE: Final = _by_name(status=_STATUS, problems=_all_of)
_WHOLE: Final = _by_name(
    uptime_seconds=max,
    database=_by_name(status=_worst("up", "down"), last_error=_known),
    ledger=_by_name(sum, can_book=all, oldest_waiting_seconds=max, last_error=_known, sync_error=_known),
    limits=_by_name(
        sum,
        mode=_worst("shared", "local"),
        valkey=_worst(None, "up", "down"),
        last_error=_known,
        local_processes=max,
    ),
    idempotency=_by_name(sum, mode=_worst("valkey", "files", "memory"), last_error=_known),
    load=_by_name(sum, is_late=any, refused=_by_name(sum)),
    providers=_by_name(_provider),
    deployments=_by_name(_deployment),
    configuration=_configuration,
    payloads=_STORE,
    traces=_STORE,
    metrics=_by_name(sum),
)
