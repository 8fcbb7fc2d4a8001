"""txid and position are the database's to give: a reader would skip an event that chose its own."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import append
from tests.support.making import events, small_segments, stored

Connection = psycopg.Connection[Any]

FORGED = [
    ("position", "1"),
    ("position", "currval('refold.events_position') - 1"),
    ("position", "currval('refold.events_position') + 5"),
    ("txid", "'3'"),
    ("txid", "(pg_current_xact_id()::text::bigint - 1)::text::xid8"),
    ("txid", "(pg_current_xact_id()::text::bigint + 1)::text::xid8"),
]


@pytest.mark.parametrize("role", ["refold_owner", "superuser"])
def test_forged_coordinates_are_refused(admin: Connection, role: str) -> None:
    append(admin, events(3))
    if role != "superuser":
        admin.execute(f"SET ROLE {role}".encode())
    for column, value in FORGED:
        with pytest.raises(psycopg.errors.GeneratedAlways, match="only the database sets txid") as refused:
            admin.execute(
                f"INSERT INTO refold.events (event_id, action, ts, {column}) VALUES ('f', 'x', now(), {value})".encode()
            )
        assert refused.value.diag.message_hint == "Leave both columns out of the INSERT or COPY."
    for column, number in [("position", 1), ("position", 10**6), ("txid", 3)]:
        with (
            pytest.raises(psycopg.errors.GeneratedAlways),
            admin.cursor() as cursor,
            cursor.copy(f"COPY refold.events (event_id, action, ts, {column}) FROM STDIN".encode()) as copy,
        ):
            copy.write_row(["f", "x", "2026-03-02", number])
    assert len(stored(admin)) == 3


def test_a_session_that_has_drawn_no_position_cannot_forge_one(connect: Callable[..., Connection]) -> None:
    """There Postgres has no last position to compare with, and says so itself."""
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="events_position"):
        connect().execute("INSERT INTO refold.events (event_id, action, ts, position) VALUES ('f', 'x', now(), 1)")


def test_a_producer_may_not_even_name_them(producer: Connection) -> None:
    for column in ("txid", "position", "recorded_at"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), producer.transaction():
            producer.execute(
                f"INSERT INTO refold.events (event_id, action, ts, {column}) VALUES ('f', 'x', now(), DEFAULT)".encode()
            )


COLUMNS = "refold.events (event_id, user_id, action, ts, metadata, version)"
HONEST = {
    "values": f"INSERT INTO {COLUMNS} VALUES ('a', NULL, 'x', now(), '{{}}', 1)",
    "many values": f"INSERT INTO {COLUMNS} SELECT * FROM (VALUES "
    + ", ".join(f"('a{n}', NULL, 'x', now(), '{{}}'::jsonb, 1)" for n in range(30))
    + ") AS v",
    "rows of values": f"INSERT INTO {COLUMNS} VALUES "
    + ", ".join(f"('a{n}', NULL, 'x', now(), '{{}}', 1)" for n in range(30)),
    "select": f"INSERT INTO {COLUMNS} SELECT 'a' || n, NULL, 'x', now(), '{{}}', 1 FROM generate_series(1, 30) AS n",
    "sorted": f"INSERT INTO {COLUMNS} SELECT 'a' || n, NULL, 'x', now(), '{{}}', 1 FROM generate_series(1, 30) AS n"
    " ORDER BY md5(n::text) DESC",
    "joined": f"INSERT INTO {COLUMNS} SELECT 'a' || n || m, NULL, 'x', now(), '{{}}', 1"
    " FROM generate_series(1, 5) AS n JOIN generate_series(1, 30) AS m ON m % 5 = n % 5 ORDER BY m, n LIMIT 30",
    "grouped": f"INSERT INTO {COLUMNS} SELECT 'a' || n % 30, NULL, 'x', now(), '{{}}', count(*)"
    " FROM generate_series(1, 300) AS n GROUP BY n % 30",
    "with": f"WITH fresh AS (SELECT 'a' || n AS id FROM generate_series(1, 30) AS n), put AS (INSERT INTO {COLUMNS}"
    " SELECT id, NULL, 'x', now(), '{}', 1 FROM fresh ORDER BY id RETURNING event_id) SELECT * FROM put",
    "plpgsql": f"DO $$ BEGIN FOR n IN 1..30 LOOP INSERT INTO {COLUMNS}"
    " VALUES ('a' || n, NULL, 'x', now(), '{}', 1); END LOOP; END $$",
    "function": "SELECT refold.append(jsonb_build_array(jsonb_build_object('id', 'a' || n, 'action', 'x', 'ts', n)))"
    " FROM generate_series(1, 30) AS n",
    "defaults": "INSERT INTO refold.events (txid, position, event_id, action, ts)"
    " VALUES (DEFAULT, DEFAULT, 'a', 'x', now()), (DEFAULT, DEFAULT, 'b', 'x', now())",
    "trigger": "INSERT INTO orders SELECT n FROM generate_series(1, 30) AS n",
}
TRIGGER = f"""
CREATE TABLE orders (id integer);
CREATE FUNCTION note_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {COLUMNS} VALUES ('order-' || NEW.id, NULL, 'ordered', now(), '{{}}', 1);
    RETURN NEW;
END $$;
CREATE TRIGGER note BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note_order();
"""


@pytest.mark.slow
def test_honest_inserts_pass_whatever_their_form(admin: Connection) -> None:
    """The guard compares with the session's last position: that must be this row's in every plan."""
    small_segments(admin, 7)
    admin.execute("UPDATE refold.settings SET segments_ahead = 150")
    admin.execute("SELECT refold.ensure_segments()")
    admin.execute(TRIGGER)
    failed = {}
    for name, statement in HONEST.items():
        for mode in ("force_custom_plan", "force_generic_plan"):
            try:
                with admin.transaction(force_rollback=True):
                    admin.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
                    admin.execute(
                        "SET LOCAL debug_parallel_query = on"
                        if admin.info.server_version >= 160000
                        else "SET LOCAL force_parallel_mode = on"
                    )
                    admin.execute(statement.encode())
                    assert stored(admin)
            except psycopg.Error as error:
                failed[name, mode] = str(error)
    assert failed == {}
    with admin.cursor() as cursor, cursor.copy(f"COPY {COLUMNS} FROM STDIN") as copy:
        for number in range(300):
            copy.write_row([f"c{number}", None, "x", "2026-03-02", "{}", 1])
    rows = admin.execute(
        "SELECT event_id, txid::text = min(txid::text) OVER () FROM refold.events ORDER BY position"
    ).fetchall()
    assert rows == [(f"c{number}", True) for number in range(300)]


def test_a_transaction_has_its_id_before_it_draws_a_position(admin: Connection) -> None:
    """Else a position drawn early could land in a segment that was sealed meanwhile."""
    admin.execute(
        """
        ALTER TABLE refold.events ALTER position SET DEFAULT
            CASE WHEN pg_current_xact_id_if_assigned() IS NULL THEN -1 ELSE nextval('refold.events_position') END
        """
    )
    for statement in HONEST.values():
        if "orders" not in statement:
            with admin.transaction(force_rollback=True):
                admin.execute(statement.encode())
    assert admin.execute(
        "SELECT seqcache FROM pg_sequence WHERE seqrelid = 'refold.events_position'::regclass"
    ).fetchone() == (1,)
