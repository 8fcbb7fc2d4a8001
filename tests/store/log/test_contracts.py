"""Contracts hold at all doors, by one predicate: what breaks one is refused or counted, and never in silence."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import Answer, Log, append
from refold.model.event.source_event import SourceEvent
from refold.postgres.connect import connect as connect_as
from refold.service.duties import prune_statistics
from refold.sources.files.mapper import Mapper
from refold.sources.files.mapping import Mapping
from refold.sources.files.readers import open_source
from refold.sources.files.run import Tally, ingest
from refold.store.builds.compiled import Compiler
from refold.store.log.append import BULK
from refold.store.log.group import Offer, append_bulk, append_group
from tests.support.contracts import PURCHASE, REASON, register, violations

Connection = psycopg.Connection[Any]
Event = dict[str, Any]

INSERT = "INSERT INTO refold.events (event_id, action, ts, metadata, version) VALUES (%s, %s, now(), %s, %s)"


def purchase(number: int, amount: object = 1, **fields: Any) -> Event:
    return {"id": f"e{number}", "action": "purchase", "ts": number, "metadata": {"amount": amount}, **fields}


def by_sql(url: str, events: list[Event]) -> list[tuple[str, str | None]]:
    with connect_as(url, "refold_producer") as conn:
        return conn.execute("SELECT answer, reason FROM refold.append(%s)", (json.dumps(events),)).fetchall()


def by_python(url: str, events: list[Event]) -> list[tuple[str, str | None]]:
    with connect_as(url, "refold_producer") as conn:
        return [(str(one.answer), one.reason) for one in append(conn, events)]


def by_log(url: str, events: list[Event]) -> list[tuple[str, str | None]]:
    with Log(url) as log:
        return [(str(one.answer), one.reason) for one in log.append(events)]


def offers(events: list[Event]) -> list[Offer]:
    return [Offer(SourceEvent.model_validate(one), "test", at) for at, one in enumerate(events, 1)]


def by_group(url: str, events: list[Event]) -> list[tuple[str, str | None]]:
    """What `refold serve` does with single events."""
    with connect_as(url, "refold_producer", autocommit=True) as conn:
        return [(str(one.answer), one.reason) for one in append_group(conn, offers(events))]


def by_bulk(url: str, events: list[Event]) -> list[tuple[str, str | None]]:
    """And with large requests."""
    with connect_as(url, "refold_producer", autocommit=True) as conn:
        return [(str(one.answer), one.reason) for one in append_bulk(conn, offers(events))]


DOORS = [by_sql, by_python, by_log, by_group, by_bulk]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("number", [1, 2 * BULK])
def test_every_door_answers_invalid_with_the_path(
    database_url: str, admin: Connection, door: Callable[[str, list[Event]], list[tuple[str, str | None]]], number: int
) -> None:
    register(admin)
    good = [purchase(at) for at in range(number)]
    bad = [purchase(number, "9"), purchase(number + 1, metadata={})]
    answers = door(database_url, [bad[0], *good, bad[1]])
    assert answers == [
        ("invalid", REASON),
        *[("accepted", None)] * number,
        ("invalid", "amount: is missing (contract purchase v1)"),
    ]
    stored = admin.execute("SELECT count(*) FROM refold.events").fetchone()
    assert stored == (number,)
    rejected = admin.execute("SELECT answer, reason, raw::jsonb ->> 'id' FROM refold.rejected ORDER BY line").fetchall()
    assert rejected == [
        ("invalid", REASON, f"e{number}"),
        ("invalid", "amount: is missing (contract purchase v1)", f"e{number + 1}"),
    ]
    assert sorted(violations(admin)) == [
        ("purchase", 1, "amount: is missing", True, 1, f"e{number + 1}"),
        ("purchase", 1, "amount: must be a number", True, 1, f"e{number}"),
    ]
    # The same again.
    answers = door(database_url, [bad[0], *good])
    assert answers == [("invalid", REASON), *[("duplicate", None)] * number]


def test_a_file_is_ingested_and_its_bad_lines_are_kept(database_url: str, admin: Connection, tmp_path: Path) -> None:
    register(admin)
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join(json.dumps(purchase(10**12 + at, "9" if at == 70 else 1)) for at in range(2 * BULK)))
    with Log(database_url) as log, open_source(file) as source:
        tally = ingest(log, source, Mapper(Mapping(), source), Tally())
    assert (tally.stored, tally.invalid) == (2 * BULK - 1, 1)
    assert admin.execute("SELECT line, reason FROM refold.rejected").fetchall() == [(71, REASON)]


def test_a_plain_insert_fails_with_the_same_words(producer: Connection, admin: Connection) -> None:
    register(admin)
    with pytest.raises(psycopg.errors.CheckViolation) as raised:
        producer.execute(INSERT, ("e1", "purchase", '{"amount": "9"}', 1))
    diag = raised.value.diag
    assert (diag.message_primary, diag.constraint_name) == (REASON, "events_contract")
    assert diag.message_detail == "The event is 'e1'."
    producer.rollback()
    producer.execute(INSERT, ("e1", "purchase", '{"amount": 9}', 1))
    into = "COPY refold.events (event_id, action, ts, metadata) FROM STDIN"
    with (
        pytest.raises(psycopg.errors.CheckViolation),
        producer.cursor() as cursor,
        cursor.copy(into) as copy,
    ):
        copy.write_row(("e2", "purchase", "2026-03-01 00:00:00Z", "{}"))


def test_warn_accepts_and_counts(database_url: str, admin: Connection) -> None:
    register(admin, level="warn")
    assert (
        by_sql(database_url, [purchase(1), purchase(2, "9"), purchase(3, None), purchase(4, metadata={})])
        == [("accepted", None)] * 4
    )
    assert sorted(violations(admin)) == [
        ("purchase", 1, "amount: is missing", False, 1, "e4"),
        ("purchase", 1, "amount: must be a number", False, 2, "e2"),
    ]


def test_off_checks_nothing(database_url: str, admin: Connection) -> None:
    register(admin, level="off")
    assert by_sql(database_url, [purchase(1, "9"), purchase(2, version=7)]) == [("accepted", None)] * 2
    assert violations(admin) == []


def test_other_actions_pass(database_url: str, admin: Connection) -> None:
    register(admin)
    assert by_sql(database_url, [purchase(1, "9", action="view", version=4)]) == [("accepted", None)]
    assert violations(admin) == []


@pytest.mark.parametrize(
    ("setting", "answer", "counted"), [("accept", "accepted", 0), ("warn", "accepted", 1), ("reject", "invalid", 1)]
)
def test_an_unknown_version(database_url: str, admin: Connection, setting: str, answer: str, counted: int) -> None:
    register(admin)
    register(admin, version=2)
    admin.execute("UPDATE refold.settings SET unknown_versions = %s", (setting,))
    ((found, reason),) = by_sql(database_url, [purchase(1, version=3)])
    assert found == answer
    assert reason == ("version: purchase has no contract for version 3, but for 1, 2" if answer == "invalid" else None)
    told = [("purchase", 3, "version: unknown", answer == "invalid", 1, "e1")]
    assert violations(admin) == told * counted


def test_each_version_has_its_own(database_url: str, admin: Connection) -> None:
    register(admin)
    register(admin, {"type": "object", "properties": {"amount": {"type": "string"}}}, version=2)
    answers = by_sql(database_url, [purchase(1, 1), purchase(2, 1, version=2), purchase(3, "1", version=2)])
    assert [answer for answer, _ in answers] == ["accepted", "invalid", "accepted"]
    assert answers[1][1] == "amount: must be a string, not a number (contract purchase v2)"


def test_what_was_stored_before_is_a_duplicate(database_url: str, admin: Connection) -> None:
    by_sql(database_url, [purchase(1, "9")])
    register(admin)
    for door in DOORS:
        assert door(database_url, [purchase(1, "9"), purchase(2, "9")]) == [("duplicate", None), ("invalid", REASON)]


def test_of_two_with_one_id_the_one_that_keeps_the_contract_is_stored(database_url: str, admin: Connection) -> None:
    register(admin)
    assert by_sql(database_url, [purchase(1, "9"), purchase(1, 9)]) == [("invalid", REASON), ("accepted", None)]


def test_a_version_never_changes(admin: Connection) -> None:
    register(admin)
    register(admin, level="warn")
    assert admin.execute("SELECT level FROM refold.contracts").fetchall() == [("warn",)]
    for statement in (
        "UPDATE refold.contracts SET schema = '{}'",
        "UPDATE refold.contracts SET version = 2",
        "DELETE FROM refold.contracts",
        "TRUNCATE refold.contracts",
    ):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="never changes"):
            admin.execute(statement.encode())


def test_producers_do_not_wait_for_the_count(database_url: str, admin: Connection, producers: Any) -> None:
    """Two open transactions break the same rule."""
    register(admin, level="warn")
    first, second = producers(), producers()
    second.execute("SET lock_timeout = '5s'")
    for conn, event in ((first, purchase(1, "9")), (second, purchase(2, "9"))):
        assert append(conn, [event])[0].answer is Answer.accepted
    second.commit()
    # The duty meanwhile, too.
    done = threading.Thread(target=prune_statistics.run, args=(admin, Compiler(None)))
    done.start()
    done.join(10)
    assert not done.is_alive()
    first.commit()
    assert violations(admin) == [("purchase", 1, "amount: must be a number", False, 2, "e1")]


def test_hours_are_summed_up_and_old_ones_go(database_url: str, admin: Connection) -> None:
    register(admin, level="warn")
    for number in range(3):
        by_sql(database_url, [purchase(number, "9")])
    earlier = "UPDATE refold.violations SET hour = hour - %s::interval, last_at = last_at - %s::interval"
    admin.execute(earlier, ("1 hour", "1 hour"))
    prune_statistics.run(admin, Compiler(None))
    rows = admin.execute("SELECT events, event_id, folded FROM refold.violations").fetchall()
    assert rows == [(3, "e0", True)]
    prune_statistics.run(admin, Compiler(None))
    assert admin.execute("SELECT events FROM refold.violations").fetchall() == [(3,)]
    admin.execute(earlier, ("91 days", "91 days"))
    prune_statistics.run(admin, Compiler(None))
    assert violations(admin) == []


def test_a_restored_event_is_not_judged_again(database_url: str, admin: Connection) -> None:
    by_sql(database_url, [purchase(1, "9")])
    columns = "txid, position, event_id, user_id, action, ts, metadata, version, recorded_at"
    admin.execute(f"CREATE TABLE kept AS SELECT {columns} FROM refold.events".encode())
    register(admin)
    with admin.transaction():
        ((segment,),) = admin.execute("SELECT tableoid::regclass::text FROM refold.events").fetchall()
        admin.execute(f"ALTER TABLE {segment} DISABLE TRIGGER ALL".encode())
        admin.execute(f"DELETE FROM {segment}".encode())
        admin.execute(f"ALTER TABLE {segment} ENABLE TRIGGER ALL".encode())
    with admin.transaction():
        admin.execute("SET LOCAL refold.restoring = on")
        admin.execute(f"INSERT INTO refold.events ({columns}) SELECT {columns} FROM kept".encode())
    assert admin.execute("SELECT event_id FROM refold.events").fetchall() == [("e1",)]


def test_the_schema_is_kept_digit_for_digit(admin: Connection) -> None:
    register(admin, {**PURCHASE, "properties": {"amount": {"type": "number", "maximum": 0.1}}})
    ((kept,),) = admin.execute("SELECT schema #>> '{properties,amount,maximum}' FROM refold.contracts").fetchall()
    assert kept == "0.1"
