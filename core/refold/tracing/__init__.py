"""Traces: the names and attributes of refold's spans (OpenTelemetry), and the provider of refold's own programs.

refold's programs trace if the extra `otel` is installed and OTEL_TRACES_EXPORTER, or an endpoint of OTLP, is set;
`environment.ON` says so. In an application that appends events, the application's provider counts. Else no function
here does anything.

Spans of pages are made once the page is committed, with explicit times: a page that was rolled back has none, and it is
known by then whether the page is worth one. The conventions are those for messaging; attributes hold names and
numbers, never an event, a key, or the text of an error.
"""

from refold.tracing import environment
from refold.tracing.appends import NOT_TRACED, Appending, appending
from refold.tracing.attributes import error_type
from refold.tracing.context import Context, Moment, sampled
from refold.tracing.other_work import Work, current, work
from refold.tracing.pages import CONTEXTS, LINKS, Consumed, consumed
from refold.tracing.provider import exporting

__all__ = [
    "CONTEXTS", "LINKS", "NOT_TRACED", "Appending", "Consumed", "Context", "Moment", "Work", "appending", "consumed",
    "current", "environment", "error_type", "exporting", "sampled", "work",
]  # fmt: skip
