"""Spans of what is no page, in which others may be made: loads, audits, scrubs, deliveries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from refold.tracing import environment
from refold.tracing.attributes import error_type, fail, messaging
from refold.tracing.context import Moment
from refold.tracing.provider import tracer

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanKind


@dataclass(slots=True)
class Work:
    """A span of other work, while it runs.

    Args:
        keep: whether it is worth a span: it found something, failed, or a person asked for it.
    """

    keep: bool = False
    _span: Span | None = field(default=None, repr=False)

    def note(self, **attributes: str | int) -> None:
        """Add attributes, under the prefix `refold.`."""
        if self._span is not None:
            self._span.set_attributes({f"refold.{name}": value for name, value in attributes.items()})


@contextmanager
def work(operation: str, subject: str, *, keep: bool = True, **attributes: str | int) -> Iterator[Work]:
    """Run a block as a span, in which further ones may be made.

    A span that nobody ends is never exported: so it is decided at the end whether this one is.

    Args:
        operation: `load`, `audit`, `heal`, `scrub` or `deliver`.
        subject: the projection, the sink, or the log.
        keep: whether it is worth a span whatever comes; `Work.keep` can be set later.
        attributes: further ones, under the prefix `refold.`.
    """
    if not environment.ON:
        yield Work()
        return
    from opentelemetry import trace

    began = Moment.now()
    kind, shared = _of_work(operation, subject)
    span = tracer().start_span(
        f"{operation} {subject}",
        kind=kind,
        attributes={**shared, **{f"refold.{name}": value for name, value in attributes.items()}},
        start_time=began.wall_ns,
    )
    made = Work(keep, span)
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield made
    except BaseException as error:
        made.keep = True
        fail(span, error_type(error))
        raise
    finally:
        spent = began.since()
        if made.keep or environment.ALL or spent > environment.SLOW_S * 1e9:
            span.end(began.wall_ns + spent)


def _of_work(operation: str, subject: str) -> tuple[SpanKind, dict[str, str]]:
    from opentelemetry.trace import SpanKind

    if operation == "deliver":
        return SpanKind.PRODUCER, messaging(operation, "send", subject)
    return SpanKind.INTERNAL, {"refold.projection": subject} if operation != "scrub" else {}


def current() -> str:
    """Return the current context as a traceparent, sampled or not, for a request; empty if there is none."""
    if not environment.ON:
        return ""
    from opentelemetry import trace

    at = trace.get_current_span().get_span_context()
    return f"00-{at.trace_id:032x}-{at.span_id:016x}-{int(at.trace_flags):02x}" if at.is_valid else ""
