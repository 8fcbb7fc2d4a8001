"""Running totals: exact, whatever order transactions end in, and never less than before, whatever is deleted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from refold import append
from refold.exporter.readings import Readings, read
from refold.model.quantiles import EDGES, Histogram, bucket, edge
from refold.postgres.connect import connection
from refold.service.duties import prune_statistics, retention
from refold.service.duties import totals as duty
from refold.store import totals
from refold.store.builds.compiled import Compiler
from tests.support.counting import count_everything
from tests.support.law import worker_connection
from tests.support.live import SHOP, drain
from tests.support.making import events
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]
NOBODYS = Compiler(None)


@pytest.fixture
def worker(database_url: str) -> Any:
    with worker_connection(database_url) as conn:
        yield conn


def total(conn: Connection) -> int:
    row = conn.execute("SELECT refold.events_total()").fetchone()
    assert row is not None
    return int(row[0])


def counted(conn: Connection) -> int:
    row = conn.execute("SELECT events FROM refold.counted_events").fetchone()
    assert row is not None
    return int(row[0])


def test_events_are_counted_once_whatever_order_transactions_end_in(
    worker: Connection, producers: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "EVENTS", 3)
    early, late = producers(), producers()
    append(early, events(10, "early"))
    append(late, events(5, "late"))
    late.commit()
    assert total(worker) == 5
    totals.count_events(worker)
    assert (counted(worker), total(worker)) == (5, 5)
    early.commit()
    assert (counted(worker), total(worker)) == (5, 15)
    append(late, events(4, "then"))
    late.rollback()
    append(late, events(2, "more"))
    late.commit()
    for _ in range(3):
        totals.count_events(worker)
        assert (counted(worker), total(worker)) == (17, 17)


def test_a_run_that_is_cut_short_goes_on(
    worker: Connection, producer: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "EVENTS", 4)
    monkeypatch.setattr(totals, "COUNTING_S", 0.0)
    append(producer, events(10))
    producer.commit()
    seen = []
    for number in range(6):
        totals.count_events(worker)
        seen.append(counted(worker))
        append(producer, events(1, f"more{number}-"))
        producer.commit()
        assert total(worker) == 11 + number
    assert seen[:3] == [4, 8, 10]


def test_at_rest_nothing_is_written(worker: Connection, producer: Connection) -> None:
    append(producer, events(3))
    producer.commit()
    duty.run(worker, NOBODYS)
    duty.run(worker, NOBODYS)
    before = worker.execute("SELECT xmin FROM refold.counted_events").fetchall()
    marks = worker.execute("SELECT xmin FROM refold.total_marks ORDER BY what").fetchall()
    duty.run(worker, NOBODYS)
    assert worker.execute("SELECT xmin FROM refold.counted_events").fetchall() == before
    assert worker.execute("SELECT xmin FROM refold.total_marks ORDER BY what").fetchall() == marks


def test_a_log_that_was_there_before_is_estimated_and_not_read(
    worker: Connection, admin: Connection, producer: Connection
) -> None:
    append(producer, events(7))
    producer.commit()
    admin.execute("UPDATE refold.counted_events SET done = NULL")
    assert worker.execute("SELECT refold.events_total()").fetchone() == (None,)
    totals.count_events(worker)
    assert total(worker) == 7
    append(producer, events(3, "new"))
    producer.commit()
    totals.count_events(worker)
    assert total(worker) == 10


def test_after_a_restore_the_number_does_not_fall(worker: Connection, admin: Connection, producer: Connection) -> None:
    append(producer, events(7))
    producer.commit()
    admin.execute("UPDATE refold.counted_events SET events = 1000")
    with worker.transaction():
        totals.forget_cursor(worker)
    totals.count_events(worker)
    assert total(worker) == 1000


def test_a_record_of_a_transaction_that_is_still_open_is_not_passed(
    worker: Connection, connect: Connect, admin: Connection
) -> None:
    insert = "INSERT INTO refold.rejected (source, line, answer, reason, raw) VALUES ('x', %s, 'invalid', 'x', 'x')"
    other = connect()
    other.execute(insert, (1,))
    admin.execute(insert, (2,))
    for _ in range(3):
        totals.count_records(worker)
    assert admin.execute("SELECT FROM refold.totals").rowcount == 0
    other.commit()
    count_everything(worker)
    assert admin.execute("SELECT what, kind, number FROM refold.totals").fetchall() == [("rejected", "invalid", 2)]


def test_many_records_are_counted_in_portions(
    worker: Connection, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "MOST_RECORDS", 4)
    admin.execute(
        "INSERT INTO refold.rejected (source, line, answer, reason, raw)"
        " SELECT 'x', n, CASE WHEN n % 2 = 0 THEN 'invalid' ELSE 'conflict' END, 'x', 'x' FROM generate_series(1, 11) n"
    )
    sums = [0]

    def all_counted() -> bool:
        totals.count_records(worker)
        sums.append(sum(number for _, number in admin.execute("SELECT kind, number FROM refold.totals").fetchall()))
        return sums[-1] == 11

    wait_until(all_counted)
    assert max(after - before for before, after in pairwise(sums)) == 4
    assert admin.execute("SELECT kind, number FROM refold.totals ORDER BY 1").fetchall() == [
        ("conflict", 6), ("invalid", 5),
    ]  # fmt: skip


def test_histograms_count_exactly_at_their_edges() -> None:
    counts = dict.fromkeys(range(bucket(1e-6), bucket(10_000)), 1)
    found = Histogram.of(counts)
    for place, number in enumerate(EDGES):
        assert sum(found.counts[: place + 1]) == sum(1 for one in counts if one <= number)
        assert edge(number) == pytest.approx(2.0 ** (place - 10), rel=0.021)
    assert sum(found.counts) == len(counts)
    assert found + Histogram() == found


def scrape(url: str) -> Readings:
    with connection(url, "refold_observer", autocommit=True) as conn:
        return read(conn)


def numbers(found: Readings) -> dict[tuple[str, ...], float]:
    """Everything in a scrape that must never fall."""
    counters: dict[tuple[str, ...], float] = {("events",): float(found.events or 0)}
    for what, projection, kind, number in found.totals:
        counters[what, projection, kind] = number
    for (projection, stage), one in found.latencies.items():
        counters["seconds", projection, stage] = one.seconds
        for place in range(len(one.counts)):
            counters["latency", projection, stage, str(place)] = sum(one.counts[: place + 1])
    for build in found.builds:
        counters["applied", build.projection] = build.applied_events
        counters["pages", build.projection] = build.applied_pages
    return counters


ACTS = st.sampled_from(
    ["append", "apply", "duplicates", "reject", "heal", "incident", "measure", "count", "prune", "retain", "age"]
)
AGE = timedelta(days=31)


@pytest.mark.slow
@pytest.mark.live("shop")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(ACTS, min_size=4, max_size=30))
def test_no_counter_falls_whatever_is_tidied(
    database_url: str, worker: Connection, admin: Connection, acts: list[str]
) -> None:
    """A month of tidying in any order with all that is counted."""
    admin.execute(
        "UPDATE refold.settings SET latency_days = 30, rejected_days = 30, repair_days = 30, incident_days = 30"
    )
    before = numbers(scrape(database_url))
    for act in acts:
        _do(act, database_url, worker, admin)
        now = numbers(scrape(database_url))
        fallen = {key: (value, now.get(key)) for key, value in before.items() if now.get(key, -1) < value - 1e-6}
        assert fallen == {}, act
        before = now
    # What was counted is all that there was.
    for _ in range(2):
        duty.run(worker, NOBODYS)
    row = admin.execute("SELECT count(*) FROM refold.events").fetchone()
    assert row is not None and numbers(scrape(database_url))["events",] == row[0]


_MADE = iter(range(10**9))


def _do(act: str, url: str, worker: Connection, admin: Connection) -> None:
    number = next(_MADE)
    match act:
        case "append":
            with psycopg.connect(url) as conn:
                append(conn, events(5, f"made{number}-"))
        case "apply":
            drain(url, SHOP)
        case "duplicates":
            with psycopg.connect(url) as conn:
                append(conn, events(2, "again"))
            admin.execute("UPDATE refold.duplicates SET at = at - interval '2 minutes'")
        case "reject":
            admin.execute(
                "INSERT INTO refold.rejected (source, line, answer, reason, raw)"
                " VALUES ('x', %s, 'conflict', 'x', 'x')",
                (number,),
            )
        case "heal":
            admin.execute(
                "INSERT INTO refold.repairs (build_id, projection, relation, kind, key)"
                " SELECT build_id, projection, 'x', 'drifted', '{}' FROM refold.builds WHERE projection = 'daily'"
            )
        case "incident":
            admin.execute(
                "INSERT INTO refold.incidents (kind, subject, started_at, detected_by, resolved_at, resolved_by)"
                " VALUES ('lag', %s, now(), 'x', clock_timestamp() + interval '1 s', 'x')",
                (str(number),),
            )
        case "measure":
            admin.execute(
                """
                INSERT INTO refold.latencies AS l (minute, build_id, stage, bucket, events)
                SELECT date_trunc('minute', now()) - m * interval '1 minute', build_id, stage, b, 1
                FROM refold.builds, unnest('{waiting,applying,fresh}'::text[]) AS stage,
                     generate_series(-100, 120, 37) AS b, generate_series(0, 3) AS m
                WHERE m = 0 OR NOT EXISTS (SELECT FROM refold.total_marks WHERE what = 'latencies')
                ON CONFLICT (minute, build_id, stage, bucket) DO UPDATE SET events = l.events + 1
                """
            )
        case "count":
            duty.run(worker, NOBODYS)
        case "prune":
            prune_statistics.run(worker, NOBODYS)
        case "retain":
            retention.run(worker, NOBODYS)
        case "age":
            _age(admin)


def _age(admin: Connection) -> None:
    """Lets a month pass, for all that has a time, the mark of the minutes included."""
    # By way of another table: in between, two minutes might be the same.
    with admin.transaction():
        admin.execute("CREATE TEMP TABLE aged ON COMMIT DROP AS SELECT * FROM refold.latencies")
        admin.execute("DELETE FROM refold.latencies")
        admin.execute(
            "INSERT INTO refold.latencies SELECT minute - %s, build_id, stage, bucket, events FROM aged", (AGE,)
        )
    for table, *columns in (
        ("duplicates", "at"), ("rejected", "first_seen", "last_seen"),
        ("repairs", "repaired_at"), ("incidents", "started_at", "detected_at", "resolved_at"),
    ):  # fmt: skip
        changes = sql.SQL(", ").join(sql.SQL("{0} = {0} - %(age)s").format(sql.Identifier(one)) for one in columns)
        admin.execute(sql.SQL("UPDATE refold.{} SET {}").format(sql.Identifier(table), changes), {"age": AGE})
    admin.execute(
        "UPDATE refold.total_marks SET upto = upto - %s WHERE what = 'latencies'", (AGE // timedelta(minutes=1),)
    )
