"""What is counted of archive, purges, erasures, backfills, contracts and canaries: each is wrong once, and is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from chaos import archived, backfilled, canaries, contracted, erased, receivers, skipped
from chaos.archived import EVERYTHING
from chaos.asked import Asked
from chaos.backfilled import File
from chaos.contracts import CHANGING, ENFORCED, breaks, contract
from chaos.faulty_store import LIES
from chaos.findings import Findings
from chaos.invariants import check_bases, check_log
from chaos.journal import Count, Journal, read
from chaos.kept import query_since, rows_since
from chaos.made import Maker, person
from chaos.oracle import METRICS, Event
from refold import append
from refold.model.contract.contract_file import contract_file
from refold.postgres.connect import connect as connect_as
from refold.store import contracts
from tests.engine.archive.conftest import SLICE, Shop, segments_of, shop, shop_of  # noqa: F401
from tests.engine.purge.conftest import Yard, yard  # noqa: F401
from tests.support.backfilling import give, stage, write
from tests.support.scratch import Scratch

Connection = psycopg.Connection[Any]


def sent(conn: Connection, folder: Path, events: list[dict[str, Any]]) -> Count:
    """Events that were appended, and the answers, as a journal has them."""
    journal = Journal(folder / "p.journal")
    batch = journal.attempted("p", events)
    journal.acknowledged(batch, [receipt.answer.value for receipt in append(conn, events, source="p")])
    conn.commit()
    return read([folder / "p.journal"])


@pytest.mark.parametrize("lie", LIES)
def test_a_verified_file_that_is_not_what_was_sent_is_found(
    shop: Shop, lie: str  # noqa: F811
) -> None:  # fmt: skip
    shop.claim()
    shop.run()
    folder = Path(shop.location)
    assert archived.unlike(shop.admin, folder, set()) == []
    one = archived.verified(shop.admin)[1]
    LIES[lie](folder / one.location)
    (told,) = archived.unlike(shop.admin, folder, set())
    assert told.startswith(f"{one.location} is called verified")
    assert archived.unlike(shop.admin, folder, {one.location}) == []


def test_rows_of_files_are_compared_with_the_producers_files(
    database_url: str, admin: Connection, tmp_path: Path
) -> None:
    segments_of(admin, SLICE, 2 * SLICE)
    count = sent(admin, tmp_path, Maker("p", Random(1)).clean(8))
    admin.execute("SELECT setval('refold.events_position', %s, false)", (SLICE,))
    known = check_log(admin, count, Findings())
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        made = shop_of(database_url, admin, worker, str(tmp_path / "archive"))
        made.seal(1)
        made.claim()
        made.run()
    found = Findings()
    assert archived.check(admin, Path(made.location), set(), known, found) == (1, 8)
    assert found.violations == {}
    for other in (known[1:], [replace(known[0], label="p/other/"), *known[1:]]):
        found = Findings()
        archived.check(admin, Path(made.location), set(), other, found)
        assert "differs in 1 rows" in found.violations["I11"][0]


@pytest.mark.live("archived")
def test_all_events_are_counted_where_some_have_left_the_log(yard: Yard) -> None:  # noqa: F811
    folder, found = Path(yard.location), Findings()
    purged = yard.purge()
    assert archived.gather(yard.admin, folder, found) == purged.events > 0
    unlike = "(TABLE {} EXCEPT ALL TABLE {}) UNION ALL (TABLE {} EXCEPT ALL TABLE {})"
    query = unlike.format(EVERYTHING, "everything", "everything", EVERYTHING)
    assert yard.admin.execute(query.encode()).fetchall() == []
    assert (found.violations, archived.unlike(yard.admin, folder, set())) == ({}, [])
    one, *_ = archived.counting(yard.admin, "purged")
    LIES["changed"](folder / one.location)
    assert archived.unlike(yard.admin, folder, set()) == [f"{one.location} is called purged, and has other bytes"]
    LIES["lost"](folder / one.location)
    yard.admin.execute("DROP TABLE pg_temp.events")
    assert archived.gather(yard.admin, folder, found) < purged.events
    assert "cannot be read" in found.violations["I15"][0]


@pytest.mark.parametrize("mode", ["anonymise", "delete"])
def test_a_person_of_whom_something_is_left_is_found(conn: Connection, tmp_path: Path, mode: str) -> None:
    maker, asked = Maker("p", Random(1)), [Asked(person(0), mode, until=datetime.now(UTC))]
    count = sent(conn, tmp_path, maker.purchases(person(0), [1, 2]) + maker.clean(3))
    conn.execute("CREATE TEMPORARY TABLE events AS TABLE refold.events")

    def found(*changes: str) -> list[str]:
        findings = Findings()
        with conn.transaction(force_rollback=True):
            for change in changes:
                conn.execute(change.encode(), {"user": person(0)})
            again = read([tmp_path / "p.journal"])
            erased.forget(conn, asked, again, findings)
            check_log(conn, again, findings, EVERYTHING)
        return sorted(findings.violations)

    of_person = "WHERE user_id = %(user)s"
    nobody = f"UPDATE pg_temp.events SET user_id = 'erased:1' {of_person}"
    assert "I16" in found()
    assert found(nobody if mode == "anonymise" else f"DELETE FROM pg_temp.events {of_person}") == []
    assert "I16" in found(nobody if mode == "delete" else nobody.replace("'erased:1'", "'erased:' || event_id"))
    assert "I1" in found(nobody, "DELETE FROM pg_temp.events WHERE event_id = 'p-3'")
    assert len(count.acknowledged) == 5
    places = list(erased.in_database(conn, [person(0)]))
    assert places == ["refold.events_000000000000001"]
    conn.execute(
        "INSERT INTO refold.rejected (source, line, answer, reason, raw) VALUES ('p', 1, 'invalid', 'r', %s)",
        (person(0),),
    )
    assert list(erased.in_database(conn, [person(0)])) == [*places, "refold.rejected"]


def test_a_backfill_that_says_too_little_or_too_much_is_found(
    database_url: str, admin: Connection, tmp_path: Path
) -> None:
    maker = Maker("file", Random(1))
    events = maker.clean(20)
    events += [events[3], {**events[4], "metadata": {"label": "file/other/"}}]
    file = File.of("file", events)
    assert file.answers[-2:] == ["duplicate", "conflict"]
    file.names.append("history")
    staged = stage(database_url, "history", write(tmp_path / "old.jsonl", events))
    admin.execute("UPDATE refold.file_backfills SET state = 'checked', checked_at = now(), findings = '{}'")
    assert give(database_url, staged).state == "done"

    def found(change: str) -> bool:
        findings = Findings()
        with admin.transaction(force_rollback=True):
            admin.execute(f"UPDATE refold.file_backfills SET {change}".encode())
            backfilled.check(admin, [file], findings)
        return "I12" in findings.violations

    assert not found("name = name")
    assert found("accepted = accepted - 1, duplicates = duplicates + 1")
    assert found("conflicts = 0")


def test_what_breaks_contracts_is_judged_and_counted(database_url: str, conn: Connection, tmp_path: Path) -> None:
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        for action, level in ((ENFORCED, "enforce"), (CHANGING, "warn")):
            made = contract_file(action, contract(level), tmp_path, [])
            assert made is not None
            contracts.put(worker, made)
    maker = Maker("p", Random(1))
    events = [maker.scored(ENFORCED, breaking=True, invalid=True) for _ in range(5)]
    events += [maker.scored(CHANGING, breaking=number < 3, sent_under="warn") for number in range(6)]
    events += [maker.scored(ENFORCED)]
    assert [breaks(event["metadata"]) for event in events] == [True] * 8 + [False] * 4
    count = sent(conn, tmp_path, events)
    answers = [str(offer.answer) for offer in count.offered]
    assert answers == ["invalid"] * 5 + ["accepted"] * 7
    assert contracted.wrongly_answered(events[5:11], answers[5:11], "warn") == []
    assert len(contracted.wrongly_answered(events[5:11], answers[5:11], "enforce")) == 3

    def found(change: str) -> bool:
        findings = Findings()
        with conn.transaction(force_rollback=True):
            conn.execute("ALTER TABLE refold.events DISABLE TRIGGER USER")
            conn.execute(change.encode())
            contracted.check(conn, count, 0, findings)
        return "I13" in findings.violations

    assert not found("SELECT")
    assert found("DELETE FROM refold.violations WHERE NOT refused")
    assert found("DELETE FROM refold.violations WHERE refused")
    assert found(
        f"INSERT INTO refold.events (event_id, action, ts, metadata) VALUES ('x', '{ENFORCED}', now(), '{{}}')"
    )


LEFT: dict[str, Callable[[Scratch], None]] = {
    "view of the candidate": lambda scratch: _as_superuser(
        scratch, "CREATE VIEW metrics_canary.canaried AS SELECT * FROM metrics.canaried"
    ),
    "view by reader": lambda scratch: _as_superuser(
        scratch, "CREATE OR REPLACE VIEW metrics.canaried AS"
        " SELECT 'a'::text COLLATE \"C\" AS action, 1::bigint AS events WHERE refold.on_canary('canaried')",
    ),
}  # fmt: skip


def _as_superuser(scratch: Scratch, statement: str) -> None:
    with psycopg.connect(scratch.url, autocommit=True) as conn:
        conn.execute(statement.encode())


@pytest.mark.parametrize("what", LEFT)
def test_what_a_canary_leaves_is_found(scratch: Scratch, what: str) -> None:
    scratch.deploy_one("canaried", "SELECT action, count(*) AS events FROM events GROUP BY action")
    with psycopg.connect(scratch.url, autocommit=True) as conn:
        assert canaries.left(conn) == []
        LEFT[what](scratch)
        found = Findings()
        canaries.check_left(conn, found, seconds=0)
    assert list(found.violations) == ["I14"]


def test_a_receiver_may_lack_what_was_let_go_and_nothing_else() -> None:
    """What it has of these rows must be right all the same."""
    columns, ours = ["event_id", "grade"], [("a", "big"), ("b", "small"), ("c", "big"), ("d", "big")]

    def found(*theirs: tuple[str, str]) -> list[str]:
        findings = Findings()
        rows = receivers.without(ours, list(theirs), columns, let_go={"a", "b"})
        receivers.compare(findings, skipped.TABLE, rows, list(theirs))
        return findings.violations.get("I9", [])

    assert found(*ours) == found(*ours[1:]) == found(*ours[2:]) == []
    assert "lacks ('c', 'big')" in found(*ours[:2], ours[3])[0]
    assert any("has ('a', 'small')" in one for one in found(("a", "small"), *ours[1:]))


def test_what_refold_has_recorded_of_rows_that_were_let_go(admin: Connection) -> None:
    for name, outcome in (("a", "1,708 rows let go"), ("a", "1 row let go"), ("a", None), ("b", "5 rows let go")):
        admin.execute(
            "INSERT INTO refold.actions (by, command, arguments, outcome)"
            " VALUES ('me', 'sinks skip', jsonb_build_object('name', %s::text), %s)",
            (name, outcome),
        )
    admin.execute(
        "INSERT INTO refold.actions (by, command, arguments, outcome)"
        " VALUES ('me', 'sinks skip', '{\"name\": \"a\"}', 'failed: Fenced')"
    )
    assert (skipped.recorded(admin, "a"), skipped.recorded(admin, "b"), skipped.recorded(admin, "c")) == (1709, 5, 0)


def test_a_metric_keeps_its_newest_days(admin: Connection) -> None:
    now = datetime.now(UTC)
    days = [now - timedelta(days=number) for number in range(5)]
    events = [Event(str(at), "u", "view", at, None) for at in days]
    metric, since = METRICS["visitors"], days[2].date()
    rows = metric.rows(events)
    assert rows_since(rows, metric, None) == rows
    kept = rows_since(rows, metric, since)
    assert sorted(day for (day,) in kept) == sorted(at.date() for at in days[:3])
    query = "SELECT (now() AT TIME ZONE 'UTC')::date - n AS day FROM generate_series(0, 4) AS n -- all of them"
    assert admin.execute(query_since(query, since).encode()).rowcount == len(kept) == 3
    assert query_since(query, None) == query


def test_what_stands_for_purged_events_is_healed_by_erasures_alone(admin: Connection) -> None:
    """Or by an audit in the middle of one."""
    now = datetime.now(UTC)
    minute = timedelta(minutes=1)

    def found(by: str, *asked: Asked) -> list[str]:
        findings = Findings()
        with admin.transaction(force_rollback=True):
            admin.execute(
                "INSERT INTO refold.incidents (kind, subject, detected_by, started_at, detected_at, evidence)"
                " VALUES ('drift', 'daily', %s, '-infinity', %s, '{\"archive\": true}')",
                (by, now),
            )
            check_bases(admin, list(asked), findings)
        return list(findings.violations)

    assert found("quick audit") == ["I15"]
    assert found("refold erase") == []
    person_ = person(0)
    assert found("quick audit", Asked(person_, "delete", now - minute, now + minute)) == []
    assert found("quick audit", Asked(person_, "delete", now - minute)) == []
    assert found("quick audit", Asked(person_, "delete", now - 2 * minute, now - minute)) == ["I15"]
    assert found("quick audit", Asked(person_, "delete", now + minute)) == ["I15"]
