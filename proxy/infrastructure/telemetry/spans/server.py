"""Spans over OpenTelemetry: of requests, and the end of those of the calls that were made for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from multidict import MultiMapping
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy.application.observing import word_for
from proxy.domain.request_log import RequestLog
from proxy.infrastructure.telemetry.spans import names

_FIRST_SERVER_ERROR = 500
W3C = TraceContextTextMapPropagator()


class _Headers(Getter[Mapping[str, str]]):
    """`tracestate` may come in several headers."""

    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        if isinstance(carrier, MultiMapping):
            return list(carrier.getall(key, ())) or None
        return [carrier[key]] if key in carrier else None

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        return list(carrier)


_HEADERS = _Headers()


class RequestSpan:
    """ServerSpan."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def answered(self, status: int, request_id: str, row: RequestLog | None) -> None:
        span = self._span
        span.set_attributes({names.HTTP_STATUS: status, names.REQUEST_ID: request_id})
        failure = str(status) if status >= _FIRST_SERVER_ERROR else None
        if row is not None:
            span.set_attributes({names.OUTCOME: row.status.value, names.ATTEMPTS: row.attempts})
            if row.requested_model is not None:
                span.set_attribute(names.REQUEST_MODEL, row.requested_model)
            if (cost := row.cost()) is not None:
                span.set_attribute(names.COST_USD, float(cost.usd))
            if row.error_type is not None:
                failure = row.error_type
        if failure is not None:
            span.set_attribute(names.ERROR_TYPE, failure)
        if status >= _FIRST_SERVER_ERROR or (row is not None and row.status.is_broken):
            span.set_status(Status(StatusCode.ERROR))


class OtelSpans:
    """Spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def serving(self, method: str, route: str | None, headers: Mapping[str, str]) -> Iterator[RequestSpan]:
        known = method if method in names.METHODS else names.OTHER_METHOD
        attributes = {names.HTTP_METHOD: known} | ({} if route is None else {names.HTTP_ROUTE: route})
        span = self._tracer.start_span(
            f"{known if known != names.OTHER_METHOD else 'HTTP'} {route or ''}".rstrip(),
            context=W3C.extract(headers, getter=_HEADERS),
            kind=SpanKind.SERVER,
            attributes=attributes,
        )
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield RequestSpan(span)
            except BaseException as error:
                fail(span, word_for(error))
                raise


def fail(span: Span, reason: str) -> None:
    """Note that what the span is of has failed; `reason` is a short stable word."""
    span.set_attribute(names.ERROR_TYPE, reason)
    span.set_status(Status(StatusCode.ERROR))
