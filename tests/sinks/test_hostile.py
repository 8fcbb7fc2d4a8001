"""What an enemy does to sinks: in the end the receiver must have what the metric says."""

from __future__ import annotations

import pytest

from refold.store import sinks
from tests.sinks.test_rows import target, url_of
from tests.support.delivering import Connection, deliver, deploy_sink, differences, to_postgres
from tests.support.scratch import Scratch

__all__ = ["target"]


def follow(scratch: Scratch, target: Connection, metric: str, text: str) -> None:
    """Deploy a metric and its sink, and deliver what is there."""
    scratch.deploy_one(metric, text)
    scratch.append(6, user_id="ann", metadata={"n": 1.5})
    scratch.append(2, user_id=None, metadata={"n": 2})
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_postgres(metric, url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    right(scratch, target, metric)


def right(scratch: Scratch, target: Connection, metric: str) -> None:
    """Insist that the sink is well and the receiver has the metric."""
    deliver(scratch.worker, scratch.folder, "copy")
    state, _ = sinks.state(scratch.worker, sinks.known(scratch.worker, "copy").sink_id)
    assert (state.condition, state.error) == ("active", None)
    assert differences(scratch.worker, metric, target) == []


GROUPED = "SELECT user_id, {} FROM events GROUP BY user_id"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("avg((metadata->>'n')::numeric) AS mean", "avg((metadata->>'n')::numeric) + 1 AS mean"),
        ("count(*) AS events", "count(*) AS total"),
        ("count(*) AS events", "count(*) * 2 AS events"),
        ("count(*) AS events", "count(*)::text AS other"),
        ("count(*) AS events", "count(*) AS events, count(*) AS again"),
    ],
)
def test_a_build_that_differs_in_its_view_alone(scratch: Scratch, target: Connection, before: str, after: str) -> None:
    follow(scratch, target, "m", GROUPED.format(before))
    scratch.deploy_one("m", GROUPED.format(after))
    scratch.drain()
    right(scratch, target, "m")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SELECT user_id, action, count(*) AS n FROM events GROUP BY user_id, action",
         "SELECT user_id, count(*) AS n FROM events GROUP BY user_id"),
        ("SELECT user_id, count(*) AS n FROM events GROUP BY user_id",
         "SELECT user_id, action, count(*) AS n FROM events GROUP BY user_id, action"),
    ],
)  # fmt: skip
def test_another_key(scratch: Scratch, target: Connection, before: str, after: str) -> None:
    follow(scratch, target, "m", before)
    scratch.append(3, user_id="ann", action="b")
    scratch.drain()
    right(scratch, target, "m")
    scratch.deploy_one("m", after)
    scratch.drain()
    right(scratch, target, "m")


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
    right(scratch, target, "m")


def resume(scratch: Scratch) -> None:
    from refold.model.sink.state import resumed

    with scratch.worker.transaction():
        sinks.step(scratch.worker, sinks.known(scratch.worker, "copy").sink_id, lambda now, _: resumed(now))


def test_a_target_that_was_set_back(scratch: Scratch, target: Connection) -> None:
    """A failover of the target to a replica that lagged, after the token was written."""
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    from refold.sinks.deliver import Deliverer
    from refold.store.builds.compiled import Compiler

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
        "TRUNCATE copy; INSERT INTO copy SELECT * FROM old; TRUNCATE refold_sinks; INSERT INTO refold_sinks SELECT * FROM old_sinks"
    )
    deliverer.release()
    scratch.append(1, user_id="y")
    scratch.drain()
    right(scratch, target, "m")


@pytest.mark.parametrize(
    "name", ["key", "slice", "own", "pair", "order", 'we"ird', "Capital Letters", "message", "a'b", "{x}", "c0"]
)
def test_odd_names_of_keys(scratch: Scratch, target: Connection, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    follow(scratch, target, "m", f"SELECT user_id AS {quoted}, count(*) AS n FROM events GROUP BY 1")
    scratch.append(1, user_id="ben")
    scratch.append(1, user_id="ann")
    scratch.drain()
    right(scratch, target, "m")


@pytest.mark.parametrize("name", ["key", "slice"])
def test_odd_names_of_columns(scratch: Scratch, target: Connection, name: str) -> None:
    follow(scratch, target, "m", f'SELECT user_id, count(*) AS "{name}" FROM events GROUP BY 1')
    scratch.append(1, user_id="ben")
    scratch.append(1, user_id="ann")
    scratch.drain()
    right(scratch, target, "m")


@pytest.mark.parametrize(
    ("expression", "one", "other"),
    [("(metadata->>'n')::numeric", "1.0", "1.00"), ("(metadata->>'n')::float8", "-0", "0")],
)
@pytest.mark.parametrize("upkeep", ["count(DISTINCT user_id)", "count(*)"])
def test_keys_that_are_equal_and_look_different(
    scratch: Scratch, target: Connection, expression: str, one: str, other: str, upkeep: str
) -> None:
    scratch.deploy_one("m", f"SELECT {expression} AS k, {upkeep} AS path FROM events WHERE metadata ? 'n' GROUP BY 1")
    scratch.append(1, user_id="ann", metadata={"n": one})
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_postgres("m", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    for number in range(6):
        scratch.append(1, metadata={"n": (one, other)[number % 2]})
        scratch.drain()
    right(scratch, target, "m")


@pytest.mark.parametrize(
    "setting",
    [
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'sql_standard'",
        "extra_float_digits = 0",
        "timezone = 'Asia/Kolkata'",
        "bytea_output = 'escape'",
        "default_transaction_isolation = 'serializable'",
        "row_security = off",
        "search_path = ''",
        "statement_timeout = '1s'",
        "xmloption = document",
        "lc_monetary = 'C'",
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "array_nulls = off",
        "transform_null_equals = on",
        "plpgsql.variable_conflict = 'use_column'",
    ],
)
@pytest.mark.parametrize("side", ["metric", "target"])
def test_settings_of_databases(scratch: Scratch, target: Connection, setting: str, side: str) -> None:
    import psycopg
    from psycopg import sql

    from refold.sinks.audit import audit
    from refold.sinks.deliver import Deliverer
    from refold.store.builds.compiled import Compiler

    of = target if side == "target" else scratch.worker
    text = (
        "SELECT user_id, ts AS t, action, min((metadata->>'n')::float8 / 3) AS f,"
        ""
        " (metadata->>'x')::float8 AS x, decode(metadata->>'b', 'hex') AS b,"
        " count(*) AS n FROM events GROUP BY user_id, ts, action, x, b"
    )
    with psycopg.connect(scratch.url, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} SET ").format(sql.Identifier(of.info.dbname)) + sql.SQL(setting))
        scratch.deploy_one("m", text)
        scratch.append(3, user_id="ann\\é", metadata={"x": 0.1, "b": "00ff5c"})
        scratch.append(2, user_id=None, metadata={"n": 2})
        scratch.drain()
        from refold.postgres.connect import connect

        with connect(scratch.url, "refold_worker", autocommit=True) as conn:
            deploy_sink(conn, "copy", to_postgres("m", url_of(scratch, target)))
            deliver(conn, scratch.folder, "copy")
            right(scratch, target, "m")
            scratch.append(3, user_id="ann\\é", metadata={"x": 0.1, "b": "00ff5c"})
            scratch.append(3, user_id="ben", metadata={"x": 0.1, "b": "00ff5c"})
            scratch.drain()
            deliver(conn, scratch.folder, "copy")
            deliverer = Deliverer(conn, Compiler(scratch.folder), "auditor")
            found = audit(conn, deliverer, sinks.known(conn, "copy"))
            deliverer.release()
            assert (found.wrong, found.skipped) == ([], None)
        admin.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(of.info.dbname)))
    right(scratch, target, "m")


def test_a_publication_of_all_tables(scratch: Scratch, target: Connection) -> None:
    target.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    scratch.append(1, user_id="ann")
    scratch.drain()
    right(scratch, target, "m")


def test_types_of_a_schema(scratch: Scratch, target: Connection) -> None:
    import psycopg

    with psycopg.connect(scratch.url, autocommit=True) as admin:
        for conn in (admin, target):
            conn.execute("CREATE DOMAIN public.word AS text; GRANT USAGE ON TYPE public.word TO PUBLIC")
    follow(scratch, target, "m", "SELECT user_id::public.word AS user_id, count(*) AS n FROM events GROUP BY 1")


def test_long_keys(scratch: Scratch, target: Connection) -> None:
    import secrets

    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    scratch.append(1, user_id=secrets.token_hex(3000))
    scratch.append(1, user_id="ben")
    scratch.drain()
    right(scratch, target, "m")


def test_a_backup_does_not_stop_pages(scratch: Scratch, target: Connection) -> None:
    """pg_dump holds ACCESS SHARE on every table for hours; a collapse or a switch must not make pages wait for it."""
    import threading

    import psycopg

    from refold.model.sink_queue import queue
    from refold.postgres.connect import connect
    from refold.sinks.deploy import collapse

    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    sink_id = sinks.known(scratch.worker, "copy").sink_id
    with psycopg.connect(scratch.url) as dump, connect(scratch.url, "refold_worker", autocommit=True) as duty:
        dump.execute(f"LOCK TABLE pgmq.q_{queue(sink_id)} IN ACCESS SHARE MODE".encode())
        collapsing = threading.Thread(target=collapse, args=(duty, sink_id))
        collapsing.start()
        collapsing.join(5)
        waits = collapsing.is_alive()
        dump.rollback()
        collapsing.join()
    assert not waits, "the collapse held the build's lock, and waited for the backup"


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


def test_a_rename_leaves_a_folder_that_can_be_deployed(scratch: Scratch, target: Connection) -> None:
    from refold.engine.deployment.rename import rename

    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    rename(scratch.worker, scratch.folder, "m", "renamed")
    scratch.append(1, user_id="ann")
    scratch.drain()
    right(scratch, target, "renamed")


def test_commits_of_the_target_are_durable(scratch: Scratch, target: Connection) -> None:
    """What the target loses in a crash after it said that it has it would never be given again."""
    import psycopg
    from psycopg import sql

    from refold.sinks.kinds.postgres import PostgresOptions, PostgresReceiver

    with psycopg.connect(scratch.url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(sql.Identifier(target.info.dbname))
        )
    receiver = PostgresReceiver(PostgresOptions(url=url_of(scratch, target), table="copy"))
    receiver._connect("copy")
    assert receiver._connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
    receiver.close()


def test_slices_of_a_many_column_row_are_not_shown(scratch: Scratch, target: Connection) -> None:
    import json

    from refold.sinks import read
    from refold.store.builds.build import live
    from refold.store.builds.compiled import Compiler

    many = ", ".join(f"count(*) AS c{n}" for n in range(60))
    follow(scratch, target, "m", f"SELECT user_id, {many} FROM events GROUP BY user_id")
    build = live(scratch.worker, "m")
    assert build is not None
    source = read.source(scratch.worker, "copy", build, Compiler(scratch.folder).of(scratch.worker, build))
    with scratch.worker.transaction():
        [change] = read.changes_of(scratch.worker, source, [(0, '{"user_id": "ann"}')], json=True)
    assert set(json.loads(change.json)) == {column.name for column in source.shape.columns}


def test_a_build_that_goes_live_while_its_sink_is_deployed(scratch: Scratch, target: Connection) -> None:
    """Neither transaction sees the other: the sink is of a build that is not live any more."""
    from refold.postgres.connect import connect
    from refold.service.duties.sinks import run
    from refold.store.builds.compiled import Compiler

    scratch.deploy_one("m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    scratch.append(2, user_id="ann")
    scratch.drain()
    with connect(scratch.url, "refold_worker", autocommit=True) as other, other.transaction():
        deploy_sink(other, "copy", to_postgres("m", url_of(scratch, target)))
        scratch.deploy_one("m", "SELECT user_id, count(*) AS n FROM events WHERE action = 'a' GROUP BY user_id")
        scratch.drain()
    run(scratch.worker, Compiler(scratch.folder))
    right(scratch, target, "m")


def test_a_sink_that_is_dropped_while_its_metric_is_switched(scratch: Scratch, target: Connection) -> None:
    import threading

    from refold.postgres.connect import connect
    from refold.sinks import deploy

    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    failures: list[BaseException] = []

    def switch() -> None:
        try:
            scratch.deploy_one("m", "SELECT user_id, count(*) AS n FROM events WHERE action = 'a' GROUP BY user_id")
            scratch.drain()
        except BaseException as error:
            failures.append(error)

    with connect(scratch.url, "refold_worker", autocommit=True) as other:
        with other.transaction():
            deploy.drop(other, sinks.known(other, "copy"))
            switching = threading.Thread(target=switch)
            switching.start()
            switching.join(3)
        switching.join()
    assert failures == []


def test_a_row_that_was_refused_and_is_gone_waits_for_nobody(
    scratch: Scratch, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refold.sinks.deploy import collapse
    from refold.sinks.kinds.postgres import PostgresReceiver
    from refold.sinks.receiver import Refused
    from refold.store import undelivered

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
    right(scratch, target, "m")
    assert undelivered.waiting(scratch.worker, sink.sink_id) == 0


def test_a_target_that_is_locked_delays_no_page(scratch: Scratch, target: Connection) -> None:
    import threading
    import time

    import psycopg

    from refold.postgres.connect import connect

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
    right(scratch, target, "m")


@pytest.mark.parametrize(
    "after",
    [
        "SELECT user_id, count(*) AS n FROM events GROUP BY user_id",
        "SELECT user_id, action, count(*) * 2 AS n FROM events GROUP BY user_id, action",
        "SELECT action, count(*) AS n FROM events GROUP BY action",
    ],
)
def test_a_webhook_after_another_key(scratch: Scratch, after: str, monkeypatch: pytest.MonkeyPatch) -> None:

    from tests.sinks.test_webhook_histories import SECRET, to_webhook
    from tests.support.receiving import hook

    monkeypatch.setenv("SECRET", SECRET)
    with hook() as receiver:
        scratch.deploy_one("m", "SELECT user_id, action, count(*) AS n FROM events GROUP BY user_id, action")
        scratch.append(6, user_id="ann")
        scratch.append(2, user_id=None, action="b")
        scratch.drain()
        deploy_sink(scratch.worker, "copy", to_webhook("m", receiver.url))
        deliver(scratch.worker, scratch.folder, "copy")
        scratch.deploy_one("m", after)
        scratch.append(1, user_id="ben")
        scratch.drain()
        deliver(scratch.worker, scratch.folder, "copy")
        state, _ = sinks.state(scratch.worker, sinks.known(scratch.worker, "copy").sink_id)
        assert (state.condition, state.error) == ("active", None)
        assert len(receiver.table()) == len(scratch.rows("m"))


def test_an_audit_that_outlasts_its_lease_reports_no_difference(
    scratch: Scratch, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from refold.postgres.connect import connect
    from refold.sinks import audit as audits
    from refold.sinks.deliver import Deliverer
    from refold.store.builds.compiled import Compiler

    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    sink = sinks.known(scratch.worker, "copy")
    genuine = audits._checksums

    def slow(conn, source):  # type: ignore[no-untyped-def]
        found = genuine(conn, source)
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


def test_a_publication_of_all_tables_of_the_metric(scratch: Scratch, target: Connection) -> None:
    import psycopg

    from refold.sinks import deploy
    from refold.sinks.deploy import collapse

    with psycopg.connect(scratch.url, autocommit=True) as admin:
        admin.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    collapse(scratch.worker, sinks.known(scratch.worker, "copy").sink_id)
    right(scratch, target, "m")
    scratch.append(1, user_id="ann")
    scratch.drain()
    right(scratch, target, "m")
    deploy.drop(scratch.worker, sinks.known(scratch.worker, "copy"))


@pytest.mark.parametrize(("expression", "texts"), [
    ("(metadata->>'n')::numeric", ["NaN", "Infinity", "1e-20", "1" * 300]),
    ("(metadata->>'n')::float8", ["NaN", "-Infinity", "0.1", "1e-300", "5e-324"]),
    ("(metadata->>'n')::date", ["infinity", "-infinity", "0044-03-15 BC", "12345-01-01"]),
    ("(metadata->>'n')::timestamptz", ["infinity", "0044-03-15 BC", "12345-01-01", "2020-01-01 00:00:00.000001+02"]),
    ("decode(metadata->>'n', 'hex')", ["", "00", "5c5c", "ff"]),
    ("(metadata->>'n')::uuid", ["00000000-0000-0000-0000-00000000000A"]),
    ("(metadata->>'n')::char(5)", ["a", "ab   ", ""]),
    ("(metadata->>'n')::inet", ["::1", "10.0.0.1/8"]),
    ("(metadata->>'n')::int4range", ["[1,3)", "empty"]),
    ("(metadata->>'n')::bit(3)", ["101"]),
    ("(metadata->>'n')::boolean", ["t", "false"]),
    ("metadata->>'n'", ['": null', "{", '\\"', "\u2028", "%s", "NULL", "", "{NULL}", "\t\n\r", "\U0001F600"]),
    ("string_to_array(metadata->>'n', ';')", ["a;;b", "NULL;null", '"', "{;}"]),
    ("(metadata->>'n')::money", ["$1.50"]),
    ("(metadata->>'n')::time", ["24:00:00"]),
    ("(metadata->>'n')::point", ["(1,2)"]),
    ("(metadata->>'n')::interval", ["-1 day 3:04:05", "1 year -2 mons"]),
    ("(metadata->'n')", ["null", "1"]),
])  # fmt: skip
@pytest.mark.parametrize("place", ["key", "value"])
def test_types(scratch: Scratch, target: Connection, expression: str, texts: list[str], place: str) -> None:
    from refold.errors import RefoldError
    from refold.sinks.audit import audit
    from refold.sinks.deliver import Deliverer
    from refold.store.builds.compiled import Compiler

    text = {
        "key": f"SELECT {expression} AS k, count(*) AS n FROM events WHERE metadata ? 'n' GROUP BY 1",
        "value": f"SELECT event_id, {expression} AS v FROM events WHERE metadata ? 'n'",
    }[place]
    try:
        scratch.deploy_one("m", text)
        for one in texts:
            scratch.append(1, metadata={"n": one})
        scratch.drain()
        deploy_sink(scratch.worker, "copy", to_postgres("m", url_of(scratch, target)))
    except RefoldError as error:
        pytest.skip(str(error)[:200])
    right(scratch, target, "m")
    for one in [*texts, *texts]:
        scratch.append(1, metadata={"n": one})
        scratch.append(1, metadata={"n": None})
        scratch.drain()
        right(scratch, target, "m")
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "auditor")
    found = audit(scratch.worker, deliverer, sinks.known(scratch.worker, "copy"))
    deliverer.release()
    assert (found.wrong, found.skipped) == ([], None)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("after", [
    "SELECT user_id, action, count(*) * 2 AS n FROM events GROUP BY user_id, action",
    "SELECT action, count(*) AS n FROM events GROUP BY action",
    "SELECT event_id, count(*) OVER () AS n FROM events",
    "SELECT event_id, user_id FROM events",
])  # fmt: skip
def test_files_after_another_query(scratch: Scratch, tmp_path, form: str, after: str) -> None:  # type: ignore[no-untyped-def]
    from refold.errors import RefoldError
    from refold.sinks.audit import audit
    from refold.sinks.deliver import Deliverer
    from refold.store.builds.compiled import Compiler

    folder = tmp_path / "files"
    folder.mkdir()
    scratch.deploy_one("m", "SELECT user_id, action, count(*) AS n FROM events GROUP BY user_id, action")
    scratch.append(6, user_id="ann")
    scratch.append(2, user_id=None, action="b")
    scratch.drain()
    deploy_sink(
        scratch.worker,
        "copy",
        f'projection = "m"\nkind = "files"\n[files]\nurl = "file://{folder}"\nformat = "{form}"\n',
    )
    deliver(scratch.worker, scratch.folder, "copy")
    try:
        scratch.deploy_one("m", after)
    except RefoldError as error:
        pytest.skip(str(error)[:100])
    scratch.append(1, user_id="ben")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    sink = sinks.known(scratch.worker, "copy")
    state, _ = sinks.state(scratch.worker, sink.sink_id)
    assert (state.condition, state.error) == ("active", None)
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "auditor")
    found = audit(scratch.worker, deliverer, sink)
    deliverer.release()
    assert (found.wrong, found.skipped) == ([], None)
    assert found.slices
