"""The duty that watches series: what it counts, and what becomes an incident."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from refold.model.anomaly.backfills import backfill_days
from refold.model.anomaly.delays import BUCKET
from refold.service.duties import anomalies
from refold.service.duties.anomalies import run
from refold.service.duties.watch import days as watched_days
from refold.service.duties.watch import events as counted_events
from refold.store import series as store
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident, resolve
from refold.store.log.append import append
from tests.support.blocks import touched
from tests.support.watching import put_history

Connection = psycopg.Connection[Any]
Incidents = Callable[[str], list[Incident]]
ACTIONS = {"view": 300.0, "cart": 60.0, "purchase": 25.0}
TODAY = datetime.now(UTC).date()


def work(conn: Connection) -> None:
    run(conn, Compiler(None))


def an_hour_later(conn: Connection) -> None:
    """Runs the duty again, as if another hour were over."""
    conn.execute("UPDATE refold.watch SET judged_until = NULL")
    work(conn)


def silent(incidents: Incidents) -> list[str]:
    """Return the series of incidents of silence; the day in which it began may be unusual too."""
    return [one.evidence["series"] for one in incidents("anomaly") if one.subject.startswith("silence")]


def values(conn: Connection) -> dict[str, float]:
    return dict(
        conn.execute(
            "SELECT s.kind || ':' || s.name, sum(v.value) FROM refold.series AS s"
            " JOIN refold.series_values AS v USING (series_id) GROUP BY 1"
        ).fetchall()
    )


def events(first: int, number: int, action: str, at: datetime, **metadata: str) -> list[dict[str, Any]]:
    return [
        {"id": f"{action}-{one}", "action": action, "ts": at.isoformat(), "metadata": metadata}
        for one in range(first, first + number)
    ]


def test_an_empty_log_has_no_series(worker: Connection, incidents: Incidents) -> None:
    work(worker)
    work(worker)
    assert (store.every(worker), incidents("anomaly")) == ([], [])


def test_each_event_is_counted_once_by_action_and_source(worker: Connection, admin: Connection) -> None:
    now = datetime.now(UTC)
    append(admin, events(0, 5, "before", now))
    work(worker)
    append(admin, events(0, 7, "view", now, source="shop"))
    work(worker)
    append(admin, events(7, 2, "view", now, source="shop"))
    append(admin, events(0, 3, "buy", now))
    work(worker)
    work(worker)
    assert values(worker) == {"all:": 12, "action:view": 9, "action:buy": 3, "source:shop": 9, "source:": 3}


def test_an_event_of_a_transaction_that_was_open_is_counted_when_it_commits(
    worker: Connection, admin: Connection, connect: Callable[..., Connection]
) -> None:
    work(worker)
    late = connect()
    late.autocommit = False
    now = datetime.now(UTC)
    append(late, events(0, 1, "late", now))
    append(admin, events(0, 2, "view", now))
    work(worker)
    assert values(worker)["all:"] == 2
    late.commit()
    work(worker)
    assert values(worker)["all:"] == 3


def test_pages_count_all_events(worker: Connection, admin: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted_events, "PAGE", 10)
    work(worker)
    for part in range(4):
        append(admin, events(part * 9, 9, "view", datetime.now(UTC)))
    work(worker)
    assert values(worker)["action:view"] == 36


def test_a_backfilled_year_is_old_and_says_nothing(worker: Connection, admin: Connection, incidents: Incidents) -> None:
    put_history(admin, ACTIONS, days=80)
    worker.execute("UPDATE refold.series SET judged_on = NULL")
    begin = datetime.now(UTC) - timedelta(days=365)
    for day in range(0, 365, 5):
        append(admin, events(day * 10, 10, "purchase", begin + timedelta(days=day)))
    work(worker)
    counts = values(worker)
    assert counts["old:"] >= 720
    assert incidents("anomaly") == []


@pytest.mark.parametrize("times", [0.0, 0.5, 3.0])
def test_an_unusual_day_is_an_incident_that_ends_with_the_next_usual_one(
    worker: Connection, admin: Connection, incidents: Incidents, times: float
) -> None:
    yesterday = TODAY - timedelta(days=1)
    put_history(
        admin,
        ACTIONS,
        days=85,
        change=lambda name, at, count: round(count * times) if (name, at.date()) == ("cart", yesterday) else count,
    )
    work(worker)
    opened = [one for one in incidents("anomaly") if one.subject.startswith("series")]
    assert [one.evidence["series"] for one in opened] == ["action:cart"]
    assert opened[0].evidence["day"] == yesterday.isoformat()
    assert opened[0].resolved_at is None
    # Nothing is judged twice.
    resolve(worker, "anomaly", opened[0].subject, by="a person")
    worker.execute("UPDATE refold.series_values SET value = value * 9 WHERE at >= now() - interval '36 hours'")
    work(worker)
    assert all(one.resolved_at is not None for one in incidents("anomaly") if one.subject.startswith("series"))


def test_an_incident_ends_by_itself_when_the_series_is_back(
    worker: Connection, admin: Connection, incidents: Incidents
) -> None:
    put_history(admin, ACTIONS, days=85)
    [cart] = [one for one in store.every(worker) if one.name == "cart"]
    worker.execute(
        "INSERT INTO refold.incidents (kind, subject, started_at, detected_by, evidence)"
        " VALUES ('anomaly', %s, now() - interval '1 day', 'anomalies', '{}')",
        (f"series {cart.series_id}",),
    )
    work(worker)
    [one] = [one for one in incidents("anomaly") if one.subject == f"series {cart.series_id}"]
    assert one.resolved_by == anomalies.NAME


def test_silence_is_an_incident_and_ends_with_the_first_event(
    worker: Connection, admin: Connection, incidents: Incidents
) -> None:
    since = datetime.now(UTC) - timedelta(hours=9)
    put_history(
        admin, ACTIONS, days=80, change=lambda name, at, count: 0 if name == "purchase" and at > since else count
    )
    work(worker)
    assert silent(incidents) == ["action:purchase"]
    [one] = [one for one in incidents("anomaly") if one.subject.startswith("silence")]
    assert one.resolved_at is None
    assert one.started_at > since - timedelta(hours=3)
    worker.execute(
        "INSERT INTO refold.series_values SELECT series_id, date_trunc('hour', now() - interval '70 minutes', 'UTC'), 5"
        " FROM refold.series WHERE name = 'purchase'"
        " ON CONFLICT ON CONSTRAINT series_values_pkey DO UPDATE SET value = 5"
    )
    an_hour_later(worker)
    [one] = [one for one in incidents("anomaly") if one.subject.startswith("silence")]
    assert one.resolved_by == anomalies.NAME


def test_what_is_judged_is_read_once_an_hour_and_history_only_of_what_is_silent(
    worker: Connection, admin: Connection, connect: Callable[..., Connection], incidents: Incidents
) -> None:
    """Not every minute, nor more with every event that was ever counted."""
    since = datetime.now(UTC) - timedelta(hours=9)
    actions = {f"action-{number}": 30.0 for number in range(12)}
    put_history(
        admin, actions, days=70, change=lambda name, at, count: 0 if name == "action-7" and at > since else count
    )
    admin.execute("VACUUM ANALYZE refold.series_values, refold.series")
    (table,) = admin.execute("SELECT pg_relation_size('refold.series_values') / 8192").fetchone() or (0,)
    with connect(autocommit=True) as watch:

        def hour() -> datetime | None:
            marks = store.marks(worker)
            return None if marks is None else marks.hour

        work(worker)
        append(admin, events(0, 3, "action-3", datetime.now(UTC)))
        work(worker)
        before = hour()
        at_rest = touched(watch, worker, lambda: work(worker))
        if hour() != before:
            # An hour was over just then.
            at_rest = touched(watch, worker, lambda: work(worker))
        hourly = touched(watch, worker, lambda: an_hour_later(worker))
    assert silent(incidents) == ["action:action-7"]
    assert "series_values" not in at_rest
    assert sum(at_rest.values()) < 200, at_rest
    assert 0 < hourly["series_values"] < table / 2, (hourly, table)


def test_a_series_that_is_new_makes_nobody_judge_a_day_again(
    worker: Connection, admin: Connection, incidents: Incidents
) -> None:
    put_history(admin, ACTIONS, days=85)
    work(worker)
    worker.execute("UPDATE refold.series_values SET value = value * 9 WHERE at >= now() - interval '36 hours'")
    append(admin, events(0, 3, "new", datetime.now(UTC)))
    work(worker)
    assert "action:new" in {one.title for one in store.every(worker)}
    assert incidents("anomaly") == []


def test_a_clock_that_was_a_year_ahead_has_judged_no_silence_of_today(
    worker: Connection, admin: Connection, incidents: Incidents
) -> None:
    since = datetime.now(UTC) - timedelta(hours=9)
    put_history(admin, ACTIONS, days=80, change=lambda name, at, count: 0 if name == "cart" and at > since else count)
    worker.execute("UPDATE refold.watch SET judged_until = now() + interval '1 year'")
    work(worker)
    assert silent(incidents) == ["action:cart"]


def test_a_muted_series_opens_nothing_and_a_budget_of_nothing_neither(
    worker: Connection, admin: Connection, incidents: Incidents, limit: Callable[..., None]
) -> None:
    yesterday = TODAY - timedelta(days=1)
    put_history(
        admin, ACTIONS, days=85, change=lambda name, at, count: 0 if (name, at.date()) == ("cart", yesterday) else count
    )
    cart = store.known(worker, "action:cart")
    store.mute(worker, cart.series_id, datetime.now(UTC) + timedelta(days=1))
    work(worker)
    assert incidents("anomaly") == []
    store.mute(worker, cart.series_id, None)
    limit(anomaly_budget=0)
    worker.execute("UPDATE refold.series SET judged_on = NULL")
    work(worker)
    assert incidents("anomaly") == []
    limit(anomaly_budget=1)
    worker.execute("UPDATE refold.series SET judged_on = NULL")
    work(worker)
    assert len(incidents("anomaly")) == 1


def test_a_new_series_only_learns(worker: Connection, admin: Connection, incidents: Incidents) -> None:
    yesterday = TODAY - timedelta(days=1)
    put_history(admin, ACTIONS, days=26, change=lambda name, at, count: 0 if at.date() >= yesterday else count)
    work(worker)
    assert incidents("anomaly") == []
    assert {one.learns_until for one in store.every(worker)} == {TODAY + timedelta(days=2)}


def test_a_clock_that_was_a_year_ahead_stops_nothing(
    worker: Connection, admin: Connection, incidents: Incidents
) -> None:
    yesterday = TODAY - timedelta(days=1)
    put_history(
        admin, ACTIONS, days=85, change=lambda name, at, count: 0 if (name, at.date()) == ("cart", yesterday) else count
    )
    worker.execute("UPDATE refold.series SET judged_on = %s", (TODAY + timedelta(days=365),))
    work(worker)
    assert [one.evidence["series"] for one in incidents("anomaly")] == ["action:cart"]


def test_the_series_are_bounded_and_a_flood_of_names_takes_no_place(worker: Connection, admin: Connection) -> None:
    work(worker)
    now = datetime.now(UTC)
    append(admin, events(0, 30, "view", now))
    append(admin, [one for name in range(400) for one in events(0, 1, f"odd-{name}", now)])
    work(worker)
    known = store.every(worker)
    assert len(known) == store.MOST
    assert {"all", "action:view"} <= {one.title for one in known}


def test_a_cursor_of_another_cluster_is_given_up(worker: Connection, admin: Connection) -> None:
    work(worker)
    worker.execute("UPDATE refold.watch SET done = '999999999999:999999999999:'")
    work(worker)
    append(admin, events(0, 2, "view", datetime.now(UTC)))
    work(worker)
    assert values(worker)["all:"] == 2


def test_days_with_far_more_old_events_than_usual_are_backfills() -> None:
    days = [date(2026, 3, 1) + timedelta(days=at) for at in range(20)]
    new = dict.fromkeys(days, 1000.0)
    usual = dict.fromkeys(days, 200.0)
    assert backfill_days(usual, new, days[0], days[-1]) == frozenset()
    assert backfill_days({**usual, days[5]: 5000.0}, new, days[0], days[-1]) == {days[5]}
    assert backfill_days({days[5]: 90.0}, new, days[0], days[-1]) == frozenset()
    assert backfill_days({}, {}, days[0], days[-1]) == frozenset()


def delayed(late: float, *, days: int = 85) -> tuple[list[store.Series], dict[int, dict[datetime, Any]], date]:
    """Two sources with delays of about 2 and 60 s; on the last day those of the second are `late` times as long."""
    day = date(2026, 3, 30)
    first = day - timedelta(days=days)
    known = [store.Series(number, "source", name, first, None, None) for number, name in ((1, "web"), (2, "app"))]
    values: dict[int, dict[datetime, Any]] = {1: {}, 2: {}}
    for number, usual in ((1, 2.0), (2, 60.0)):
        for at in range(days + 1):
            times = late if (number, at) == (2, days) else 1.0 + 0.1 * (at * 7 % 5)
            bucket = round(math.log(usual * times) / math.log(BUCKET))
            hour = store.midnight(first + timedelta(days=at))
            values[number][hour] = (1000.0 + at * 13 % 40, {str(bucket): 1000})
    return known, values, day


@pytest.mark.parametrize(("late", "expected"), [(1.2, []), (60.0, ["skew of series 2"])])
def test_a_source_whose_events_come_late_is_unusual(late: float, expected: list[str]) -> None:
    known, values, day = delayed(late)
    found, judged = watched_days.unusual(known, values, day - timedelta(days=85), day, frozenset(), 1.0)
    assert [one.subject for one in found] == expected
    assert "skew of series 2" in judged
    for one in found:
        assert one.evidence["method"] == "skew" and one.evidence["value"] > 1000 > one.evidence["high"]


def test_while_a_capture_is_backfilled_nothing_fires_and_afterwards_the_day_is_left_out(
    worker: Connection, admin: Connection, incidents: Incidents
) -> None:
    yesterday = TODAY - timedelta(days=1)
    put_history(admin, ACTIONS, days=85, change=lambda name, at, count: 0 if at.date() >= yesterday else count)
    admin.execute("ALTER TABLE refold.backfills DROP CONSTRAINT backfills_capture_id_fkey")
    admin.execute(
        "INSERT INTO refold.backfills (capture_id, started_at, snapshot)"
        " VALUES (1, now() - interval '30 hours', pg_current_snapshot())"
    )
    work(worker)
    assert incidents("anomaly") == []
    assert {one.judged_on for one in store.every(worker)} == {yesterday}
    admin.execute("DELETE FROM refold.backfills")
    an_hour_later(worker)
    every = {f"silence of series {one.series_id}" for one in store.every(worker) if one.kind != "old"}
    assert {one.subject for one in incidents("anomaly")} == every
