"""Target tables that others drop, set back, lock, share or copy."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from refold.postgres.connect import connect
from refold.sinks import audit as audits
from refold.sinks.deliver import Deliverer
from refold.sinks.deploy import collapse
from refold.sinks.kinds.postgres import PostgresOptions, PostgresReceiver
from refold.sinks.receiver import Refused
from refold.store import sinks, undelivered
from refold.store.builds.compiled import Compiler
from tests.support.delivering import Connection, deliver, deploy_sink, follow, insist, resume, to_postgres, url_of
from tests.support.scratch import Scratch


@pytest.mark.parametrize(
    "damage", ["DROP TABLE copy", "ALTER TABLE copy DROP COLUMN n", "DROP TABLE copy, refold_sinks"]
)
def test_a_target_that_is_dropped(scratch: Scratch, target: Connection, damage: str) -> None:
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    target.execute(damage.encode())
    for _ in range(2):
        scratch.append(1, user_id="new")
        scratch.drain()
        deliver(scratch.worker, scratch.folder, "copy")
        resume(scratch)
    insist(scratch, target, "m")


def test_a_target_that_was_set_back(scratch: Scratch, target: Connection) -> None:
    """A failover of the target to a replica that lagged, after the token was written."""
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")

    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "one")
    sink = sinks.known(scratch.worker, "copy")
    scratch.append(1, user_id="x")
    scratch.drain()
    deliverer.turn(sink)
    target.execute("CREATE TABLE old AS SELECT * FROM copy; CREATE TABLE old_sinks AS SELECT * FROM refold_sinks")
    scratch.append(1, user_id="lost")
    scratch.drain()
    deliverer.turn(sink)
    target.execute(
        "TRUNCATE copy; INSERT INTO copy SELECT * FROM old;"
        " TRUNCATE refold_sinks; INSERT INTO refold_sinks SELECT * FROM old_sinks"
    )
    deliverer.release()
    scratch.append(1, user_id="y")
    scratch.drain()
    insist(scratch, target, "m")


def test_a_target_that_is_locked_delays_no_page(scratch: Scratch, target: Connection) -> None:
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    scratch.append(1, user_id="ann")
    scratch.drain()
    with (
        psycopg.connect(url_of(scratch, target)) as locker,
        connect(scratch.url, "refold_worker", autocommit=True) as other,
    ):
        locker.execute("LOCK TABLE copy")
        delivering = threading.Thread(target=deliver, args=(other, scratch.folder, "copy"))
        delivering.start()
        time.sleep(1)
        started = time.monotonic()
        scratch.append(1, user_id="ben")
        scratch.drain()
        scratch.deploy_one("m", "SELECT user_id, count(*) AS n FROM events WHERE action = 'a' GROUP BY user_id")
        scratch.drain()
        assert time.monotonic() - started < 5
        locker.rollback()
        delivering.join()
    resume(scratch)
    insist(scratch, target, "m")


def test_a_row_that_was_added_by_hand_is_found(scratch: Scratch, target: Connection) -> None:
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    sink = sinks.known(scratch.worker, "copy")
    target.execute("INSERT INTO copy (user_id) VALUES ('mine')")
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "auditor")
    assert len(audits.audit(scratch.worker, deliverer, sink).wrong) == 1
    deliverer.release()
    insist(scratch, target, "m")


def test_a_second_sink_to_the_table_changes_nothing(scratch: Scratch, target: Connection) -> None:
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events WHERE user_id = 'ann' GROUP BY user_id")
    scratch.deploy_one("other", "SELECT action, count(*) AS total FROM events GROUP BY action")
    scratch.drain()
    before = target.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'copy' ORDER BY 1").fetchall()
    deploy_sink(scratch.worker, "wrong", to_postgres("other", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "wrong")
    assert target.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'copy' ORDER BY 1").fetchall() == before
    columns = target.execute("SELECT attname FROM pg_attribute WHERE attrelid = 'copy'::regclass").fetchall()
    assert ("total",) not in columns


def test_a_copy_of_the_database_changes_no_table(scratch: Scratch, target: Connection) -> None:
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    target.execute("UPDATE refold_sinks SET owner = 'another'")
    scratch.deploy_one("m", "SELECT user_id, count(*) AS n, min(ts) AS first FROM events GROUP BY user_id")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    assert sinks.state(scratch.worker, sinks.known(scratch.worker, "copy").sink_id)[0].condition == "stopped"
    columns = target.execute("SELECT attname FROM pg_attribute WHERE attrelid = 'copy'::regclass").fetchall()
    assert ("first",) not in columns


def test_a_row_that_was_refused_and_is_gone_waits_for_nobody(
    scratch: Scratch, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id HAVING count(*) % 2 = 1")
    genuine = PostgresReceiver.deliver

    def refuse(receiver, version, changes):  # type: ignore[no-untyped-def]
        if any('"bad"' in change.key and change.values is not None for change in changes):
            raise Refused("no", status="422")
        genuine(receiver, version, changes)

    monkeypatch.setattr(PostgresReceiver, "deliver", refuse)
    sink = sinks.known(scratch.worker, "copy")
    scratch.append(1, user_id="bad")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    assert undelivered.waiting(scratch.worker, sink.sink_id) == 1
    collapse(scratch.worker, sink.sink_id)
    scratch.append(1, user_id="bad")
    scratch.drain()
    insist(scratch, target, "m")
    assert undelivered.waiting(scratch.worker, sink.sink_id) == 0


def test_an_audit_that_outlasts_its_lease_reports_no_difference(
    scratch: Scratch, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    sink = sinks.known(scratch.worker, "copy")
    genuine = audits._checksums

    def slow(*arguments):  # type: ignore[no-untyped-def]
        found = genuine(*arguments)
        scratch.append(1, user_id="ann")
        scratch.drain()
        with connect(scratch.url, "refold_worker", autocommit=True) as other:
            with other.transaction():
                over = lambda now, at: replace(now, number=now.number + 1, leased_until=at)  # noqa: E731
                sinks.step(other, sink.sink_id, over)
            deliver(other, scratch.folder, "copy", me="another")
        return found

    monkeypatch.setattr(audits, "_checksums", slow)
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "auditor")
    found = audits.audit(scratch.worker, deliverer, sink)
    deliverer.release()
    assert (tuple(found.wrong), found.skipped is None) == ((), False)


def test_null_at_the_target_does_not_pass_for_0(scratch: Scratch, target: Connection) -> None:
    """Postgres hashes them alike, unless it is given a seed."""
    follow(scratch, target, "m", "SELECT user_id, max((metadata->>'n')::float8) AS n FROM events GROUP BY user_id")
    scratch.append(1, user_id="zero", metadata={"n": 0})
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    target.execute("UPDATE copy SET n = NULL WHERE user_id = 'zero'")
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "auditor")
    found = audits.audit(scratch.worker, deliverer, sinks.known(scratch.worker, "copy"))
    deliverer.release()
    assert len(tuple(found.wrong)) == 1


def test_commits_of_the_target_are_durable(scratch: Scratch, target: Connection) -> None:
    """What the target loses in a crash after it said that it has it would never be given again."""

    with psycopg.connect(scratch.url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(sql.Identifier(target.info.dbname))
        )
    receiver = PostgresReceiver(PostgresOptions(url=url_of(scratch, target), table="copy"))
    receiver._connect("copy")
    assert receiver._connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
    receiver.close()
