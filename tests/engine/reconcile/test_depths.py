"""Fault 20 at the three depths: hand edits disagree with the checksums, and cost what they changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from refold.engine.deployment.deploy import rebuild
from refold.engine.publish.switch import drop_superseded
from refold.engine.reconcile import ReconcileReport, deep, rolling
from refold.engine.reconcile.audit import audit
from refold.engine.reconcile.reconcile import Depth, Reconciler, reconcile
from refold.errors import BuildError
from refold.model.stream.slices import POSITION_BITS
from refold.service.duties.audits import quick_audit
from refold.store import incidents
from refold.store.builds.build import by_id, live
from refold.store.builds.checksums import disagreements
from refold.store.builds.compiled import Compiler
from refold.store.log.seal import seal
from tests.support.live import SHOP
from tests.support.making import MONDAY_MS
from tests.support.reconcile_shop import Shop
from tests.support.waiting import wait_until

from .test_tampering import CASES, by_kind, readers_of, rounds

pytestmark = [pytest.mark.live("shop"), pytest.mark.slow]


def disagreeing(shop: Shop) -> dict[str, list[int]]:
    """By projection, the slices in which checksums and rows disagree."""
    compiler = Compiler(SHOP)
    found = {}
    for projection in shop.tables:
        build = live(shop.worker, projection)
        assert build is not None
        wrong = disagreements(shop.worker, build.build_id, compiler.of(shop.worker, build).statements.relations)
        if wrong:
            found[projection] = [one.slice for one in wrong]
    return found


def at(shop: Shop, depth: Depth, *, dry_run: bool = False) -> ReconcileReport:
    return reconcile(shop.worker, SHOP, depth=depth, dry_run=dry_run)


def test_figures_follow_pages_and_first_loads(shop: Shop) -> None:
    assert disagreeing(shop) == {}
    shop.append([{"id": f"more{n}", "user_id": f"v{n}", "action": "purchase", "ts": n} for n in range(5)])
    shop.drain()
    assert disagreeing(shop) == {}
    rows = shop.worker.execute(
        "SELECT b.projection, sum(f.rows) FROM refold.checksums AS f JOIN refold.builds AS b USING (build_id)"
        " WHERE relation = 0 GROUP BY 1"
    ).fetchall()
    for projection, kept in rows:
        count = shop.worker.execute(f"SELECT count(*) FROM {shop.tables[projection]}".encode()).fetchone()
        assert count == (kept,), projection


def test_what_was_tampered_with_is_found_and_healed_by_its_slices(shop: Shop) -> None:
    for names in rounds():
        expected: dict[tuple[str, str], int] = {}
        for name in names:
            statement, drift = CASES[name]
            assert shop.tamper(statement) > 0, name
            expected |= drift
        tampered = shop.content()
        seen = at(shop, "quick")
        assert {one.projection for one in seen.slices} == {projection for projection, _ in expected}
        looked = at(shop, "slice", dry_run=True)
        assert by_kind(looked) == expected
        assert {name for name, _ in looked.skipped} == readers_of(expected)
        assert shop.content() == tampered, "neither changes anything"
        healed = at(shop, "slice")
        assert by_kind(healed) == expected
        assert healed.checksums == []
        assert shop.wrong() == {}
        assert disagreeing(shop) == {}
    assert at(shop, "slice").clean
    assert at(shop, "deep").clean


@pytest.mark.parametrize("depth", ["slice", "deep"])
def test_truncated_tables_are_healed_at_every_depth(shop: Shop, depth: Depth) -> None:
    for table in [*shop.tables.values(), *shop.members()]:
        shop.tamper(f"TRUNCATE {table}")
    report = at(shop, depth)
    assert {kind for _, _, kind in report.counts} == {"missing"}
    assert shop.wrong() == {}
    assert disagreeing(shop) == {}


def test_sets_of_members_have_figures_too(shop: Shop) -> None:
    for table in shop.members():
        shop.tamper(f"DELETE FROM {table} WHERE member__ = 'u1'")
        assert shop.wrong() == {}
        assert {one.relation for one in at(shop, "quick").slices} == {table.removeprefix("refold_builds.")}
        assert at(shop, "slice").drift > 0
        assert disagreeing(shop) == {}


@pytest.mark.parametrize("depth", ["slice", "deep"])
def test_a_damaged_checksum_is_repaired_and_told_from_drift(shop: Shop, depth: Depth) -> None:
    shop.fold()
    shop.worker.execute("UPDATE refold.checksums SET hash = hash + 1, rows = rows + 1")
    assert disagreeing(shop).keys() == shop.tables.keys()
    before = shop.content()
    report = at(shop, depth)
    assert report.drift == 0
    assert {one.projection for one in report.checksums} == set(shop.tables)
    assert shop.content() == before
    assert disagreeing(shop) == {}


def test_lost_figures_are_taken_again(shop: Shop) -> None:
    shop.fold()
    shop.worker.execute("DELETE FROM refold.checksums")
    at(shop, "deep")
    assert disagreeing(shop) == {}


def test_deep_sees_what_figures_cannot(shop: Shop) -> None:
    """Rows and checksums that agree and are both wrong."""
    shop.fold()
    shop.tamper("UPDATE {daily} SET events = events + 1 WHERE day = '2026-03-03' AND action = 'view'")
    build = live(shop.worker, "daily")
    assert build is not None
    compiled = Compiler(SHOP).of(shop.worker, build)
    (wrong,) = disagreements(shop.worker, build.build_id, compiled.statements.relations)
    hashed = f"SELECT sum({compiled.statements.relations[0].row_hash()}) FROM {shop.tables['daily']}"
    shop.worker.execute(
        f"UPDATE refold.checksums SET hash = ({hashed} WHERE refold.day_slice(day) = %s)"
        " WHERE build_id = %s AND relation = 0 AND slice = %s".encode(),
        (wrong.slice, build.build_id, wrong.slice),
    )
    assert at(shop, "slice").clean
    assert by_kind(at(shop, "deep")) == {("daily", "drifted"): 1}
    assert shop.wrong() == {}
    assert disagreeing(shop) == {}


def test_a_deep_audit_goes_on_where_it_was_interrupted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(deep.TOGETHER, "day", 1)
    build = live(shop.worker, "daily")
    assert build is not None
    compiled = Compiler(SHOP).of(shop.worker, build)
    everything = [(one,) for one in deep.plan(shop.worker, compiled, None)]
    interrupted = deep.steps(shop.worker, compiled, resume=True)
    # The third is under way when it is interrupted: it has to be done again.
    assert [next(interrupted) for _ in range(3)] == everything[:3]
    mark = deep.find_mark(shop.worker, build.build_id, rolling=False)
    assert mark is not None and (mark.steps, mark.finished_at) == (2, None)
    assert list(deep.steps(shop.worker, compiled, resume=False)) == everything, "who only looks, looks at everything"
    assert list(deep.steps(shop.worker, compiled, resume=True)) == everything[2:]
    mark = deep.find_mark(shop.worker, build.build_id, rolling=False)
    assert mark is not None and mark.finished_at is not None
    assert list(deep.steps(shop.worker, compiled, resume=True)) == everything, "the next one starts anew"


@pytest.mark.slow
# Of 60,000 events a day has 1,000, which an index finds by blocks of about 2,000 rows; a range of positions 16,384. The
# slice is read to compare each table with it, and to write what differs.
# A slice of purchases is 16,384 events: of a log that is not much longer the planner rightly reads everything.
@pytest.mark.parametrize(
    ("projection", "number", "rows"),
    [
        ("daily", 60_000, 12_000),
        pytest.param("purchases", 140_000, 45_000, marks=pytest.mark.exhaustive),
    ],
)
def test_the_log_that_is_read_grows_with_the_slices_concerned(
    shop: Shop, projection: str, number: int, rows: int
) -> None:
    days = 60
    shop.append(
        [
            {"id": f"many{n}", "user_id": f"u{n % 50}", "action": "purchase", "ts": MONDAY_MS + n * days * 86_400}
            for n in range(number)
        ]
    )
    shop.drain()
    with psycopg.connect(shop.url, autocommit=True) as owner:
        owner.execute("VACUUM ANALYZE refold.events")
    tamper = {
        "daily": "UPDATE {daily} SET events = events + 1 WHERE day IN (SELECT DISTINCT day FROM {daily} ORDER BY day",
        "purchases": "UPDATE {purchases} SET amount = 7 WHERE event_id IN (SELECT 'many' || n * 18000 FROM"
        " generate_series(0, 2) AS n ORDER BY n",
    }[projection]
    full = number >> POSITION_BITS
    wait_until(lambda: full - 1 in seal(shop.worker), 60)
    read = {}
    for slices in (1, 3):
        assert shop.tamper(f"{tamper} LIMIT {slices})") >= slices
        before = log_rows_read(shop)
        assert reconcile(shop.worker, SHOP, [projection], depth="quick").slices
        unsealed = log_rows_read(shop) - before
        assert unsealed < 2 << POSITION_BITS, "quick reads of the log what is not sealed"
        before += 2 * unsealed
        assert reconcile(shop.worker, SHOP, [projection], depth="slice").drift >= slices
        read[slices] = log_rows_read(shop) - before
    assert 0 < read[1] < rows
    assert read[3] < 3 * rows
    assert shop.wrong() == {}


def log_rows_read(shop: Shop) -> int:
    """Rows of the log that anybody has read so far."""
    shop.worker.execute("SELECT pg_stat_force_next_flush()")
    row = shop.worker.execute(
        "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables"
        " WHERE schemaname = 'refold' AND relname LIKE 'events\\_0%'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_drift_leaves_an_incident(shop: Shop) -> None:
    shop.tamper("DELETE FROM {paths} WHERE user_id = 'u1'")
    quick_audit(shop.worker, Compiler(SHOP))
    (incident,) = incidents.find(shop.worker)
    assert (incident.kind, incident.subject, incident.detected_by) == ("drift", "paths", "quick audit")
    assert incident.resolved_at is not None and incident.resolved_by == "quick audit"
    assert incident.outcome is not None
    assert list(incident.outcome["healed"].values()) == [1]
    assert incident.outcome["keys"][0]["user_id"] == "u1"


def test_the_rolling_audit_covers_everything_within_its_period(
    shop: Shop, connect: Callable[..., psycopg.Connection]
) -> None:
    compiler = Compiler(SHOP)
    shop.tamper("UPDATE {grades} SET users = 99 WHERE grade = 'big'")
    shop.tamper("UPDATE {paths} SET path = NULL WHERE user_id = 'u1'")
    finished: set[str] = set()
    with connect(autocommit=True) as owner:
        while (step := rolling.step(shop.worker, compiler)) is not None:
            if step.finished:
                finished.add(step.projection)
            # As if the period were nearly over; a round that takes longer is followed by the next at once.
            owner.execute(
                "UPDATE refold.audits SET began_at = clock_timestamp() - %s WHERE finished_at IS NULL",
                (timedelta(days=7) - timedelta(hours=1),),
            )
        assert finished == set(shop.tables)
        assert shop.wrong() == {}
        assert {incident.subject for incident in incidents.find(shop.worker)} == {"grades", "paths"}
        assert rolling.step(shop.worker, compiler) is None, "not before the period is over"
        owner.execute("UPDATE refold.audits SET began_at = began_at - %s", (timedelta(days=8),))
        assert rolling.step(shop.worker, compiler) is not None


def test_steps_are_spread_over_the_period(shop: Shop) -> None:
    compiler = Compiler(SHOP)
    taken = 0
    while rolling.step(shop.worker, compiler) is not None:
        taken += 1
    # One of each build at once; the next of those that have several is due later.
    assert taken == len(shop.tables)
    assert by_id(shop.worker, 1).state == "live"


def test_a_deep_audit_of_a_build_that_is_replaced_meanwhile(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be dropped before the next step, and its incident would have nothing to be about."""
    monkeypatch.setitem(deep.TOGETHER, "day", 1)
    build = live(shop.worker, "daily")
    assert build is not None
    compiled = Compiler(SHOP).of(shop.worker, build)
    steps = deep.steps(shop.worker, compiled, resume=True)
    audit(shop.worker, compiled, ranges=next(steps))
    for _ in range(2):
        rebuild(shop.worker, SHOP, ["daily"], lambda progress: None)
    assert drop_superseded(shop.worker) == [build.table_name]
    with pytest.raises(BuildError, match="was replaced"):
        audit(shop.worker, compiled, ranges=next(steps))


def test_one_that_cannot_be_audited_keeps_no_other_from_it(
    shop: Shop, connect: Callable[..., psycopg.Connection]
) -> None:
    """Locked for longer than a duty waits; so it is for hours beside first loads of its readers."""
    shop.tamper("DELETE FROM {daily} WHERE action = 'view'")
    shop.tamper("DELETE FROM {totals} WHERE user_id = 'u1'")
    other = connect()
    other.execute("SELECT FROM refold.builds WHERE projection = 'daily' FOR UPDATE")
    shop.worker.execute("SET lock_timeout = '200ms'")
    with pytest.raises(BuildError, match="daily: canceling statement due to lock timeout"):
        quick_audit(shop.worker, Compiler(SHOP))
    assert list(shop.wrong()) == ["daily"]
    other.rollback()
    quick_audit(shop.worker, Compiler(SHOP))
    assert shop.wrong() == {}
    assert incidents.find(shop.worker, "i.resolved_at IS NULL") == []


def test_one_that_cannot_be_audited_does_not_hold_up_the_rolling_audit(
    shop: Shop, connect: Callable[..., psycopg.Connection]
) -> None:
    compiler = Compiler(SHOP)
    shop.tamper("ALTER TABLE {daily} RENAME COLUMN amount TO mount")
    owner = connect(autocommit=True)
    for _ in range(2):
        done: set[str] = set()
        failed = 0
        while done != shop.tables.keys() - {"daily"} and failed < 5:
            try:
                step = rolling.step(shop.worker, compiler)
            except psycopg.errors.UndefinedColumn:
                failed += 1
            else:
                assert step is not None
                done.add(step.projection)
        assert failed < 5, "it comes first again and again"
        # All are due once more, daily still for the longest time.
        owner.execute("UPDATE refold.audits SET began_at = began_at - interval '8 days', finished_at = NULL")


@pytest.mark.parametrize("position", [9 * 10**18, -9 * 10**18])
def test_a_position_that_no_slice_has(shop: Shop, position: int) -> None:
    shop.tamper(f"UPDATE {{purchases}} SET position = {position} WHERE event_id = 'e002'")
    report = at(shop, "slice")
    assert report.skipped == [] and "purchases" in {projection for projection, _ in by_kind(report)}
    assert shop.wrong() == {}
    assert at(shop, "deep").clean
    assert disagreeing(shop) == {}


def open_drift(shop: Shop) -> list[str]:
    return [one.subject for one in incidents.find(shop.worker, "i.kind = 'drift' AND i.resolved_at IS NULL")]


def test_what_a_deep_audit_saw_is_not_closed_by_checksums(
    shop: Shop, connect: Callable[..., psycopg.Connection]
) -> None:
    """It was killed before it healed; then checksums find something else, and only that is healed."""
    compiler = Compiler(SHOP)
    incidents.detect(shop.worker, "drift", "daily", by="refold reconcile", evidence={"depth": "deep"})
    shop.tamper("UPDATE {daily} SET events = events + 1 WHERE day = '2026-03-03'")
    for _ in range(2):
        quick_audit(shop.worker, compiler)
        assert shop.wrong() == {}
        assert open_drift(shop) == ["daily"]
    while rolling.step(shop.worker, compiler) is not None:
        pass
    with connect(autocommit=True) as owner:
        owner.execute("UPDATE refold.audits SET began_at = clock_timestamp() - interval '6 days 23 hours'"
                      " WHERE finished_at IS NULL")  # fmt: skip
        owner.execute("UPDATE refold.incidents SET started_at = started_at - interval '7 days',"
                      " detected_at = detected_at - interval '7 days'")  # fmt: skip
    while rolling.step(shop.worker, compiler) is not None:
        pass
    assert open_drift(shop) == []


def test_drift_of_a_build_that_was_replaced_is_over(shop: Shop) -> None:
    compiler = Compiler(SHOP)
    build = live(shop.worker, "paths")
    assert build is not None
    run = Reconciler(shop.worker, compiler, "slice", None, False, "rolling deep audit")
    # Seen, replaced before it was healed.
    incidents.detect(shop.worker, "drift", "paths", by="rolling deep audit", evidence={"depth": "deep"})
    rebuild(shop.worker, SHOP, ["paths"], lambda progress: None)
    with pytest.raises(BuildError, match="was replaced"):
        run.heal(build, {1}, {"depth": "deep"})
    quick_audit(shop.worker, compiler)
    assert open_drift(shop) == []
