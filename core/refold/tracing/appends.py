"""Spans of appends, whose events take the trace with them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from refold.tracing import environment
from refold.tracing.attributes import error_type, fail, messaging, remote
from refold.tracing.context import Context, sampled
from refold.tracing.provider import tracer

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Appending:
    """The span of an append, as a context manager; this class is the one of an append without a span.

    Args:
        traceparent: what the log's trigger is to record; empty: nothing.
    """

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str = "") -> None:
        self.traceparent = traceparent

    def __enter__(self) -> Appending:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.end(error=error)

    def answered(self, counts: Mapping[str, int]) -> None:
        """Note how many events were answered with something else than `accepted`, by answer."""

    def end(self, *, error: BaseException | None = None) -> None:
        """End the span."""


class _Recorded(Appending):
    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        at = span.get_span_context()
        super().__init__(Context(at.trace_id, at.span_id, 0).traceparent if at.trace_flags.sampled else "")
        self._span = span

    def answered(self, counts: Mapping[str, int]) -> None:
        for answer, events in counts.items():
            if answer != "accepted":
                self._span.set_attribute(f"refold.{answer}", events)

    def end(self, *, error: BaseException | None = None) -> None:
        if error is not None:
            fail(self._span, error_type(error))
        self._span.end()


NOT_TRACED = Appending()


def appending(events: int, given: str | None = None) -> Appending:
    """Return the span of an append, begun.

    It is a PRODUCER span if its parent is sampled, or if REFOLD_TRACE_ROOTS is set: bulk loads outside any trace would
    flood a backend.

    Args:
        events: how many are appended.
        given: the traceparent that came with them; None: the current context is the parent.
    """
    if not environment.ON and "opentelemetry.trace" not in sys.modules:
        return NOT_TRACED
    from opentelemetry import trace

    if given is None:
        parent = trace.get_current_span()
    else:
        creator = sampled(given)
        parent = trace.INVALID_SPAN if creator is None else trace.NonRecordingSpan(remote(creator))
    at = parent.get_span_context()
    comes_in = at.is_valid and at.trace_flags.sampled
    if comes_in or environment.ROOTS:
        span = tracer().start_span(
            "append events",
            trace.set_span_in_context(parent),
            trace.SpanKind.PRODUCER,
            {**messaging("append", "send", "events"), "messaging.batch.message_count": events},
        )
        if span.is_recording():
            return _Recorded(span)
    # Without an SDK the context passes through.
    return Appending(Context(at.trace_id, at.span_id, 0).traceparent) if comes_in else NOT_TRACED
