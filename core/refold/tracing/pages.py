"""Spans of what a page, or the release of a dead letter, did: its own, and one in the trace of each event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refold.tracing import environment
from refold.tracing.attributes import Attributes, error_type, fail, messaging, remote
from refold.tracing.context import Context, Moment
from refold.tracing.provider import tracer

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span

LINKS = 128
"""Most links of a span: what OpenTelemetry allows by default."""
CONTEXTS = 1000
"""Most contexts whose events get spans of their own from one page: half of what the exporter's queue holds."""


@dataclass(frozen=True, slots=True)
class Consumed:
    """What a page, or the release of a dead letter, did.

    Args:
        operation: `apply` or `release`.
        projection: the metric.
        stream: what it reads.
        attributes: further ones, for all its spans.
        events: rows of the stream.
        contexts: the sampled traces that these come from.
        each: whether their events get spans in their own traces.
        more: whether there are further contexts, without links and spans.
        dead_letters: events that failed.
    """

    operation: str
    projection: str
    stream: str
    attributes: Attributes
    events: int
    contexts: Sequence[Context] = ()
    each: bool = True
    more: bool = False
    dead_letters: int = 0


def consumed(began: Moment, what: Consumed, error: BaseException | None = None) -> None:
    """Make the spans of something that is committed, or has failed: its own, and one in the trace of each event.

    Its own is the root of a trace, for its events come from many; it links to the first LINKS of their contexts. There
    is none if no event is in a sampled trace, nothing failed, and it was not slow.

    Args:
        began: its beginning.
        what: what it did.
        error: why it failed.
    """
    if not environment.ON:
        return
    spent = began.since()
    failed = error is not None or what.dead_letters > 0
    asked = what.operation == "release" or environment.ALL
    if not (what.contexts or failed or asked or spent > environment.SLOW_S * 1e9):
        return
    from opentelemetry import trace

    spans = tracer()
    ended_ns = began.wall_ns + spent
    name = f"{what.operation} {what.projection}"
    shared = {
        **messaging(what.operation, "process", what.stream),
        "messaging.consumer.group.name": what.projection,
        **what.attributes,
    }
    own = {"refold.further_traces": True} if what.more else {}

    def span(
        parent: Span, links: Sequence[Link], more: Attributes, events: int, dead_letters: int, error: str | None
    ) -> Span:
        made = spans.start_span(
            name,
            trace.set_span_in_context(parent),
            trace.SpanKind.CONSUMER,
            {**shared, **more, "messaging.batch.message_count": events},
            links,
            began.wall_ns,
        )
        if dead_letters:
            made.set_attribute("refold.dead_letters", dead_letters)
        if error is not None:
            fail(made, error)
        made.end(ended_ns)
        return made

    links = [trace.Link(remote(one)) for one in what.contexts[:LINKS]]
    failure = None if error is None else error_type(error)
    page = span(trace.INVALID_SPAN, links, own, what.events, what.dead_letters, failure)
    if not what.each:
        return
    back = [trace.Link(page.get_span_context())] if page.get_span_context().is_valid else []
    for one in what.contexts:
        span(trace.NonRecordingSpan(remote(one)), back, {}, one.events, one.dead_letters, one.error)
