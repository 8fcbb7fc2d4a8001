"""Fault 16: events that are late by days to years, or come from the future."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.reconcile.reconcile import reconcile
from refold.postgres.connect import connect as connect_as
from tests.support.live import SHOP, drain, make_live, wrong

Connection = psycopg.Connection[Any]
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
INSTANTS = [
    NOW,
    NOW - timedelta(minutes=1),
    NOW - timedelta(days=3),
    NOW - timedelta(days=400),
    NOW - timedelta(days=20 * 365),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    NOW + timedelta(days=1),
    NOW + timedelta(days=50 * 365),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
]


@pytest.mark.slow
def test_they_count_where_they_belong_whenever_they_come(
    database_url: str, producers: Callable[..., Connection], conn: Connection
) -> None:
    conn.autocommit = True
    make_live(database_url)
    producer = producers()
    arrival = [*INSTANTS, *reversed(INSTANTS)]
    for number, ts in enumerate(arrival):
        event = {"id": f"e{number}", "user_id": f"u{number % 2}", "action": ("purchase", "view")[number % 2], "ts": ts}
        append(producer, [event])
        producer.commit()
        drain(database_url)
    assert wrong(database_url) == {}
    days = conn.execute("SELECT DISTINCT day::text FROM metrics.daily ORDER BY 1").fetchall()
    assert days == [
        (ts.date().isoformat(),)
        for ts in sorted({ts.replace(hour=0, minute=0, second=0, microsecond=0) for ts in INSTANTS})
    ]
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        assert reconcile(worker, SHOP).drift == 0
        for since in (NOW, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)):
            assert reconcile(worker, SHOP, since=since).drift == 0
