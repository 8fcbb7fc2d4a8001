"""An application with a provider of its own, whose spans go to a receiver of the tests.

OpenTelemetry takes one provider a process; so it stays, and its spans go to the receiver that is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from tests.support.otlp import Receiver


class _Switch(SpanExporter):
    to: SpanExporter | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS if self.to is None else self.to.export(spans)


_switch = _Switch()
_provider: TracerProvider | None = None


@contextmanager
def application(receiver: Receiver) -> Iterator[trace.Tracer]:
    """The tracer of an application that exports to a receiver at once."""
    global _provider
    if _provider is None:
        _provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
        _provider.add_span_processor(SimpleSpanProcessor(_switch))
        trace.set_tracer_provider(_provider)
    _switch.to = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{receiver.port}/v1/traces")
    try:
        yield trace.get_tracer("shop")
    finally:
        _switch.to = None
