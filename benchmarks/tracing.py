"""Traces: what the log's trigger costs an append without one, and what a sampled trace costs an append.

Each pair of appends is made one right after the other, in an order drawn by lot, over one connection to each database.
The baseline of the first figure is a database whose trigger lacks the lines about traces.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from statistics import median

import psycopg
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.report import Figure
from benchmarks.rounds import paired
from benchmarks.server import Server
from refold import append
from refold.postgres.connect import connection
from refold.store.schema.resources import sql_dir

PAIRS = 3_000
"""Pairs of single appends."""
BULK, BULK_PAIRS = 1_000, 60
"""Events of a large append, and pairs of those."""

_LINES = re.compile(r"    -- The context \(W3C.*?    END IF;\n(?=    RETURN NULL;)", re.DOTALL)


def measure(server: Server, events: int) -> list[Figure]:
    """The cost of the trigger, of a sampled append, and of a large one."""
    pairs = max(200, min(PAIRS, events // 300))
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    with server.database("tracing") as url, server.database("tracing_before") as before:
        _without_traces(before)
        with (
            connection(url, "refold_producer", autocommit=True) as conn,
            connection(before, "refold_producer", autocommit=True) as other,
        ):
            make = _Events()
            off = paired(pairs, lambda: append(conn, make(1)), lambda: append(other, make(1)))
            tracer = trace.get_tracer("benchmarks")

            def sampled(number: int) -> Callable[[], object]:
                def act() -> object:
                    with tracer.start_as_current_span("caller"):
                        return append(conn, make(number))

                return act

            def beside(number: int) -> Callable[[], object]:
                def act() -> object:
                    # The caller has its span in any case.
                    with tracer.start_span("caller"):
                        return append(conn, make(number))

                return act

            on = paired(pairs, sampled(1), beside(1))
            exporter.clear()
            bulk = paired(BULK_PAIRS, sampled(BULK), beside(BULK))
    provider.shutdown()
    return [
        _figure("append of one event without a trace, against a trigger that knows none", off, at_least=0.99),
        Figure(
            "tracing",
            "more for an append of one event in a sampled trace",
            median((one - two) * 1000 for one, two in on),
            "ms",
            at_most=0.10,
        ),
        _figure(f"append of {BULK:,} events in a sampled trace, against none", bulk, at_least=0.99),
    ]


class _Events:
    """Makes new events."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, number: int) -> list[dict[str, object]]:
        start, self._number = self._number, self._number + number
        return [
            {"id": f"e{n}", "user_id": f"u{n % 1000}", "action": "view", "ts": 1_700_000_000_000 + n}
            for n in range(start, self._number)
        ]


def _without_traces(url: str) -> None:
    text = (sql_dir() / "functions" / "register_event_ids.sql").read_text()
    former, replaced = _LINES.subn("", text)
    assert replaced == 1, "the lines about traces have changed"
    with psycopg.connect(url) as conn:
        conn.execute("SET ROLE refold_owner")
        conn.execute(former.encode())


def _figure(what: str, found: list[tuple[float, float]], *, at_least: float) -> Figure:
    # The median of differences: pairs that a checkpoint met would move a median of ratios.
    baseline = median(two for _, two in found)
    more = median(one - two for one, two in found)
    return Figure(
        "tracing", what, (baseline + more) * 1000, "ms", baseline * 1000, baseline / (baseline + more), at_least
    )
