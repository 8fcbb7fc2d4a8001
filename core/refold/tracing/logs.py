"""Log records that say in which span they were written, as attributes `trace_id` and `span_id`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def records_in_spans() -> Iterator[None]:
    """Let the log records of this process name the current span in a block, in lower-case hex; empty if there is none.

    A factory and no filter: whatever handlers there are, their records have it.
    """
    from opentelemetry import trace

    before = logging.getLogRecordFactory()

    def made(*args: object, **named: object) -> logging.LogRecord:
        record = before(*args, **named)
        at = trace.get_current_span().get_span_context()
        record.trace_id = f"{at.trace_id:032x}" if at.is_valid else ""
        record.span_id = f"{at.span_id:016x}" if at.is_valid else ""
        return record

    logging.setLogRecordFactory(made)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)
