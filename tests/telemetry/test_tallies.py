"""What is summed beside Prometheus's objects arrives in them, and labels stay bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from benchmarks.metrics_cost import booked_exchanges
from proxy.infrastructure.telemetry.metrics.instruments import Instruments
from proxy.infrastructure.telemetry.metrics.recorder import Recorder
from proxy.infrastructure.telemetry.metrics.tallies import OTHER, BatchHistogram, KnownValues, Spread, Tally

BOUNDS = (0.1, 0.5, 2.0)
LABELS = st.sampled_from([("a",), ("b",)])


def samples(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    found = {}
    for metric in registry.collect():
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                found[(sample.name, *sample.labels.values())] = round(sample.value, 9)
    return found


@given(st.lists(st.one_of(st.none(), st.tuples(LABELS, st.floats(0, 3)))))
def test_sums_are_what_the_library_would_have_counted(events: list[tuple[tuple[str], float] | None]) -> None:
    """None is a flush. Bounds belong to the bucket below them."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    spread = Spread(BatchHistogram("h", "x", ["l"], registry=ours, buckets=BOUNDS), BOUNDS)
    tally = Tally(Counter("c", "x", ["l"], registry=ours))
    histogram = Histogram("h", "x", ["l"], registry=theirs, buckets=BOUNDS)
    counter = Counter("c", "x", ["l"], registry=theirs)
    for event in [*events, (("a",), 0.5), None]:
        if event is None:
            spread.flush()
            tally.flush()
            continue
        labels, value = event
        spread.observe(labels, value)
        tally.add(labels, value)
        histogram.labels(*labels).observe(value)
        counter.labels(*labels).inc(value)
    assert samples(ours) == samples(theirs)


def test_values_beyond_the_bound_are_other() -> None:
    known = KnownValues(2)
    assert [known(value) for value in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]
    assert known.word("b") == "b"
    assert [KnownValues(9).word(value) for value in ("", "two words", "é", "x" * 65, "http_500")] == [
        OTHER,
        OTHER,
        OTHER,
        OTHER,
        "http_500",
    ]


def test_a_configuration_that_changes_for_ever_makes_no_series_for_ever() -> None:
    """Each request is for a model that nobody has heard of before."""
    registry, new_names = CollectorRegistry(), iter(range(10_000))
    recorder = Recorder(Instruments(registry), lambda _model: f"model-{next(new_names)}")
    exchanges = booked_exchanges(20)
    for _ in range(50):
        for exchange in exchanges:
            recorder.settled(exchange)
        recorder.fold()
    counted = {key: value for key, value in samples(registry).items() if key[0] == "llmgateway_requests_total"}
    assert sum(counted.values()) == 1000
    assert len({model for _name, model, *_ in counted}) == 501
