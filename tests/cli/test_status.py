"""`refold status`: builds, the log, and what holds events back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.inspect.status import read
from tests.support.law import worker_connection

from .conftest import Refold

Connection = psycopg.Connection[tuple[Any, ...]]
Metric = Callable[[str, str], Path]
Record = Callable[..., None]

COUNTS = "SELECT action, count(*) AS events FROM events GROUP BY action"


@pytest.fixture
def worker(database_url: str) -> Iterator[psycopg.Connection]:
    with worker_connection(database_url) as conn:
        yield conn


def test_an_empty_database(refold: Refold) -> None:
    done = refold("status")
    assert done.status == 0
    assert "no metrics yet" in done.out
    assert "log       0 events" in done.out


def test_lag_freshness_and_views(refold: Refold, metric: Metric, record: Record) -> None:
    metric("counts", COUNTS)
    Path("sql/views").mkdir(parents=True)
    Path("sql/views/top.sql").write_text("CREATE OR REPLACE VIEW metrics.top AS TABLE metrics.counts")
    record("view=ann", "view=bob")
    refold("deploy")
    record("view=ann", "buy=ann", "buy=bob")
    before = refold("status", "--json").json
    (build,) = before["builds"]
    assert (build["projection"], build["state"], build["upkeep"], build["reads"]) == (
        "counts",
        "live",
        "merge",
        "events",
    )
    assert (build["lag_events"], build["events_applied"], build["rate"]) == (3, 0, None)
    assert build["lag_seconds"] > 0
    assert (build["shown"], build["views"]) == (True, ["top"])
    assert (before["events"], before["events_exact"]) == (5, True)
    refold("worker", "--drain")
    (build,) = refold("status", "--json").json["builds"]
    assert (build["lag_events"], build["lag_seconds"], build["events_applied"]) == (0, 0, 3)
    assert build["rate"] > 0
    assert "counts__" in refold("status").out


def test_rates_between_two_looks(worker: psycopg.Connection, refold: Refold, metric: Metric, record: Record) -> None:
    metric("counts", COUNTS)
    refold("deploy")
    first = read(worker)
    record(*["view=ann"] * 50)
    refold("worker", "--drain")
    second = read(worker)
    (build,) = second.since(first).builds
    assert build.rate == pytest.approx(50 / (second.at - first.at).total_seconds())
    assert second.since(second) == second


def test_a_long_log_is_estimated_and_says_so(
    worker: psycopg.Connection, refold: Refold, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(*["view=ann"] * 30)
    monkeypatch.setattr("refold.inspect.status.EXACT_BELOW", 20)
    seen = read(worker)
    assert seen.events_exact is False
    assert seen.events >= 21
    assert "log       about " in refold("status").out


def test_who_holds_events_back(refold: Refold, connect: Callable[..., Connection], worker: psycopg.Connection) -> None:
    event = {"id": "1", "action": "a", "ts": 1}
    reader, slow = connect(), connect()
    reader.execute("SELECT count(*) FROM refold.events")
    assert read(worker).sessions == []
    slow.execute("SET application_name = 'import'")
    append(slow, [event])
    (holder,) = read(worker).sessions
    assert (holder.name, holder.what) == (str(slow.info.backend_pid), "import")
    assert holder.seconds is not None and holder.seconds >= 0
    slow.rollback()
    assert read(worker).sessions == []


def test_forgotten_prepared_transactions(refold: Refold, connect: Callable[..., Connection]) -> None:
    producer = connect()
    producer.execute("SET refold.notify = off")
    append(producer, [{"id": "1", "action": "a", "ts": 1}])
    producer.execute("PREPARE TRANSACTION 'import-7'")
    producer.commit()
    other = connect()
    other.execute("CREATE TABLE public.elsewhere ()")
    other.execute("PREPARE TRANSACTION 'other-8'")
    other.commit()
    (prepared,) = refold("status", "--json").json["prepared"]
    assert prepared["name"] == "import-7"
    assert "prepared transaction import-7" in refold("status").out


def test_a_metric_that_fails_is_named(refold: Refold, metric: Metric, record: Record, conn: Connection) -> None:
    conn.execute("UPDATE refold.settings SET max_dead_letters = 0, too_many_dead_letters = 'stop'")
    conn.commit()
    metric("ratio", "SELECT action, max(1 / (version - 1)) AS ratio FROM events GROUP BY action")
    metric("counts", COUNTS)
    refold("deploy")
    record("view=ann")
    drained = refold("worker", "--drain")
    assert drained.status == 2
    assert "some events could not be applied" in drained.err
    assert "division by zero" in drained.err
    failing = {build["projection"]: build["error"] for build in refold("status", "--json").json["builds"]}
    assert failing["counts"] is None
    assert "division by zero" in failing["ratio"]
    assert "failing   ratio__" in refold("status").out
    assert "live, failed" in refold("status").out


def test_an_event_that_is_left_out_is_counted(refold: Refold, metric: Metric, record: Record) -> None:
    metric("ratio", "SELECT action, max(1 / (version - 1)) AS ratio FROM events GROUP BY action")
    refold("deploy")
    record("view=ann")
    assert refold("worker", "--drain").status == 0
    assert refold("status", "--json").json["builds"][0]["dead_letters"] == 1
    assert "excluded  1 event by ratio" in refold("status").out


def test_what_somebody_should_look_at_stands_first_and_is_an_exit_status(
    refold: Refold, metric: Metric, record: Record, admin: Connection
) -> None:
    metric("counts", COUNTS)
    refold("deploy")
    assert refold("status", "--exit-code").status == refold("incidents", "--open", "--exit-code").status == 0
    record("view=ann")
    admin.execute("UPDATE refold.settings SET lag_limit = 0")
    late = refold("status", "--exit-code")
    # No worker has lived here, and so there is no incident.
    assert (late.status, late.out.splitlines()[0][:35]) == (1, "behind    by more than 0 s: counts ")
    assert refold("status").status == refold("incidents", "--open", "--exit-code").status == 0
    assert refold("status", "--json", "--exit-code").json["alarming"] is True
    refold("worker", "--drain")
    assert refold("status", "--exit-code").status == 0
    admin.execute(
        "INSERT INTO refold.incidents (kind, subject, started_at, detected_by) VALUES ('lag', 'a', now(), 'x')"
    )
    admin.execute("UPDATE refold.builds SET error = 'ValueError: x'")
    found = refold("status", "--exit-code")
    assert (found.status, [one.split()[0] for one in found.out.splitlines()[:2]]) == (1, ["incidents", "failing"])
    assert refold("incidents", "--open", "--exit-code").status == 1
    assert refold("status", "--watch", "--exit-code").status == 2


def test_rejected_input_is_counted(refold: Refold, conn: Connection) -> None:
    conn.execute("SELECT refold.reject('a', 1, 'invalid', 'r', 'x'), refold.reject('a', 2, 'conflict', 'r', 'x')")
    conn.commit()
    assert refold("status", "--json").json["rejected"] == {"conflict": 1, "invalid": 1}
    assert "rejected  1 conflict, 1 invalid" in refold("status").out


def test_what_holds_producers_back_is_said(refold: Refold, conn: Connection) -> None:
    conn.execute(
        "INSERT INTO refold.pressure_signals (signal, level, value, slow_at, stop_at) VALUES ('lag', 1, 70, 60, 120)"
    )
    conn.commit()
    assert "pressure  bulk waits: metrics are 70 s behind\n" in refold("status").out
    conn.execute("UPDATE refold.pressure_signals SET level = 2, seen_at = now() - interval '5 minutes'")
    conn.commit()
    told = refold("status").out
    assert "pressure  producers are refused: metrics are 70 s behind; no worker measures it now\n" in told
