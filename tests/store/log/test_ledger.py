"""The idempotence ledger: an id gets in once, through whatever door, and content is compared by value."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import append
from refold.store.log.append import BULK
from tests.support.making import events, stored

Connection = psycopg.Connection[Any]
GOOD: dict[str, Any] = {"id": "a", "user_id": "u", "action": "view", "ts": 1_577_836_800_000, "metadata": {"x": 1.5}}


def answer(conn: Connection, event: dict[str, Any]) -> str:
    return str(append(conn, [event])[0].answer)


SAME: list[dict[str, Any]] = [
    {"ts": "2020-01-01T00:00:00Z"},
    {"ts": "2020-01-01T01:00:00.0000001+01:00"},
    {"metadata": {"x": 1.50}},
    {"version": 1},
]


def test_equal_content_in_another_form_is_a_duplicate(producer: Connection) -> None:
    append(producer, [GOOD])
    assert [(change, answer(producer, {**GOOD, **change})) for change in SAME] == [(c, "duplicate") for c in SAME]


def test_content_is_compared_by_the_equality_of_its_types(producer: Connection) -> None:
    def sql(metadata: str) -> str:
        row = producer.execute(
            "SELECT answer FROM refold.append(%s::jsonb)",
            (f'[{{"id": "n", "action": "x", "ts": 0, "metadata": {metadata}}}]',),
        ).fetchone()
        assert row is not None
        return str(row[0])

    assert sql('{"a": 1.0, "b": [1e2, null]}') == "accepted"
    assert sql('{"b": [100, null], "a": 1.00}') == "duplicate"
    assert sql('{"b": [null, 100], "a": 1.00}') == "conflict"
    assert sql('{"b": [100, null], "a": "1.0"}') == "conflict"


OTHER: list[dict[str, Any]] = [
    {"user_id": "v"},
    {"user_id": None},
    {"action": "View"},
    {"ts": 1_577_836_800_001},
    {"metadata": {}},
    {"metadata": {"x": None}},
    {"metadata": {"x": 1.5, "y": None}},
    {"version": 2},
]


def test_other_content_is_a_conflict(producer: Connection, admin: Connection) -> None:
    append(producer, [GOOD])
    assert [(change, answer(producer, {**GOOD, **change})) for change in OTHER] == [(c, "conflict") for c in OTHER]
    assert answer(producer, GOOD) == "duplicate"
    producer.commit()
    assert admin.execute("SELECT user_id, metadata, version FROM refold.events").fetchall() == [("u", {"x": 1.5}, 1)]


def test_ids_differ_byte_by_byte(producer: Connection) -> None:
    """Whatever collation the database has: these are equal in some of them."""
    odd = ["a", "A", " a", "a ", "ä", "a\u0308", "\uff41", "1", "01"]
    assert {str(r.answer) for r in append(producer, [{**GOOD, "id": one} for one in odd])} == {"accepted"}


def test_plain_inserts_pass_the_ledger_too(producers: Callable[..., Connection], admin: Connection) -> None:
    producer = producers(autocommit=True)
    append(producer, [GOOD])
    insert = "INSERT INTO refold.events (event_id, action, ts) VALUES "
    for rows in (
        "('a', 'x', now())",
        "('new', 'x', now()), ('a', 'x', now())",
        "('new', 'x', now()), ('new', 'x', now())",
    ):
        with pytest.raises(psycopg.errors.UniqueViolation, match="event_ids_pkey"):
            producer.execute((insert + rows).encode())
    with (
        pytest.raises(psycopg.errors.UniqueViolation),
        producer.cursor() as cursor,
        cursor.copy("COPY refold.events (event_id, action, ts) FROM STDIN") as copy,
    ):
        copy.write("new\tx\t2026-03-02\na\tx\t2026-03-02\n")
    assert stored(admin) == ["a"]
    producer.execute((insert + "('new', 'x', '2026-03-02 00:00+00')").encode())
    assert answer(producer, {"id": "new", "action": "x", "ts": "2026-03-02T00:00:00Z"}) == "duplicate"


def test_every_event_has_its_line_and_every_line_its_event(producer: Connection, admin: Connection) -> None:
    append(producer, events(BULK + 1, "copied"))
    append(producer, events(BULK + 3, "copied"))
    with producer.transaction(force_rollback=True):
        append(producer, events(5, "gone"))
    producer.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('plain', 'x', now())")
    producer.commit()
    row = admin.execute(
        """
        SELECT count(*), count(e.event_id), count(l.event_id),
               bool_and(l.digest = refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version))
        FROM refold.events AS e FULL JOIN refold.event_ids AS l USING (event_id)
        """
    ).fetchone()
    assert row == (BULK + 4, BULK + 4, BULK + 4, True)


@pytest.mark.parametrize("order", [1, -1])
def test_the_first_of_equal_ids_in_a_batch_gets_in(producer: Connection, admin: Connection, order: int) -> None:
    for name, filler in (("few", []), ("many", events(BULK))):
        batch = [{"id": name, "action": action, "ts": 0} for action in ("first", "second", "first")]
        receipts = append(producer, [*batch[::order], *filler])
        assert [str(r.answer) for r in receipts[:3]] == ["accepted", "conflict", "duplicate"]
    producer.commit()
    rows = admin.execute("SELECT action FROM refold.events WHERE event_id IN ('few', 'many')").fetchall()
    assert rows == [("first",), ("first",)]


def test_nobody_writes_the_ledger_through_its_trigger(conn: Connection) -> None:
    """An analyst's own table with the ledger's trigger made the log take a new event for a duplicate."""
    conn.execute("SET ROLE refold_analyst")
    conn.execute(
        "CREATE TEMPORARY TABLE mine"
        " (event_id text, user_id text, action text, ts timestamptz, metadata jsonb, version int)"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(
            "CREATE TRIGGER mine AFTER INSERT ON mine REFERENCING NEW TABLE AS arrived"
            " FOR EACH STATEMENT EXECUTE FUNCTION refold.register_event_ids()"
        )
