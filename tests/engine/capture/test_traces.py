"""Changes of a captured table in a sampled trace."""

from __future__ import annotations

from tests.support.capturing import ORDERS, Captured, Connection
from tests.support.otlp import trace_id, traceparent


def test_events_of_a_captured_table_are_part_of_the_trace(captured: Captured, admin: Connection) -> None:
    captured.deploy(orders=ORDERS)
    with admin.transaction():
        admin.execute("SELECT set_config('refold.traceparent', %s, true)", (traceparent(5),))
        admin.execute("INSERT INTO shop.orders (id, status) SELECT n, 'new' FROM generate_series(1, 3) AS n")
        admin.execute("UPDATE shop.orders SET status = 'paid' WHERE id = 2")
    admin.execute("UPDATE shop.orders SET status = 'sent'")
    rows = admin.execute("SELECT trace_id::text, events FROM refold.traces ORDER BY position").fetchall()
    assert [(trace.replace("-", ""), events) for trace, events in rows] == [(trace_id(5), 3), (trace_id(5), 1)]
