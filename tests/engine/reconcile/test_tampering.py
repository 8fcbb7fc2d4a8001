"""Fault 20: rows of metrics that were changed, removed or added by hand. All of that is found, and nothing else."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.result import ReconcileReport
from refold.errors import BuildError
from tests.support.reconcile_shop import Shop

pytestmark = pytest.mark.live("shop")

CASES: dict[str, tuple[str, dict[tuple[str, str], int]]] = {
    "a count changed": (
        "UPDATE {daily} SET events = events + 1 WHERE day = '2026-03-03'",
        {("daily", "drifted"): 3},
    ),
    "a sum changed": ("UPDATE {totals} SET amount = amount + 0.01 WHERE user_id = 'u1'", {("totals", "drifted"): 1}),
    "a sum lost": ("UPDATE {totals} SET amount = NULL WHERE user_id = 'u1'", {("totals", "drifted"): 1}),
    "a key changed": (
        "UPDATE {daily} SET action = 'sold' WHERE action = 'purchase' AND day = '2026-03-04'",
        {("daily", "missing"): 1, ("daily", "orphan"): 1},
    ),
    "rows of a merge removed": ("DELETE FROM {totals} WHERE user_id IN ('u1', 'u2')", {("totals", "missing"): 2}),
    "the row of nobody removed": ("DELETE FROM {paths} WHERE user_id IS NULL", {("paths", "missing"): 1}),
    "a row of recompute changed": (
        "UPDATE {paths} SET path = path || ARRAY['x'] WHERE user_id = 'u3'",
        {("paths", "drifted"): 1},
    ),
    "a row added": ("INSERT INTO {paths} VALUES ('nobody', '{{view}}')", {("paths", "orphan"): 1}),
    "a group added": (
        "INSERT INTO {daily} SELECT '1999-01-01', action, events, users, amount FROM {daily} LIMIT 1",
        {("daily", "orphan"): 1},
    ),
    "a fact changed": (
        "UPDATE {purchases} SET amount = 1 WHERE event_id IN ('e002', 'e005')",
        {("purchases", "drifted"): 2},
    ),
    "a fact removed": ("DELETE FROM {purchases} WHERE event_id = 'e008'", {("purchases", "missing"): 1}),
    "a fact added": (
        "INSERT INTO {purchases} (txid, position, ordinal, event_id, user_id, ts, amount)"
        " SELECT txid, position, ordinal + 1, 'forged', user_id, ts, amount FROM {purchases} WHERE event_id = 'e002'",
        {("purchases", "orphan"): 1},
    ),
    "a fact moved": (
        "UPDATE {purchases} SET position = position + 100 WHERE event_id = 'e002'",
        {("purchases", "drifted"): 1},
    ),
    "a transform's row changed": (
        "UPDATE {graded} SET grade = 'huge' WHERE event_id < 'e004'",
        {("graded", "drifted"): 4},
    ),
    "a transform's row removed": ("DELETE FROM {graded} WHERE event_id = 'e007'", {("graded", "missing"): 1}),
    "a transform's row added": (
        "INSERT INTO {graded} (txid, position, ordinal, event_id, user_id, ts, grade)"
        " SELECT txid, position, ordinal + 1, 'forged', user_id, ts, grade FROM {graded} WHERE event_id = 'e002'",
        {("graded", "orphan"): 1},
    ),
    "a count over a transform": ("UPDATE {grades} SET users = 99 WHERE grade = 'big'", {("grades", "drifted"): 1}),
    "recompute over a transform": ("DELETE FROM {grade_paths}", {("grade_paths", "missing"): 5}),
}


READERS = {"purchases": {"totals"}, "graded": {"grades", "grade_paths"}}


def by_kind(report: ReconcileReport) -> dict[tuple[str, str], int]:
    counts: Counter[tuple[str, str]] = Counter()
    for (projection, _, kind), number in report.counts.items():
        counts[projection, kind] += number
    return dict(counts)


def found(shop: Shop, **options: Any) -> dict[tuple[str, str], int]:
    return by_kind(shop.reconcile(**options))


def readers_of(drift: dict[tuple[str, str], int]) -> set[str]:
    """Of a stream that has drifted a dry run cannot say what its readers ought to be."""
    return set().union(*(READERS.get(projection, set()) for projection, _ in drift))


def test_a_clean_shop(shop: Shop) -> None:
    before = shop.content()
    report = shop.reconcile()
    assert (report.drift, report.findings, report.skipped) == (0, [], [])
    assert sorted(report.audited) == sorted(shop.tables)
    assert shop.content() == before
    assert shop.repairs() == []
    assert shop.wrong() == {}


def rounds() -> list[list[str]]:
    """The cases, in as few rounds as have one case of each table, and the streams apart from their readers."""
    planned: list[list[str]] = []
    for name, (_, expected) in CASES.items():
        ((projection, _), *_) = expected
        for one in planned:
            met = {projection for case in one for projection, _ in CASES[case][1]}
            if projection not in met and (projection in READERS) == bool(met & READERS.keys()):
                one.append(name)
                break
        else:
            planned.append([name])
    return planned


@pytest.mark.slow
def test_what_was_tampered_with_is_found_exactly_and_healed(shop: Shop) -> None:
    for names in rounds():
        expected: dict[tuple[str, str], int] = {}
        for name in names:
            statement, drift = CASES[name]
            assert shop.tamper(statement) > 0, name
            expected |= drift
        tampered = shop.content()
        report = shop.reconcile(dry_run=True)
        assert by_kind(report) == expected
        assert {name for name, _ in report.skipped} == readers_of(expected)
        assert shop.content() == tampered, "a dry run changes nothing"
        recorded = len(shop.repairs())
        assert found(shop) == expected
        assert shop.wrong() == {}
        assert len(shop.repairs()) - recorded == sum(expected.values())
    assert found(shop) == {}


def test_healing_touches_nothing_else(shop: Shop) -> None:
    before = shop.content()
    shop.tamper("UPDATE {daily} SET events = events + 1 WHERE day = '2026-03-03' AND action = 'view'")
    shop.reconcile()
    after = shop.content()
    for table, rows in before.items():
        rewritten = len(set(rows) - set(after[table]))
        # The row, and the members of its key at most.
        assert rewritten == (1 if table == shop.tables["daily"] else 0), table


@pytest.mark.slow
def test_the_members_are_audited_too(shop: Shop) -> None:
    """Damage there would stay latent until the next event of a member is counted wrongly."""
    for table in shop.members():
        for statement, kind in [
            (f"DELETE FROM {table} WHERE member__ = 'u1'", "missing"),
            (
                f"INSERT INTO {table} SELECT * FROM (SELECT (t).* FROM (SELECT t FROM {table} AS t LIMIT 1) AS s) AS r",
                None,
            ),
            (f"UPDATE {table} SET member__ = 'somebody else' WHERE member__ = 'u2'", "orphan"),
        ]:
            if kind is None:
                with pytest.raises(psycopg.errors.UniqueViolation):
                    shop.tamper(statement)
                continue
            assert shop.tamper(statement) > 0
            assert shop.wrong() == {}
            report = shop.reconcile()
            assert {relation for _, relation, _ in report.counts} == {table.removeprefix("refold_builds.")}
            assert kind in {kind for _, _, kind in report.counts}
            assert shop.reconcile().drift == 0
    shop.append([{"id": "again", "user_id": "u1", "action": "view", "ts": "2026-03-02T23:00:00Z"}])
    shop.drain()
    assert shop.wrong() == {}


def test_truncated_tables_are_healed_and_count_on(shop: Shop) -> None:
    for name in shop.tables:
        shop.tamper(f"TRUNCATE {{{name}}}")
    for table in shop.members():
        shop.tamper(f"TRUNCATE {table}")
    report = shop.reconcile()
    assert {kind for _, _, kind in report.counts} == {"missing"}
    assert {projection for projection, _, _ in report.counts} == set(shop.tables)
    assert shop.wrong() == {}
    assert shop.reconcile().drift == 0
    shop.append(
        [
            {
                "id": "later",
                "user_id": "u1",
                "action": "purchase",
                "ts": "2026-03-03T01:00:00Z",
                "metadata": {"amount": 500},
            }
        ]
    )
    shop.drain()
    assert shop.wrong() == {}


def test_what_was_done_is_recorded(shop: Shop) -> None:
    shop.tamper("UPDATE {totals} SET purchases = 99 WHERE user_id = 'u1'")
    shop.tamper("DELETE FROM {paths} WHERE user_id IS NULL")
    shop.tamper("INSERT INTO {paths} VALUES ('nobody', '{{view}}')")
    report = shop.reconcile()
    by_kind = {
        kind: (projection, key, before, after, who) for projection, kind, key, before, after, who in shop.repairs()
    }
    projection, key, before, after, who = by_kind["drifted"]
    assert (projection, key, who) == ("totals", {"user_id": "u1"}, shop.worker.info.user)
    assert (before["purchases"], after["purchases"]) == (99, 3)
    assert before["amount"] == after["amount"]
    projection, key, before, after, _ = by_kind["missing"]
    assert (projection, key, before) == ("paths", {"user_id": None}, None)
    assert after["path"]
    projection, key, before, after, _ = by_kind["orphan"]
    assert (projection, key, before, after) == (
        "paths",
        {"user_id": "nobody"},
        {"user_id": "nobody", "path": ["view"]},
        None,
    )
    assert {(f.kind, f.healed) for f in report.findings} == {("drifted", True), ("missing", True), ("orphan", True)}
    assert all(f.healed is False for f in shop.reconcile(dry_run=True).findings)
    row = shop.worker.execute(
        "SELECT count(*) FROM refold.repairs WHERE repaired_at BETWEEN now() - interval '1 hour' AND now()"
    )
    assert row.fetchone() == (3,)


def test_how_a_number_prints_is_no_drift(shop: Shop) -> None:
    """1.0 and 1.00 are one value: rows are compared by the equality of their types."""
    assert shop.tamper("UPDATE {totals} SET amount = amount + 0.000") > 0
    assert shop.tamper("UPDATE {purchases} SET amount = amount + 0.000") > 0
    assert found(shop) == {}


def test_since_audits_only_what_later_events_belong_to(shop: Shop) -> None:
    """Only what events since then belong to: by the day where the key has one, else the keys of those events."""
    noon = datetime(2026, 3, 5, 12, tzinfo=UTC)
    early, late = "day = '2026-03-04' AND action = 'view'", "day = '2026-03-05' AND action = 'view'"
    shop.tamper(f"UPDATE {{daily}} SET events = 0 WHERE {early}")
    shop.tamper(f"UPDATE {{daily}} SET events = 0 WHERE {late}")
    shop.tamper("INSERT INTO {daily} SELECT '2026-03-06', 'forged', events, users, amount FROM {daily} LIMIT 1")
    shop.tamper("UPDATE {paths} SET path = NULL WHERE user_id = 'u1'")
    expected = {("daily", "drifted"): 1, ("daily", "orphan"): 1, ("paths", "drifted"): 1}
    assert found(shop, since=noon, dry_run=True) == expected
    assert found(shop, since=noon) == expected
    assert found(shop, since=noon) == {}
    assert found(shop) == {("daily", "drifted"): 1}
    assert shop.wrong() == {}


def test_since_spreads_no_damage_from_before(shop: Shop) -> None:
    """A reader's key reaches back to before `since`; its stream is damaged there; the reader itself is right."""
    noon = datetime(2026, 3, 5, 12, tzinfo=UTC)
    shop.tamper("DELETE FROM {purchases} WHERE ts < '2026-03-04'")
    shop.tamper("DELETE FROM {graded} WHERE ts < '2026-03-04'")
    report = shop.reconcile(since=noon, dry_run=True)
    assert report.drift == 0
    assert {name for name, _ in report.skipped} == {"totals", "grades", "grade_paths"}
    # There is no way round healing what they read.
    assert set(found(shop, since=noon)) == {("purchases", "missing"), ("graded", "missing")}
    assert shop.wrong() == {}
    assert found(shop) == {}


def test_only_the_named_metrics_are_audited(shop: Shop) -> None:
    shop.tamper("DELETE FROM {paths}")
    shop.tamper("DELETE FROM {daily}")
    report = shop.reconcile("paths")
    assert report.audited == ["paths"]
    assert {projection for projection, _, _ in report.counts} == {"paths"}
    assert set(shop.wrong()) == {"daily"}
    with pytest.raises(BuildError, match="Did you mean paths"):
        shop.reconcile("path")


def test_a_named_reader_brings_its_stream(shop: Shop) -> None:
    """Compared with a damaged stream it would be made wrong."""
    shop.tamper("DELETE FROM {purchases} WHERE user_id = 'u2'")
    assert set(shop.wrong()) == {"purchases"}
    report = shop.reconcile("totals")
    assert report.audited == ["purchases", "totals"]
    assert {projection for projection, _, _ in report.counts} == {"purchases"}
    assert shop.wrong() == {}


def test_without_its_transform_a_stream_cannot_be_audited_and_nor_can_its_readers(shop: Shop) -> None:
    shop.tamper("UPDATE {graded} SET grade = 'huge'")
    shop.tamper("DELETE FROM {paths}")
    report = reconcile(shop.worker, None)
    assert {name for name, _ in report.skipped} == {"graded", "grades", "grade_paths"}
    assert set(report.audited) == {"daily", "purchases", "totals", "paths"}
    assert set(shop.wrong()) == {"graded"}


def test_lag_is_no_drift(shop: Shop) -> None:
    shop.append([{"id": f"new{n}", "user_id": "u1", "action": "purchase", "ts": 0} for n in range(5)])
    assert shop.reconcile().drift == 0
    shop.apply("purchases", "daily")
    assert shop.reconcile().drift == 0
    shop.drain()
    assert shop.reconcile().drift == 0
    assert shop.wrong() == {}
