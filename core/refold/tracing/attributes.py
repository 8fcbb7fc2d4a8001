"""The attributes that refold's spans share, and what another span is to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from refold.tracing.context import Context

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

Attributes = Mapping[str, str | int | float | bool]


def messaging(operation: str, kind: str, destination: str) -> dict[str, str]:
    """Return the attributes of the conventions for messaging.

    Args:
        operation: what is done, as refold calls it.
        kind: its kind, as the conventions call it.
        destination: the stream.
    """
    return {
        "messaging.system": "refold",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": destination,
    }


def remote(context: Context) -> SpanContext:
    """Return a context as that of a span elsewhere."""
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(context.trace_id, context.span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def fail(span: Span, error: str) -> None:
    """Mark a span as failed.

    Args:
        span: not ended yet.
        error: its type, see `error_type`.
    """
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", error)
    # Without a description: the text of an error may repeat a part of an event.
    span.set_status(Status(StatusCode.ERROR))


def error_type(error: BaseException) -> str:
    """Return the SQLSTATE of an error of PostgreSQL, and the name of the class of any other."""
    return getattr(error, "sqlstate", None) or type(error).__name__
