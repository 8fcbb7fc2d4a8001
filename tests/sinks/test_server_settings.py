"""Settings, publications and backups of either database."""

from __future__ import annotations

import threading

import psycopg
import pytest
from psycopg import sql

from refold.errors import BuildError
from refold.model.sink_queue import queue
from refold.postgres.connect import connect
from refold.sinks import deploy
from refold.sinks.audit import audit
from refold.sinks.deliver import Deliverer
from refold.sinks.deploy import collapse
from refold.store import sinks
from refold.store.builds.compiled import Compiler
from tests.support.delivering import Connection, deliver, deploy_sink, follow, insist, to_postgres, url_of
from tests.support.scratch import Scratch


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

        with connect(scratch.url, "refold_worker", autocommit=True) as conn:
            deploy_sink(conn, "copy", to_postgres("m", url_of(scratch, target)))
            deliver(conn, scratch.folder, "copy")
            insist(scratch, target, "m")
            scratch.append(3, user_id="ann\\é", metadata={"x": 0.1, "b": "00ff5c"})
            scratch.append(3, user_id="ben", metadata={"x": 0.1, "b": "00ff5c"})
            scratch.drain()
            deliver(conn, scratch.folder, "copy")
            deliverer = Deliverer(conn, Compiler(scratch.folder), "auditor")
            found = audit(conn, deliverer, sinks.known(conn, "copy"))
            deliverer.release()
            assert (found.wrong, found.skipped) == ([], None)
        admin.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(of.info.dbname)))
    insist(scratch, target, "m")


def test_a_publication_of_all_tables(scratch: Scratch, target: Connection) -> None:
    target.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    scratch.append(1, user_id="ann")
    scratch.drain()
    insist(scratch, target, "m")


def test_a_publication_of_all_tables_of_the_metric(scratch: Scratch, target: Connection) -> None:
    with psycopg.connect(scratch.url, autocommit=True) as admin:
        admin.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    collapse(scratch.worker, sinks.known(scratch.worker, "copy").sink_id)
    insist(scratch, target, "m")
    scratch.append(1, user_id="ann")
    scratch.drain()
    insist(scratch, target, "m")
    deploy.drop(scratch.worker, sinks.known(scratch.worker, "copy"))


def test_a_drop_does_not_wait_for_a_backup(scratch: Scratch, target: Connection) -> None:
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    sink = sinks.known(scratch.worker, "copy")
    with psycopg.connect(scratch.url) as dump:
        dump.execute(f"LOCK TABLE pgmq.q_{queue(sink.sink_id)} IN ACCESS SHARE MODE".encode())
        with pytest.raises(BuildError, match="perhaps a backup"):
            deploy.drop(scratch.worker, sink)
    scratch.append(1, user_id="ann")
    scratch.drain()
    insist(scratch, target, "m")
    deploy.drop(scratch.worker, sink)


def test_a_backup_does_not_stop_pages(scratch: Scratch, target: Connection) -> None:
    """pg_dump holds ACCESS SHARE on every table for hours; a collapse or a switch must not make pages wait for it."""

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
