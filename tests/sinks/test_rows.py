"""The receiver has the rows of the metric, whatever kind of upkeep it has and whatever happens to them."""

from __future__ import annotations

from datetime import date

import pytest
from psycopg import sql

from refold.engine.reconcile.reconcile import reconcile
from refold.engine.retain.let_go import let_go
from refold.model.sink.state import resumed
from refold.sinks import audit as audits
from refold.sinks.audit import audit
from refold.sinks.deliver import Deliverer
from refold.store import outbox, retentions, sinks
from refold.store.builds.compiled import Compiler
from refold.store.sinks import Sink
from tests.support.delivering import Connection, deliver, deploy_sink, differences, to_postgres, url_of
from tests.support.scratch import Scratch

METRICS = {
    "merge": "SELECT action, user_id, count(*) AS events, avg((metadata->>'n')::numeric) AS mean FROM events"
    " GROUP BY action, user_id",
    "members": "SELECT (ts AT TIME ZONE 'UTC')::date AS day, count(DISTINCT user_id) AS users FROM events GROUP BY day",
    "facts": "SELECT event_id, user_id, metadata->>'n' AS n FROM events WHERE action = 'a'",
    "having": "SELECT user_id, count(*) AS events FROM events GROUP BY user_id HAVING count(*) > 2",
    "recompute": "SELECT user_id, array_agg(action ORDER BY ts, event_id) AS path FROM events GROUP BY user_id",
    "vanishing": "SELECT user_id, string_agg(action, ',' ORDER BY ts, event_id) AS path FROM events GROUP BY user_id"
    " HAVING count(*) % 2 = 1",
    "funnel": "SELECT user_id, window_funnel(interval '7 days', ts, action = 'a', action = 'b') AS level FROM events"
    " GROUP BY user_id",
}


@pytest.mark.parametrize("metric", METRICS)
def test_every_kind_of_upkeep(scratch: Scratch, target: Connection, metric: str) -> None:
    scratch.deploy_one(metric, METRICS[metric])
    scratch.append(30, user_id="ann", metadata={"n": 1})
    scratch.append(3, user_id=None, action="b")
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_postgres(metric, url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    assert differences(scratch.worker, metric, target) == []
    sent = False
    for number, user in enumerate(("ben", "ann", "cid", "ben", None)):
        scratch.append(3, user_id=user, action="b", metadata={"n": 7})
        scratch.append(1 + number % 2, user_id=user, metadata={"n": 2})
        scratch.drain()
        # A page that changes no row sends nothing.
        sent = outbox.waits(scratch.worker, sinks.known(scratch.worker, "copy").sink_id, 0) or sent
        deliver(scratch.worker, scratch.folder, "copy")
        assert differences(scratch.worker, metric, target) == []
    assert sent


def test_a_transform(scratch: Scratch, target: Connection) -> None:
    scratch.deploy(
        graded="""
from pydantic import BaseModel
from refold import Event, transform

class Graded(BaseModel):
    event_id: str
    grade: int

@transform()
def graded(event: Event) -> Graded:
    return Graded(event_id=event.event_id, grade=len(event.action))
"""
    )
    scratch.append(5)
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_postgres("graded", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    scratch.append(5, action="bb")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    assert differences(scratch.worker, "graded", target) == []


@pytest.mark.parametrize("metric", ["merge", "recompute", "facts"])
def test_healed_rows_are_delivered(scratch: Scratch, target: Connection, metric: str) -> None:
    scratch.deploy_one(metric, METRICS[metric])
    scratch.append(9, user_id="ann")
    scratch.drain()
    table = sql.Identifier("refold_builds", scratch.build(metric).table_name)
    deploy_sink(scratch.worker, "copy", to_postgres(metric, url_of(scratch, target)))
    scratch.worker.execute(sql.SQL("UPDATE {} SET user_id = 'eve'").format(table))
    # The wrong rows are given, as analysts see them.
    deliver(scratch.worker, scratch.folder, "copy")
    reconcile(scratch.worker, Compiler(scratch.folder), [metric], depth="deep", by="test")
    deliver(scratch.worker, scratch.folder, "copy")
    assert differences(scratch.worker, metric, target) == []
    assert target.execute("SELECT count(*) FROM copy WHERE user_id = 'eve'").fetchone() == (0,)


def test_another_build_is_delivered_under_a_higher_epoch(scratch: Scratch, target: Connection) -> None:
    scratch.deploy(daily="SELECT action, count(*) AS events FROM events GROUP BY action")
    scratch.append(5)
    scratch.append(5, action="gone")
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", to_postgres("daily", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    before = sinks.state(scratch.worker, sink.sink_id)[0]
    scratch.deploy(daily="SELECT action, count(*) AS events FROM events WHERE action <> 'gone' GROUP BY action")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    after = sinks.state(scratch.worker, sink.sink_id)[0]
    assert after.epoch > before.epoch
    assert differences(scratch.worker, "daily", target) == []


@pytest.mark.parametrize("rows", [1, 1_000_000])
@pytest.mark.parametrize("metric", ["merge", "having", "facts"])
def test_an_audit_finds_what_was_changed_at_the_receiver(
    scratch: Scratch, target: Connection, monkeypatch: pytest.MonkeyPatch, metric: str, rows: int
) -> None:
    monkeypatch.setattr(audits, "ROWS", rows)
    scratch.deploy_one(metric, METRICS[metric])
    scratch.append(30, user_id="ann", metadata={"n": 1.50})
    scratch.append(3, user_id=None)
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", to_postgres(metric, url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "auditor")
    try:
        assert audit(scratch.worker, deliverer, sink).wrong == []
        tampered_rows_are_found(scratch, target, deliverer, sink, metric)
    finally:
        deliverer.release()


def tampered_rows_are_found(
    scratch: Scratch, target: Connection, deliverer: Deliverer, sink: Sink, metric: str
) -> None:
    target.execute("UPDATE copy SET user_id = 'eve' WHERE user_id = 'ann'")
    target.execute("INSERT INTO copy (user_id, refold_slice, refold_epoch, refold_number) VALUES ('mallory', 7, 0, 0)")
    found = audit(scratch.worker, deliverer, sink)
    assert len(found.wrong) == 2
    while deliverer.turn(sink):
        pass
    assert differences(scratch.worker, metric, target) == []
    assert audit(scratch.worker, deliverer, sink).wrong == []


def test_a_metric_with_another_key(scratch: Scratch, target: Connection) -> None:
    scratch.deploy(daily="SELECT action, count(*) AS events FROM events GROUP BY action")
    scratch.append(5, user_id="ann")
    scratch.append(5, user_id="ben", action="b")
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_postgres("daily", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    scratch.append(1, user_id="ann")
    scratch.drain()
    # A message with the former key waits.
    scratch.deploy(daily="SELECT user_id, count(*) AS events FROM events GROUP BY user_id")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    assert differences(scratch.worker, "daily", target) == []
    assert target.execute("SELECT count(*), count(action) FROM copy").fetchone() == (2, 0)
    scratch.append(1, user_id="cid")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    assert differences(scratch.worker, "daily", target) == []


def test_a_table_with_rows_of_others_is_refused(scratch: Scratch, target: Connection) -> None:
    scratch.deploy(daily="SELECT action, count(*) AS events FROM events GROUP BY action")
    scratch.append(5)
    scratch.drain()
    target.execute("CREATE TABLE copy (action text, events bigint)")
    target.execute("INSERT INTO copy VALUES ('mine', 1)")
    sink = deploy_sink(scratch.worker, "copy", to_postgres("daily", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    assert "rows that no sink has delivered" in (sinks.state(scratch.worker, sink.sink_id)[0].error or "")
    assert target.execute("SELECT * FROM copy").fetchall() == [("mine", 1)]


def test_a_column_of_another_type_is_refused_with_the_statement_that_mends_it(
    scratch: Scratch, target: Connection
) -> None:
    scratch.deploy(daily="SELECT action, count(*) AS events FROM events GROUP BY action")
    scratch.append(5)
    scratch.drain()
    target.execute("CREATE TABLE copy (action text, events integer)")
    sink = deploy_sink(scratch.worker, "copy", to_postgres("daily", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    state, _ = sinks.state(scratch.worker, sink.sink_id)
    assert "ALTER TABLE copy ALTER events TYPE bigint;" in (state.error or "")
    target.execute("ALTER TABLE copy ALTER events TYPE bigint")
    with scratch.worker.transaction():
        sinks.step(scratch.worker, sink.sink_id, lambda now, _: resumed(now))
    deliver(scratch.worker, scratch.folder, "copy")
    assert differences(scratch.worker, "daily", target) == []


def test_texts_arrive_as_they_are(scratch: Scratch, target: Connection) -> None:
    texts = [
        "",
        "NULL",
        "null",
        '"',
        "\\",
        '\\"',
        "{}",
        "a,b",
        " x ",
        "a\nb\tc\r",
        "'",
        "ü€😀",
        "%s %(x)s",
        "\\N",
        "{NULL}",
    ]
    scratch.deploy(said="SELECT event_id, metadata->>'t' AS said, ARRAY[metadata->>'t', NULL] AS twice FROM events")
    for text in texts:
        scratch.append(1, metadata={"t": text})
    scratch.append(1)
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_postgres("said", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    assert differences(scratch.worker, "said", target) == []
    assert {said for (said,) in target.execute("SELECT said FROM copy").fetchall()} == {*texts, None}


def test_names_that_must_be_quoted(scratch: Scratch, target: Connection) -> None:
    scratch.deploy(
        odd='SELECT action AS "Ac""tion", user_id AS "user", count(*) AS "Ten of", max(ts) AS "at{0}" FROM events'
        ' GROUP BY "Ac""tion", "user"'
    )
    scratch.append(3, user_id="ann")
    scratch.append(3)
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_postgres("odd", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    scratch.append(1, user_id="ann")
    scratch.append(1)
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    assert differences(scratch.worker, "odd", target) == []


def test_rows_that_are_not_kept_leave_the_receiver_too(scratch: Scratch, target: Connection) -> None:
    scratch.deploy_one("members", METRICS["members"])
    for day in range(5):
        scratch.append(2, user_id="ann", ts=f"1970-01-0{1 + day}T00:00:00Z")
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_postgres("members", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    retentions.put(scratch.worker, "members", keep_from=date(1970, 1, 4))
    wanted = retentions.find(scratch.worker, "members")
    assert wanted is not None
    compiler = Compiler(scratch.folder)
    assert let_go(scratch.worker, compiler, wanted, rows=1) == 3
    deliver(scratch.worker, scratch.folder, "copy")
    assert target.execute("SELECT day FROM public.copy ORDER BY 1").fetchall() == [
        (date(1970, 1, 4),),
        (date(1970, 1, 5),),
    ]
    # A late event of a day that is gone brings nothing back.
    scratch.append(1, user_id="ben", ts="1970-01-01T00:00:00Z")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    assert differences(scratch.worker, "members", target) == []
    deliverer = Deliverer(scratch.worker, compiler, "test")
    try:
        found = audit(scratch.worker, deliverer, sinks.known(scratch.worker, "copy"))
    finally:
        deliverer.release()
    assert (found.skipped, list(found.wrong)) == (None, [])
