"""Fault 29: settings on the role or the database. They change what nobody asked refold for, and never a metric."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner

from refold import Log, append
from refold.cli.app import app
from refold.engine.deployment.deploy import rebuild
from refold.engine.reconcile.reconcile import reconcile
from refold.errors import DatabaseError
from refold.postgres.connect import Role
from refold.postgres.connect import connect as connect_as
from refold.postgres.session import SESSION
from refold.store.schema.migrate import migrate
from tests.conftest import ServerUnderTest
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.making import small_segments

Connection = psycopg.Connection[Any]
Settings = Mapping[str, str]

WAITS = {
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    "transaction_timeout": "5s",
    "idle_session_timeout": "5s",
    "idle_in_transaction_session_timeout": "5s",
    "exit_on_error": "on",
}
TRANSACTIONS = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
}
TEXT = {
    "client_encoding": "LATIN1",
    "TimeZone": "Asia/Kathmandu",
    "timezone_abbreviations": "India",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "xmlbinary": "hex",
    "xmloption": "document",
    "lc_numeric": "POSIX",
    "lc_monetary": "POSIX",
    "lc_time": "POSIX",
    "lc_messages": "POSIX",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "escape_string_warning": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "search_path": "nowhere",
}
OTHER_TEXT = {
    "client_encoding": "SQL_ASCII",
    "DateStyle": "SQL, MDY",
    "IntervalStyle": "iso_8601",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "search_path": "public, pg_catalog",
}
OBJECTS = {
    "row_security": "off",
    "check_function_bodies": "off",
    "default_table_access_method": "odd",
    "createrole_self_grant": "set, inherit",
    "client_min_messages": "error",
    "synchronous_commit": "off",
    "default_tablespace": "pg_default",
    "temp_tablespaces": "pg_default",
    "default_toast_compression": "pglz",
    "vacuum_cost_delay": "1ms",
}
PLANS = {
    "plan_cache_mode": "force_generic_plan",
    "debug_parallel_query": "on",
    "jit": "on",
    "jit_above_cost": "0",
    "work_mem": "64kB",
    "maintenance_work_mem": "1MB",
    "temp_buffers": "800kB",
    "from_collapse_limit": "1",
    "join_collapse_limit": "1",
    "geqo_threshold": "2",
    "default_statistics_target": "1",
    "random_page_cost": "0",
    "cursor_tuple_fraction": "0",
    "constraint_exclusion": "on",
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
    "max_parallel_workers_per_gather": "4",
    "synchronize_seqscans": "on",
    **{name: "off" for name in SESSION if name.startswith("enable_")},
}
WAYS: dict[str, Settings] = {
    "session": WAITS | TRANSACTIONS | OBJECTS,
    "text and plans": TEXT | PLANS,
    "other text": OTHER_TEXT,
}
ONLY_OURS = {"restrict_nonsystem_relation_kind": "view, foreign-table", "session_replication_role": "replica"}
"""In a producer's own session the first makes every view an error, and the second is for a subscriber."""

INDIFFERENT = frozenset({
    # Costs, memory and estimates are the operator's to tune: every plan gives the same rows.
    *("cursor_tuple_fraction", "constraint_exclusion", "default_statistics_target", "recursive_worktable_factor"),
    *("from_collapse_limit", "join_collapse_limit", "jit", "plan_cache_mode"),
    # Orders of joins and keys that a newer server tries: all of them right.
    *("enable_distinct_reordering", "enable_group_by_reordering", "enable_partitionwise_aggregate"),
    *("enable_partitionwise_join", "enable_presorted_aggregate", "enable_self_join_elimination"),
    *("enable_parallel_append", "enable_parallel_hash", "enable_async_append"),
    # Where things are kept, and how small.
    *("temp_tablespaces", "default_toast_compression", "gin_fuzzy_search_limit"),
    *("gin_pending_list_limit", "lo_compat_privileges", "synchronize_seqscans", "event_triggers"),
    *("vacuum_cleanup_index_scale_factor", "allow_alter_system", "default_with_oids"),
    # Ends of values, and of transactions, that are told as errors.
    *("transaction_isolation", "transaction_read_only", "transaction_deferrable"),
    *("vacuum_failsafe_age", "vacuum_freeze_min_age", "vacuum_freeze_table_age", "vacuum_multixact_failsafe_age"),
    *("vacuum_multixact_freeze_min_age", "vacuum_multixact_freeze_table_age", "icu_validation_level"),
    # No text of refold's is searched, and no message is read.
    *("default_text_search_config", "lc_messages", "client_encoding"),
    # Superusers' alone; refold's sessions refuse to be a replica's.
    "session_replication_role",
})  # fmt: skip

INSTANTS = [
    datetime(2026, 3, 8, 7, tzinfo=UTC) + timedelta(hours=7 * number, microseconds=number) for number in range(30)
]


def offered(prefix: str) -> list[dict[str, Any]]:
    """Events with what settings change: microseconds, no user, users that look like NULL, texts beyond Latin."""
    users = (None, "NULL", "Žofie", "\\N", "名前", "\\'", "null")
    return [
        {
            "id": f"{prefix}{number}",
            "user_id": users[number % len(users)],
            "action": "purchase",
            "ts": f"{ts:%Y-%m-%dT%H:%M:%S}.{ts.microsecond:06d}999+00:00",
            "metadata": {"amount": number * 7, "ž": "名前 \\ '"},
        }
        for number, ts in enumerate(INSTANTS)
    ]


def known(admin: Connection, name: str) -> bool:
    return admin.execute("SELECT current_setting(%s, true)", (name,)).fetchone() != (None,)


@contextmanager
def database_with(server: ServerUnderTest, settings: Settings) -> Iterator[str]:
    """An empty database with settings that hold for everybody in it; gives its URL."""
    name = f"refold_hostile_{os.getpid()}"
    with psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        url = server.url_of(name)
        with psycopg.connect(url, autocommit=True) as inside:
            inside.execute("CREATE ACCESS METHOD odd TYPE TABLE HANDLER heap_tableam_handler")
        for setting, value in settings.items():
            if known(admin, setting):
                text = sql.SQL(value) if setting in ("search_path", "temp_tablespaces") else sql.Literal(value)
                admin.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    sql.Identifier(name), sql.Identifier(setting), text))  # fmt: skip
        try:
            yield url
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def producing(url: str) -> psycopg.Connection[Any]:
    """A producer's own session, with everything that the database says; it must be able to write."""
    conn = psycopg.connect(url)
    conn.read_only = False
    return conn


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_whole_way(way: str, server: ServerUnderTest, tmp_path: Path) -> None:
    with database_with(server, WAYS[way]) as url:
        migrate(url)
        make_live(url)
        with producing(url) as producer:
            append(producer, offered("python-"))
            append(producer, [*offered("bulk-"), *offered("bulk-more-"), *offered("bulk-most-")], source="名前")
            append(producer, [{"id": "bad", "user_id": "", "action": "ž", "ts": "名前"}], source="名前")
        with producing(url) as producer:
            producer.execute(b"SELECT refold.append($$" + ascii_json(offered("sql-")) + b"$$)")
        with Log(url) as log:
            receipts = log.append(offered("log-"))
            assert {receipt.answer.value for receipt in receipts} == {"accepted"}
            assert {receipt.answer.value for receipt in log.append(offered("python-"))} == {"duplicate"}
            assert {receipt.answer.value for receipt in log.append(offered("sql-"))} == {"duplicate"}
        ingested = tmp_path / "events.jsonl"
        ingested.write_bytes(b"".join(ascii_json([event])[1:-1] + b"\n" for event in offered("file-")))
        told = run("ingest", "--database-url", url, str(ingested))
        assert "30" in told
        drain(url)
        with connect_as(url, "refold_worker", autocommit=True) as worker:
            assert reconcile(worker, SHOP).drift == 0
            assert reconcile(worker, SHOP, depth="slice").drift == 0
            assert reconcile(worker, SHOP, since=INSTANTS[3]).drift == 0
            rebuild(worker, SHOP, ["daily", "graded"], lambda progress: None, cascade=True)
            assert worker.execute(
                "SELECT DISTINCT a.amname FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam"
                " JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'refold_builds' AND c.relkind = 'r'"
            ).fetchall() == [("heap",)]
        for command in ("status", "doctor", "incidents", "report"):
            run(command, "--database-url", url, codes=(0, 1))
        assert "210" in run("query", "--database-url", url, "SELECT sum(events) FROM daily")
        told = run("rejected", "--database-url", url)
        assert "名前" in told or "\\u540d\\u524d" in told
        migrate(url)
        with psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE refold_hostile_{os.getpid()} RESET ALL".encode())
        assert wrong(url) == {}
        with psycopg.connect(url) as conn:
            for prefix in ("python-", "bulk-", "sql-", "log-", "file-"):
                rows = conn.execute(
                    "SELECT event_id, user_id, ts, metadata FROM refold.events WHERE event_id ~ ('^' || %s || '[0-9]')"
                    " ORDER BY ts",
                    (prefix,),
                ).fetchall()
                assert rows == [
                    (event["id"], event["user_id"], ts, event["metadata"])
                    for event, ts in zip(offered(prefix), INSTANTS, strict=True)
                ]


def ascii_json(events: list[dict[str, Any]]) -> bytes:
    return json.dumps(events).encode()


def run(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code in codes, (done.output, done.exception)
    return done.output


def test_a_segment_that_a_producers_session_makes_is_like_the_others(
    admin: Connection, database_url: str, connect: Callable[..., Connection]
) -> None:
    small_segments(admin, 10)
    admin.execute("CREATE ACCESS METHOD odd TYPE TABLE HANDLER heap_tableam_handler")
    with connect() as producer:
        for name, value in (TEXT | OBJECTS | PLANS).items():
            if known(admin, name) and name not in ("client_encoding", "temp_buffers"):
                producer.execute("SELECT set_config(%s, %s, false)", (name, value))
        append(producer, offered("e"))
        append(producer, offered("f"))
        append(producer, offered("g"))
    assert admin.execute(
        "SELECT DISTINCT a.amname, c.reltablespace FROM refold.segments AS s"
        " JOIN pg_class AS c ON c.oid = s.segment JOIN pg_am AS a ON a.oid = c.relam"
    ).fetchall() == [("heap", 0)]
    assert admin.execute("SELECT count(*) FROM refold.events WHERE user_id IS NULL").fetchone() == (15,)


# ---------------------------------------------------------------- what a session starts with


@pytest.mark.parametrize("role", [None, "refold_worker", "refold_producer", "refold_analyst", "refold_owner"])
def test_every_session_has_what_refold_depends_on(role: Role | None, admin: Connection, database_url: str) -> None:
    everything = WAITS | TRANSACTIONS | TEXT | OBJECTS | PLANS | ONLY_OURS
    admin.execute("CREATE ACCESS METHOD odd TYPE TABLE HANDLER heap_tableam_handler")
    for name, value in everything.items():
        if known(admin, name):
            text = sql.SQL(value) if name in ("search_path", "temp_tablespaces") else sql.Literal(value)
            admin.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                sql.Identifier(admin.info.dbname), sql.Identifier(name), text))  # fmt: skip
    with connect_as(database_url, role, autocommit=True) as conn:
        for name, value in {**SESSION, "session_replication_role": "origin", "role": role or "none"}.items():
            row = conn.execute("SELECT current_setting(%s, true)", (name,)).fetchone()
            assert row in ((value,), (None,)), name
        assert conn.info.encoding == "utf-8"
        assert conn.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
        assert conn.execute("SHOW work_mem").fetchone() == ("64kB",), "memory is the operator's"
    with connect_as(database_url, role, autocommit=True, settings={"plan_cache_mode": "force_generic_plan"}) as conn:
        assert conn.execute("SHOW plan_cache_mode").fetchone() == ("force_generic_plan",)


def test_settings_and_role_take_one_round_trip(admin: Connection, database_url: str) -> None:
    with connect_as(database_url, "refold_worker", autocommit=True, application_name="counted") as conn:
        row = admin.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", (conn.info.backend_pid,)).fetchone()
    assert row is not None and "set_config" in row[0]


def test_every_setting_of_a_session_has_been_thought_of(admin: Connection) -> None:
    """A new version of Postgres brings new ones: put each into SESSION, or say here why it does not matter."""
    rows = admin.execute(
        """
        SELECT name FROM pg_settings
        WHERE context IN ('user', 'superuser')
          AND (category LIKE 'Client Connection Defaults / Statement Behavior'
               OR category LIKE 'Client Connection Defaults / Locale and Formatting'
               OR category LIKE 'Query Tuning / %' AND category NOT LIKE '%Cost%' AND name NOT LIKE '%geqo%'
               OR category LIKE 'Version and Platform Compatibility%'
               OR category = 'Error Handling')
        """
    ).fetchall()
    assert {name for (name,) in rows} - SESSION.keys() - INDIFFERENT == set()


def test_a_login_that_is_a_replica_is_refused(admin: Connection, database_url: str) -> None:
    """Triggers do not fire in its sessions, and only a superuser may change that."""
    login = f"refold_replica_{os.getpid()}"
    name = sql.Identifier(login)
    admin.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE refold_worker").format(name))
    admin.execute(sql.SQL("ALTER ROLE {} SET session_replication_role = replica").format(name))
    try:
        with pytest.raises(DatabaseError, match="as a replica does"):
            connect_as(make_conninfo(database_url, user=login), "refold_worker")
    finally:
        admin.execute(sql.SQL("DROP ROLE {}").format(name))


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_is_not_in_utf8_is_refused(encoding: str, server: ServerUnderTest) -> None:
    name = f"refold_encoded_{os.getpid()}"
    with psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'".encode())
        try:
            with pytest.raises(DatabaseError, match=f"has the encoding {encoding}, but refold needs UTF8") as refused:
                migrate(server.url_of(name))
            assert "CREATE DATABASE" in (refused.value.remedy or "")
            with psycopg.connect(server.url_of(name)) as conn:
                assert conn.execute("SELECT to_regnamespace('refold')").fetchone() == (None,)
        finally:
            admin.execute(f"DROP DATABASE {name}".encode())


def test_a_producer_that_may_not_write_is_told_so(admin: Connection, database_url: str) -> None:
    """The default of a login is its own; what Postgres says is what there is to say."""
    with (
        psycopg.connect(database_url, options="-c default_transaction_read_only=on") as conn,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        append(conn, offered("e"))
