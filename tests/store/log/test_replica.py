"""The role of a replica, which passes ordinary triggers: the log's guards stand there too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from refold import append
from refold.store.schema.migrate import migrate
from tests.support.clusters import cluster, make_database
from tests.support.making import events, ids, small_segments, stored
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]


@pytest.fixture
def replica(admin: Connection) -> Connection:
    """A superuser's session in the role of a replica, with events in several segments."""
    small_segments(admin, 10)
    append(admin, events(25))
    admin.execute("SET session_replication_role = replica")
    return admin


CHANGES = [
    "UPDATE {} SET action = 'other'",
    "DELETE FROM {} WHERE event_id = 'e1'",
    "DELETE FROM {}",
    "TRUNCATE {}",
]


HUGE = "INSERT INTO refold.events (event_id, action, ts, metadata) VALUES ('huge', 'x', now(), '{\"a\": 1e5000}')"


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_changed(replica: Connection, change: str) -> None:
    for table in ("refold.events", "refold.events_000000000000001", "refold.events_000000000000011"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
            replica.execute(change.format(table).encode())
    if "action" not in change:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
            replica.execute(change.format("refold.event_ids").encode())
    assert stored(replica) == ids(events(25))


def test_whoever_appends_passes_the_ledger(replica: Connection) -> None:
    assert [one.answer for one in append(replica, events(26))] == ["duplicate"] * 25 + ["accepted"]
    replica.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('plain', 'x', now())")
    with pytest.raises(psycopg.errors.UniqueViolation, match="event_ids_pkey"):
        replica.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('plain', 'x', now())")
    with replica.cursor() as cursor, cursor.copy("COPY refold.events (event_id, action, ts) FROM STDIN") as copy:
        copy.write_row(["copied", "x", "2026-03-02"])
    assert replica.execute("SELECT count(*) FROM refold.event_ids").fetchone() == (28,)


def test_which_triggers_fire(replica: Connection) -> None:
    """The log's and the ledger's fire, in each segment; those of other tables do not, as docs say."""
    silent = """
        SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger
        WHERE NOT tgisinternal AND tgenabled NOT IN ('A', 'R') AND tgparentid = 0
          AND tgrelid::regclass::text ~ '^refold[.]'
        ORDER BY 1
    """
    assert replica.execute(silent).fetchall() == [
        ("refold.builds",),
        ("refold.contracts",),
        ("refold.cursors",),
        ("refold.incidents",),
        ("refold.settings",),
    ]
    replica.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('plain', 'x', now())")
    assert replica.execute("SELECT count(*) FROM refold.event_ids WHERE event_id = 'plain'").fetchone() == (1,)


def test_the_limits_hold(replica: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="more than 2000 digits"):
        replica.execute(HUGE)


def test_what_is_older_than_a_limit_can_be_put_back(replica: Connection) -> None:
    replica.execute("ALTER TABLE refold.events DISABLE TRIGGER within_limits")
    replica.execute(HUGE)
    replica.execute("ALTER TABLE refold.events ENABLE ALWAYS TRIGGER within_limits")
    before = stored(replica)
    with replica.transaction():
        replica.execute("SET LOCAL refold.restoring = on")
        replica.execute("CREATE TEMPORARY TABLE backup AS SELECT * FROM refold.events WHERE event_id = 'huge'")
        replica.execute("DELETE FROM refold.events WHERE event_id = 'huge'")
        replica.execute("INSERT INTO refold.events OVERRIDING SYSTEM VALUE SELECT * FROM backup")
    assert stored(replica) == before


def test_coordinates_of_another_log_are_refused(replica: Connection) -> None:
    rows = "INSERT INTO {} (txid, position, event_id, action, ts) VALUES ('{}', 20, 'f', 'x', now())"
    with pytest.raises(psycopg.errors.GeneratedAlways) as refused:
        replica.execute(rows.format("refold.events", 5).encode())
    assert refused.value.diag.message_hint == "The log takes no replicated rows: append through refold.append(jsonb)."
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
        replica.execute(rows.format("refold.events_000000000000011", 5).encode())


def test_an_id_without_its_event_is_refused(replica: Connection) -> None:
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="takes no replicated rows"):
        replica.execute("INSERT INTO refold.event_ids (event_id, digest, position) VALUES ('x', 1, 1)")


def test_guards_that_a_restore_has_left_as_ordinary_ones(database_url: str, admin: Connection) -> None:
    """`pg_restore --disable-triggers` ends with ENABLE TRIGGER ALL, for each segment too."""
    small_segments(admin, 10)
    append(admin, events(25))
    for (table,) in admin.execute(
        "SELECT segment::text FROM refold.segments UNION VALUES ('refold.events'), ('refold.event_ids')"
    ).fetchall():
        admin.execute(f"ALTER TABLE {table} ENABLE TRIGGER ALL".encode())
    assert [one.answer for one in append(admin, events(26))] == ["duplicate"] * 25 + ["accepted"]
    migrate(database_url)
    states = (
        "SELECT DISTINCT tgenabled FROM pg_trigger WHERE tgname ~ '^(refuse_change(_of_row)?$|refuse_forgery|a_|b_)'"
    )
    assert admin.execute(states.encode()).fetchall() == [("A",)]


def test_only_who_may_act_as_the_owner_puts_events_back(producer: Connection, admin: Connection) -> None:
    append(admin, events(3))
    producer.execute("SET refold.restoring = on")
    # The login of this session is a superuser; acting as a producer it may still not name the columns.
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        producer.execute("INSERT INTO refold.events (txid, position, event_id) VALUES ('3', 1, 'x')")


def test_what_is_put_back_is_what_the_ledger_knows(admin: Connection) -> None:
    append(admin, events(3))
    admin.execute("CREATE TABLE kept AS SELECT * FROM refold.events")
    admin.execute("SET refold.restoring = on")
    admin.execute("DELETE FROM refold.events WHERE event_id <> 'e0'")
    for change in ("event_id = 'other'", "action = 'other'", "position = position + 100"):
        refused = pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="the ledger knows no such event")
        with refused, admin.transaction():
            admin.execute(f"UPDATE kept SET {change} WHERE event_id = 'e1'".encode())
            admin.execute("INSERT INTO refold.events SELECT * FROM kept WHERE event_id <> 'e0'")
    admin.execute("INSERT INTO refold.events SELECT * FROM kept WHERE event_id <> 'e0'")
    assert (
        admin.execute("SELECT * FROM refold.events ORDER BY 2").fetchall()
        == admin.execute("SELECT * FROM kept ORDER BY 2").fetchall()
    )
    admin.execute("RESET refold.restoring")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        admin.execute("DELETE FROM refold.events")


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[str, str]]:
    """Two databases with refold in them, on a server that can publish."""
    with cluster({"wal_level": "logical"}) as server:
        urls = make_database(server, "publisher"), make_database(server, "subscriber")
        for url in urls:
            migrate(url)
        yield urls


def test_a_subscription_to_another_log_brings_nothing(two: tuple[str, str]) -> None:
    publisher, subscriber = (psycopg.connect(url, autocommit=True) for url in two)
    with publisher, subscriber:
        publisher.execute("ALTER TABLE refold.events REPLICA IDENTITY FULL")
        publisher.execute("CREATE PUBLICATION log FOR TABLE refold.events")
        publisher.execute("SELECT pg_create_logical_replication_slot('log', 'pgoutput')")
        subscriber.execute(
            psycopg.sql.SQL(
                "CREATE SUBSCRIPTION log CONNECTION {} PUBLICATION log"
                " WITH (create_slot = false, slot_name = log, copy_data = false)"
            ).format(psycopg.sql.Literal(two[0]))
        )
        try:
            append(publisher, events(3))
            errors = "SELECT sum(apply_error_count) > 0 FROM pg_stat_subscription_stats"
            wait_until(lambda: subscriber.execute(errors).fetchone() == (True,), 60)
            assert stored(subscriber) == []
            assert [one.answer for one in append(subscriber, events(3))] == ["accepted"] * 3
        finally:
            subscriber.execute("ALTER SUBSCRIPTION log DISABLE")
            subscriber.execute("ALTER SUBSCRIPTION log SET (slot_name = NONE)")
            subscriber.execute("DROP SUBSCRIPTION log")
