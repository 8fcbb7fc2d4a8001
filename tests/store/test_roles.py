"""Who may do what: a producer appends, a worker keeps builds, an analyst reads metrics; nobody else does anything."""

from __future__ import annotations

import os
from typing import Any

import psycopg
import pytest

from refold import Log, append
from refold.errors import DatabaseError
from refold.postgres.connect import connect as connect_as
from refold.store.schema.installed import check
from tests.conftest import ServerUnderTest
from tests.support.live import drain, make_live, wrong
from tests.support.logins import login
from tests.support.making import events, ids, stored

Connection = psycopg.Connection[Any]

INSERT = "INSERT INTO refold.events (event_id, action, ts) VALUES ('x', 'x', now())"
CHANGES = ["UPDATE refold.events SET action = 'x'", "DELETE FROM refold.events", "TRUNCATE refold.events"]
READ_LOG = ["SELECT * FROM refold.events", "SELECT event_id FROM refold.event_ids", "SELECT * FROM refold.rejected"]
APPEND = "SELECT refold.append('[]')"
MAKE = [
    "CREATE TABLE refold.mine (id integer)",
    "CREATE TABLE refold_builds.mine (id integer)",
    "CREATE VIEW metrics.mine AS SELECT 1",
    "CREATE FUNCTION refold.mine() RETURNS integer LANGUAGE sql RETURN 1",
    "ALTER TABLE refold.events DISABLE TRIGGER ALL",
    "DROP TABLE refold.events",
    "DROP TABLE {segment}",
    "ALTER TABLE refold.events DETACH PARTITION {segment}",
    "CREATE TRIGGER mine BEFORE INSERT ON refold.events EXECUTE FUNCTION refold.notify_sleepers()",
]
SEQUENCE = "SELECT setval('refold.events_position', 1)"
LEDGER = [
    "INSERT INTO refold.event_ids VALUES ('x', 1, 1)", "DELETE FROM refold.event_ids",
    "INSERT INTO refold.cold_ids DEFAULT VALUES", "UPDATE refold.cold_ids SET ids = '{{}}'",
    "DELETE FROM refold.cold_ids", "UPDATE refold.cold_ranges SET ids = 0", "DELETE FROM refold.cold_ranges",
    "SELECT refold.chill(1, 2)", "SELECT refold.add_cold_ids(1, 2)", "SELECT refold.silence_ids('{{x}}')",
]  # fmt: skip
SETTINGS = "UPDATE refold.settings SET segment_size = 1"
MOVE = "UPDATE refold.cursors SET done = '1:1:'"
BUILDS = [MOVE, "DELETE FROM refold.cursors", "DELETE FROM refold.builds", "SELECT * FROM refold.builds_now"]
TABLES = ["SELECT * FROM {table}", "DELETE FROM {table}", "INSERT INTO {table} DEFAULT VALUES"]
COUNTING = [
    "SELECT * FROM refold.unread('1:1:', NULL, NULL, NULL)",
    "SELECT * FROM refold.oldest_unread('1:1:', NULL, NULL, NULL)",
    "SELECT refold.has_unread('1:1:', '1')",
]
"""The log with cursors of one's own making."""
METRICS = ["DELETE FROM metrics.purchases", "UPDATE metrics.purchases SET amount = 0", "DROP VIEW metrics.daily"]

CAPTURES = [
    "INSERT INTO refold.captures DEFAULT VALUES", "DELETE FROM refold.capture_gaps", "DELETE FROM refold.backfills",
    "SELECT nextval('refold.capture_ordinals')", "SELECT refold.set_aside('a', 'b', 'c')",
    "SELECT refold.store_captured('{{}}')", "SELECT refold.ensure_capture_room(1)",
    "CREATE FUNCTION refold_captures.mine() RETURNS integer LANGUAGE sql RETURN 1",
]  # fmt: skip

BACKFILLS = [
    "INSERT INTO refold.file_backfills (name, files, options) VALUES ('mine', '[]', '{{}}')",
    "UPDATE refold.file_backfills SET mark = 0", "DELETE FROM refold.file_backfills",
    "CREATE TABLE refold_backfill.mine (id integer)", "SELECT refold.admit_parsed('{{}}')",
]  # fmt: skip

SINKS = [
    "INSERT INTO refold.sinks DEFAULT VALUES", "UPDATE refold.sinks SET projection = 'x'", "DELETE FROM refold.sinks",
    "INSERT INTO refold.sink_states DEFAULT VALUES", "DELETE FROM refold.sink_states",
    "UPDATE refold.sink_checksums SET rows = 0", "SELECT * FROM refold.sink_keys", "DELETE FROM refold.undelivered",
    "SELECT pgmq.create('mine')", "DELETE FROM pgmq.meta",
]  # fmt: skip

ERASE = [
    "INSERT INTO refold.erasures DEFAULT VALUES", "UPDATE refold.erasures SET subject = 'x'",
    "DELETE FROM refold.erasures", "INSERT INTO refold.erased_events DEFAULT VALUES",
    "UPDATE refold.erased_events SET digest = 0", "DELETE FROM refold.erased_events",
    "UPDATE refold.erasure_key SET inner_pad = 'x'",
]  # fmt: skip
"""What only the owner may."""
ERASURES = [
    *ERASE, "UPDATE refold.erasures SET step = 'done'", "SELECT * FROM refold.erasure_key",
    "SELECT refold.erasure_mac('x')",
]  # fmt: skip
ERASED = ["SELECT reason FROM refold.erasures", "SELECT evidence FROM refold.erasures",
          "SELECT mac FROM refold.erased_events"]  # fmt: skip
"""What may tell more than an observer may see."""

ARCHIVE = [
    "UPDATE refold.archive_store SET owner = 'x'", "UPDATE refold.archive_store SET location = 'x'",
    "DELETE FROM refold.archive_store", "INSERT INTO refold.archive_store DEFAULT VALUES",
    "SELECT refold.create_segment(1, 2)",
]  # fmt: skip
"""What only the owner may."""
ARCHIVES = [
    *ARCHIVE, "UPDATE refold.archive_store SET turns = '{{}}'", "UPDATE refold.archives SET state = 'verified'",
    "DELETE FROM refold.archive_slices", "INSERT INTO refold.archives DEFAULT VALUES", "SELECT refold.chill_step()",
]  # fmt: skip
MANIFEST = ["SELECT * FROM refold.archives", "SELECT location FROM refold.archive_store"]
CONTRACTS = [
    "INSERT INTO refold.contracts DEFAULT VALUES", "UPDATE refold.contracts SET level = 'off'",
    "DELETE FROM refold.contracts", "INSERT INTO refold.violations DEFAULT VALUES", "DELETE FROM refold.violations",
    "SELECT event_id FROM refold.violations",
]  # fmt: skip
"""Of which producers, and those who read, do nothing themselves: the log's trigger judges for them."""
CANARIES = [
    "INSERT INTO refold.canaries (steps, soak, expect) VALUES ('{{100}}', '1h', '{{}}')",
    "UPDATE refold.canaries SET step = 1", "DELETE FROM refold.canaries", "DELETE FROM refold.canary_builds",
    "UPDATE refold.canary_builds SET shown = false", "CREATE VIEW metrics_canary.mine AS SELECT 1",
]  # fmt: skip
RETENTIONS = [
    "INSERT INTO refold.retentions (projection, keep) VALUES ('daily', '1 day')", "DELETE FROM refold.retentions",
    "UPDATE refold.retentions SET keep = '1 day'", "UPDATE refold.builds SET retained_from = 1",
]  # fmt: skip
UNSEEN = ["SELECT steps FROM refold.canaries", "SELECT verdict FROM refold.canary_builds"]

FORBIDDEN = {
    "refold_capture": [
        *RETENTIONS, *ERASURES, *ERASED,
        *SINKS, *ARCHIVES, *MANIFEST, *CONTRACTS, *CANARIES, *UNSEEN,
        "SELECT * FROM refold.events", "SELECT digest FROM refold.event_ids", "SELECT * FROM refold.rejected",
        *CHANGES, *MAKE, *LEDGER, MOVE, "DELETE FROM refold.builds", *TABLES, *METRICS, SEQUENCE, SETTINGS, APPEND,
        *COUNTING, "SELECT * FROM metrics.daily", "COPY refold.events TO STDOUT", INSERT + " RETURNING txid",
    ],
    "refold_backfill": [
        *RETENTIONS, *ERASURES, *ERASED,
        *SINKS, *CAPTURES, *READ_LOG, *CHANGES, *MAKE, *LEDGER, *BUILDS, *TABLES, *METRICS, SEQUENCE, SETTINGS, INSERT,
        APPEND, *COUNTING, "SELECT * FROM metrics.daily", "DELETE FROM refold.file_backfills",
        "INSERT INTO refold.incidents DEFAULT VALUES", "COPY refold.events (event_id, action, ts) FROM STDIN",
    ],
    "refold_producer": [
        *RETENTIONS, *ERASURES, *ERASED,
        *SINKS, *ARCHIVES, *MANIFEST, *BACKFILLS[:-1], "SELECT name FROM refold.file_backfills", *CANARIES, *UNSEEN,
        *CONTRACTS, "SELECT * FROM refold.contracts", "SELECT refold.judge('{{}}')",
        *CAPTURES, *READ_LOG, *CHANGES, *MAKE, *LEDGER, *BUILDS, *TABLES, *METRICS, SEQUENCE, SETTINGS,
        "SELECT * FROM metrics.daily", "SELECT refold.ensure_segments()", "INSERT INTO refold.rejected DEFAULT VALUES",
        INSERT + " RETURNING txid", "COPY refold.events TO STDOUT", *COUNTING, "SELECT * FROM refold.unread_now()",
    ],
    "refold_analyst": [
        *RETENTIONS, *ERASURES, *ERASED,
        *SINKS, *ARCHIVES, *MANIFEST, *BACKFILLS, "SELECT name FROM refold.file_backfills", *CANARIES, *UNSEEN,
        *CONTRACTS, "SELECT * FROM refold.contracts",
        *CAPTURES, *READ_LOG, *CHANGES, *MAKE, *LEDGER, *BUILDS, *TABLES, *METRICS, SEQUENCE, SETTINGS, INSERT, APPEND,
        *COUNTING,
    ],
    "refold_worker": [
        *ERASE,
        *ARCHIVE, *BACKFILLS, *CAPTURES, *CHANGES, *LEDGER, SEQUENCE, SETTINGS, INSERT, APPEND, MOVE,
        "DELETE FROM refold.builds", "UPDATE refold.sink_states SET epoch = 0",
        "DELETE FROM refold.canaries", "DELETE FROM refold.canary_builds",
        "UPDATE refold.contracts SET schema = '{{}}'", "DELETE FROM refold.contracts",
        "UPDATE refold.violations SET events = 0", "SELECT refold.judge('{{}}')",
        *(statement for statement in MAKE if "refold_builds" not in statement and "metrics" not in statement),
        "COPY refold.events (event_id, action, ts) FROM STDIN",
        "SELECT refold.admit('[]')", "SELECT refold.reject('a', 1, 'invalid', 'x', 'x')",
    ],
    "refold_observer": [
        *RETENTIONS, *ERASURES, *ERASED,
        *SINKS, *ARCHIVES, "SELECT error FROM refold.archive_store", "SELECT turns FROM refold.archive_store",
        *BACKFILLS, "SELECT findings FROM refold.file_backfills", "SELECT files FROM refold.file_backfills",
        *CONTRACTS, "SELECT schema FROM refold.contracts",
        *CANARIES, UNSEEN[-1], "SELECT because FROM refold.canaries",
        *CAPTURES, *READ_LOG, *CHANGES, *MAKE, *LEDGER, *TABLES, *METRICS, MOVE, SEQUENCE, SETTINGS, INSERT, APPEND,
        *COUNTING,
        "SELECT * FROM metrics.daily", "SELECT evidence FROM refold.incidents", "SELECT error FROM refold.builds_now",
        "SELECT definition FROM refold.builds_now", "SELECT event_id FROM refold.dead_letters",
        "SELECT error FROM refold.dead_letters", "SELECT definition FROM refold.sinks",
        "SELECT error FROM refold.sink_states", "SELECT key FROM refold.undelivered",
        "SELECT key FROM refold.repairs", "SELECT raw FROM refold.rejected",
        "UPDATE refold.incidents SET resolved_by = 'me'", "DELETE FROM refold.duties",
    ],
    "refold_inspector": [
        *RETENTIONS, *ERASURES,
        *SINKS, *ARCHIVES, *BACKFILLS, *CONTRACTS[:-1], *CANARIES,
        *CAPTURES, *CHANGES, *MAKE, *LEDGER, *TABLES[1:], *METRICS, MOVE, SEQUENCE, SETTINGS, INSERT, APPEND,
        "UPDATE refold.incidents SET resolved_by = 'me'",
        "UPDATE refold.builds SET error = 'x'", "DELETE FROM refold.dead_letters", "DELETE FROM refold.rejected",
    ],
    "nobody": [
        *RETENTIONS, *ERASURES, *ERASED,
        *SINKS, *ARCHIVES, *MANIFEST, *BACKFILLS, *CONTRACTS, "SELECT * FROM refold.contracts", *CANARIES, *UNSEEN,
        *CAPTURES, *READ_LOG, *CHANGES, *MAKE, *LEDGER, *BUILDS, *TABLES, *METRICS, SEQUENCE, SETTINGS, INSERT, APPEND,
        "SELECT * FROM metrics.freshness", "SELECT * FROM metrics.daily", "SELECT refold.sleepers_lock()",
    ],
}  # fmt: skip


@pytest.fixture
def admin(conn: Connection) -> Connection:
    conn.autocommit = True
    return conn


@pytest.mark.live("shop")
@pytest.mark.parametrize("role", FORBIDDEN)
def test_what_a_role_may_not(server: ServerUnderTest, database_url: str, admin: Connection, role: str) -> None:
    tables = make_live(database_url)
    ((segment,),) = admin.execute("SELECT min(segment::text) FROM refold.segments").fetchall()
    roles = [] if role == "nobody" else [role]
    done = []
    with login(server, admin, *roles) as url, psycopg.connect(url, autocommit=True) as conn:
        for statement in FORBIDDEN[role]:
            text = statement.format(segment=segment, table=tables["purchases"])
            try:
                with conn.transaction():
                    conn.execute(text.encode())
            except psycopg.errors.InsufficientPrivilege:
                continue
            done.append(text)
    assert done == []


def test_a_producer_appends_through_every_door(server: ServerUnderTest, admin: Connection) -> None:
    with login(server, admin, "refold_producer") as url:
        with psycopg.connect(url) as conn:
            append(conn, [*events(100, "copy"), {"id": "bad"}])
            append(conn, events(101, "copy"))
            append(conn, events(2, "json"))
            conn.execute("""SELECT refold.append('[{"id": "sql", "action": "x", "ts": 0}, 7]')""")
            conn.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('plain', 'x', now())")
        with Log(url) as log:
            log.append(events(2, "log"))
        with pytest.raises(DatabaseError, match="may not act as refold_worker") as refused:
            connect_as(url, "refold_worker")
        assert refused.value.remedy is not None
        assert refused.value.remedy.startswith('GRANT refold_worker TO "refold_test_')
    expected = [*events(101, "copy"), *events(2, "json"), {"id": "sql"}, {"id": "plain"}, *events(2, "log")]
    assert stored(admin) == ids(expected)
    assert admin.execute("SELECT count(*) FROM refold.rejected").fetchone() == (2,)


def test_a_producer_cannot_lead_the_functions_astray(server: ServerUnderTest, admin: Connection) -> None:
    """They run as the owner: whatever the caller's temporary objects are called, they are not used."""
    with login(server, admin, "refold_producer") as url, psycopg.connect(url, autocommit=True) as conn:
        for table in ("settings", "events", "event_ids", "segments", "rejected", "events_position"):
            conn.execute(f"CREATE TEMPORARY TABLE {table} (LIKE pg_class)".encode())
        conn.execute(
            "CREATE FUNCTION pg_temp.digest(text, text, timestamptz, jsonb, integer) RETURNS bigint"
            " LANGUAGE sql RETURN 1"
        )
        conn.execute("SET search_path = pg_temp, public")
        append(conn, [*events(100), {"id": "bad"}])
        append(conn, [{**events(1)[0], "action": "other"}])
    assert len(stored(admin)) == 100
    assert admin.execute("SELECT answer FROM refold.rejected ORDER BY 1").fetchall() == [("conflict",), ("invalid",)]


def test_a_worker_keeps_builds(server: ServerUnderTest, database_url: str, admin: Connection) -> None:
    append(admin, events(20))
    # Deploying may put an index on the log, for which one has to be its owner too.
    with login(server, admin, "refold_worker", "refold_owner") as url:
        make_live(url)
    with login(server, admin, "refold_worker") as url:
        append(admin, events(30))
        drain(url)
        with connect_as(url, "refold_worker") as conn:
            check(conn)
            assert conn.execute("SELECT count(*) FROM refold.events").fetchone() == (30,)
        owned = admin.execute(
            "SELECT relname FROM pg_class WHERE relowner = (SELECT oid FROM pg_roles WHERE rolname = %s)",
            (f"refold_test_{os.getpid()}",),
        ).fetchall()
        # What it makes belongs to the role, not to whoever logged in.
        assert owned == []
    assert wrong(database_url) == {}


def test_an_analyst_reads_every_metric_and_how_far_to_trust_it(
    server: ServerUnderTest, database_url: str, admin: Connection
) -> None:
    append(admin, events(20))
    tables = make_live(database_url)
    with login(server, admin, "refold_analyst") as url, psycopg.connect(url) as conn:
        for metric in tables:
            assert conn.execute(f"SELECT count(*) > 0 FROM metrics.{metric}".encode()).fetchone() == (True,)
        fresh = conn.execute("SELECT metric, lag_events FROM metrics.freshness ORDER BY 1").fetchall()
        assert fresh == [(metric, 0) for metric in sorted(tables)]


def test_functions_that_run_as_the_owner_are_fenced(admin: Connection) -> None:
    rows = admin.execute(
        """
        SELECT proname, coalesce(proconfig::text, ''), has_function_privilege('public', oid, 'EXECUTE')
        FROM pg_proc WHERE pronamespace = 'refold'::regnamespace AND prosecdef
        """
    ).fetchall()
    assert {"append", "admit", "admit_parsed", "reject", "ensure_segments", "register_event_ids"} <= {
        name for name, _, _ in rows
    }
    for name, config, public in rows:
        assert "search_path=refold, pg_catalog, pg_temp" in config, name
        # The one is a trigger's; the other answers with one bit whoever reads a metric.
        assert not public or name in ("register_event_ids", "on_canary"), name


def test_everything_belongs_to_the_owner(admin: Connection) -> None:
    foreign = admin.execute(
        """
        SELECT relname FROM pg_class WHERE relnamespace = 'refold'::regnamespace AND relowner <> 'refold_owner'::regrole
        UNION ALL
        SELECT proname FROM pg_proc WHERE pronamespace = 'refold'::regnamespace AND proowner <> 'refold_owner'::regrole
        """
    ).fetchall()
    assert foreign == []
