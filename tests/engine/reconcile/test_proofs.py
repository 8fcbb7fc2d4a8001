"""Proofs: what may be claimed after which audit, and what takes a claim back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from refold.engine.deployment.deploy import rebuild
from refold.engine.reconcile import deep, rolling
from refold.engine.reconcile.audit import quick
from refold.engine.reconcile.portions import next_portion
from refold.engine.reconcile.reconcile import reconcile
from refold.errors import BuildError
from refold.inspect import health
from refold.inspect.status import read
from refold.service.duties.audits import quick_audit
from refold.service.duties.prune_statistics import run as prune
from refold.service.duties.stale_incidents import run as correct_incidents
from refold.store import incidents
from refold.store.builds import read_checksums
from refold.store.builds.build import Build, find, live
from refold.store.builds.compiled import Compiler
from refold.store.builds.first_load import empty
from tests.support.live import SHOP
from tests.support.reconcile_shop import Shop, shopping

pytestmark = [pytest.mark.live("shop"), pytest.mark.slow]

Connection = psycopg.Connection[Any]
Connect = Callable[..., Connection]


def proofs(shop: Shop, projection: str | None = None) -> list[tuple[str, str, int]]:
    """Projection, depth and differing slices of each proof, in the order of their ends."""
    rows = shop.worker.execute(
        "SELECT b.projection, p.depth, p.differed FROM refold.proofs AS p JOIN refold.builds AS b USING (build_id)"
        " ORDER BY p.ended_at"
    ).fetchall()
    return [row for row in rows if projection in (None, row[0])]


def proved(shop: Shop) -> dict[str, tuple[datetime | None, datetime | None]]:
    """What analysts are told: since when each metric is proved, by any audit and by deep ones."""
    rows = shop.worker.execute("SELECT metric, proved_at, deep_proved_at FROM metrics.freshness").fetchall()
    told = {build.projection: (build.proved_at, build.deep_proved_at) for build in read(shop.worker).builds}
    found = {metric: (at, deep_at) for metric, at, deep_at in rows}
    assert found == {name: told[name] for name in found}
    # No age of what is not proved: that it is right would follow.
    ages = [(one.metric, one.proved_at, one.proved_s) for one in health.read(shop.worker).builds]
    ages += [(one.projection, one.proved_at, one.proved_seconds) for one in read(shop.worker).builds]
    ages += shop.worker.execute("SELECT metric, proved_at, proved_seconds FROM metrics.freshness").fetchall()
    assert [one for one in ages if (one[1] is None) != (one[2] is None)] == []
    return found


def unproved(shop: Shop) -> set[str]:
    return {metric for metric, (at, _) in proved(shop).items() if at is None}


def now(shop: Shop) -> datetime:
    row = shop.worker.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    at: datetime = row[0]
    return at


def build_of(shop: Shop, projection: str) -> Build:
    build = live(shop.worker, projection)
    assert build is not None
    return build


def test_nothing_is_proved_until_an_audit_has_covered_it(shop: Shop) -> None:
    assert unproved(shop) == shop.tables.keys()
    before = now(shop)
    quick_audit(shop.worker, Compiler(SHOP))
    assert proofs(shop) and {(depth, differed) for _, depth, differed in proofs(shop)} == {("quick", 0)}
    for at, deep_at in proved(shop).values():
        assert at is not None and before <= at <= now(shop)
        assert deep_at is None
    (rows, slices), *_ = shop.worker.execute(
        "SELECT p.rows, p.slices FROM refold.proofs AS p JOIN refold.builds AS b USING (build_id)"
        " WHERE b.projection = 'purchases'"
    ).fetchall()
    assert (rows, slices) == (16, 1)


def test_a_command_proves_and_a_dry_run_does_not(shop: Shop) -> None:
    reconcile(shop.worker, SHOP, depth="quick", dry_run=True)
    reconcile(shop.worker, SHOP, depth="deep", dry_run=True)
    assert proofs(shop) == []
    reconcile(shop.worker, SHOP, depth="quick")
    assert {depth for _, depth, _ in proofs(shop)} == {"quick"}
    before = now(shop)
    reconcile(shop.worker, SHOP, depth="deep")
    assert all(deep_at is not None and deep_at >= before for _, deep_at in proved(shop).values())


@pytest.mark.parametrize("view", [None, "SELECT DATE '2026-03-03' AS day, 'buy' AS action"])
def test_rows_behind_another_view_are_not_proved(shop: Shop, view: str | None) -> None:
    """Analysts do not see them."""
    with shop.worker.transaction():
        shop.worker.execute("DROP VIEW metrics.daily")
        if view is not None:
            shop.worker.execute(f"CREATE VIEW metrics.daily AS {view}".encode())
    reconcile(shop.worker, SHOP, depth="quick")
    assert proofs(shop, "daily") == [] and proofs(shop, "purchases") != []
    quick_audit(shop.worker, Compiler(SHOP))
    assert proofs(shop, "daily") == [("daily", "quick", 0)]


def test_an_audit_since_a_time_proves_nothing(shop: Shop) -> None:
    shop.reconcile(since=datetime.fromisoformat("2026-03-03T00:00Z"))
    assert proofs(shop) == []


def test_the_audit_that_heals_proves_and_says_how_many_slices_differed(shop: Shop) -> None:
    shop.tamper("UPDATE {daily} SET events = events + 1 WHERE day IN ('2026-03-03', '2026-03-04')")
    quick_audit(shop.worker, Compiler(SHOP))
    assert proofs(shop, "daily") == [("daily", "quick", 2)]
    assert unproved(shop) == set()


def test_a_quick_look_that_finds_drift_proves_nothing(shop: Shop) -> None:
    shop.tamper("UPDATE {daily} SET events = events + 1 WHERE day = '2026-03-03'")
    reconcile(shop.worker, SHOP, depth="quick")
    assert proofs(shop, "daily") == []
    assert unproved(shop) == {"daily"}


def test_one_that_cannot_be_healed_proves_nothing(shop: Shop, connect: Connect) -> None:
    shop.tamper("DELETE FROM {daily} WHERE action = 'view'")
    other = connect()
    other.execute("SELECT FROM refold.builds WHERE projection = 'daily' FOR UPDATE")
    shop.worker.execute("SET lock_timeout = '200ms'")
    with pytest.raises(BuildError, match="daily: canceling statement due to lock timeout"):
        quick_audit(shop.worker, Compiler(SHOP))
    assert proofs(shop, "daily") == []
    assert unproved(shop) == {"daily"}


def test_an_open_drift_takes_the_claim_back_until_it_is_healed(shop: Shop) -> None:
    quick_audit(shop.worker, Compiler(SHOP))
    incidents.detect(shop.worker, "drift", "daily", by="refold reconcile", evidence={"depth": "deep"})
    assert unproved(shop) == {"daily"}
    # Checksums agree, and a deep audit knows better.
    number = len(proofs(shop, "daily"))
    quick_audit(shop.worker, Compiler(SHOP))
    assert len(proofs(shop, "daily")) == number and unproved(shop) == {"daily"}
    shop.reconcile("daily")
    assert unproved(shop) == set()
    assert ("daily", "deep", 0) in proofs(shop)


def test_a_metric_is_as_proved_as_what_it_reads(shop: Shop, connect: Connect) -> None:
    quick_audit(shop.worker, Compiler(SHOP))
    graded, grades = build_of(shop, "graded"), build_of(shop, "grades")
    assert grades.upstream_id == graded.build_id
    with connect(autocommit=True) as owner:
        owner.execute(
            "UPDATE refold.proofs SET began_at = began_at - interval '1 hour' WHERE build_id = %s", (graded.build_id,)
        )
        found = proved(shop)
        assert found["grades"][0] == found["graded"][0] != found["daily"][0]
        owner.execute("DELETE FROM refold.proofs WHERE build_id = %s", (graded.build_id,))
    assert unproved(shop) == {"graded", "grades", "grade_paths"}


def test_a_rolling_round_is_as_old_as_its_first_step(
    shop: Shop, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(deep.TOGETHER, "day", 2)
    compiler = Compiler(SHOP)
    shop.tamper("UPDATE {daily} SET amount = amount + 1 WHERE day IN ('2026-03-03', '2026-03-06')")
    with connect(autocommit=True) as owner:
        while (step := rolling.step(shop.worker, compiler)) is not None:
            if step.projection == "daily" and not step.finished:
                assert proved(shop)["daily"] == (None, None)
            owner.execute(
                "UPDATE refold.audits SET began_at = clock_timestamp() - interval '6 days 23 hours'"
                " WHERE finished_at IS NULL"
            )
    assert shop.wrong() == {}
    assert proofs(shop, "daily") == [("daily", "deep", 2)]
    at, deep_at = proved(shop)["daily"]
    assert deep_at is not None and now(shop) - deep_at > timedelta(days=6)
    assert at == deep_at


def test_a_round_that_another_session_has_taken_proves_nothing(shop: Shop) -> None:
    compiled = Compiler(SHOP).of(shop.worker, build_of(shop, "daily"))
    steps = deep.steps(shop.worker, compiled, resume=True)
    next(steps)
    list(deep.steps(shop.worker, compiled, resume=True))
    assert len(proofs(shop, "daily")) == 1
    list(steps)
    assert len(proofs(shop, "daily")) == 1


def test_what_reads_another_stream_now_is_no_longer_proved(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep, "WHOLE_STREAM", 1)
    shop.worker.execute("ANALYZE")
    compiler = Compiler(SHOP)
    quick_audit(shop.worker, compiler)
    shop.reconcile("grades")
    # In the middle of a round.
    compiled = compiler.of(shop.worker, build_of(shop, "grades"))
    steps = deep.steps(shop.worker, compiled, resume=True)
    assert next(steps)[0][1] is not None, "the round needs more than one step"
    next(steps)
    rebuild(shop.worker, SHOP, ["graded"], lambda progress: None)
    assert build_of(shop, "grades").build_id == compiled.build_id, "it follows"
    assert {"graded", "grades"} <= unproved(shop)
    reconcile(shop.worker, SHOP, ["graded"], depth="quick")
    assert unproved(shop) == {"grades", "grade_paths"}, "the proof of grades was about the former stream"
    number = len(proofs(shop, "grades"))
    list(steps)
    assert len(proofs(shop, "grades")) == number, "a part of the round was compared with the former stream"
    quick_audit(shop.worker, compiler)
    assert unproved(shop) == set()


def test_a_new_build_is_not_proved_by_its_predecessor(shop: Shop) -> None:
    quick_audit(shop.worker, Compiler(SHOP))
    rebuild(shop.worker, SHOP, ["daily"], lambda progress: None)
    assert unproved(shop) == {"daily"}


def test_a_first_load_that_starts_over_ends_the_claim(shop: Shop) -> None:
    quick_audit(shop.worker, Compiler(SHOP))
    build = build_of(shop, "daily")
    with shop.worker.transaction():
        empty(shop.worker, build)
    assert proofs(shop, "daily") == []
    assert unproved(shop) == {"daily"}


def test_no_claim_while_the_log_is_damaged_or_before_what_was_made_of_it_is_recomputed(
    shop: Shop, connect: Connect
) -> None:
    compiler = Compiler(SHOP)
    quick_audit(shop.worker, compiler)
    shop.reconcile()
    incidents.detect(shop.worker, "log_damage", "events_1", by="scrub", evidence={})
    assert unproved(shop) == shop.tables.keys()
    number = len(proofs(shop))
    quick_audit(shop.worker, compiler)
    shop.reconcile()
    assert len(proofs(shop)) == number, "they may be equal to a damaged log"
    incidents.resolve(shop.worker, "log_damage", "events_1", by="scrub", outcome={})
    quick_audit(shop.worker, compiler)
    assert unproved(shop) == shop.tables.keys(), "checksums of rows that a damaged log has made agree with them"
    shop.reconcile("daily")
    quick_audit(shop.worker, compiler)
    assert unproved(shop) == set(shop.tables) - {"daily"} or unproved(shop) == set()
    assert "daily" not in unproved(shop)


def test_damage_that_a_clock_which_was_ahead_has_seen_end_is_not_forgotten(shop: Shop, connect: Connect) -> None:
    compiler = Compiler(SHOP)
    quick_audit(shop.worker, compiler)
    assert unproved(shop) == set()
    incidents.detect(shop.worker, "log_damage", "events_1", by="scrub", evidence={})
    incidents.resolve(shop.worker, "log_damage", "events_1", by="scrub", outcome={})
    with connect(autocommit=True) as conn:
        conn.execute("UPDATE refold.incidents SET resolved_at = clock_timestamp() + interval '1 hour'")
    assert unproved(shop) == shop.tables.keys()
    correct_incidents(shop.worker, compiler)
    assert unproved(shop) == shop.tables.keys()
    shop.reconcile()
    quick_audit(shop.worker, compiler)
    assert unproved(shop) == set()


def test_reads_that_are_too_long_to_compare_prove_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_checksums, "OPEN", 0)
    quick_audit(shop.worker, Compiler(SHOP))
    # What reads a table compares all of it, and is as proved as the build that it reads.
    assert {name for name, _, _ in proofs(shop)} == {b.projection for b in find(shop.worker) if b.upstream_id}
    assert unproved(shop) == shop.tables.keys()


def test_portions_prove_once_a_round_is_clean_and_as_of_its_first(shop: Shop, connect: Connect) -> None:
    compiled = Compiler(SHOP).of(shop.worker, build_of(shop, "daily"))
    with connect(autocommit=True) as owner:
        owner.execute(
            "INSERT INTO refold.quick_audits (build_id, together, clean) VALUES (%s, 2, true)", (compiled.build_id,)
        )

    def portion(*, last: bool) -> None:
        shop.worker.execute("UPDATE refold.quick_audits SET together = 2")
        next_portion(shop.worker, compiled, proves=True)
        left = shop.worker.execute("SELECT upto_slice FROM refold.quick_audits").fetchone()
        assert left is not None and (left[0] is None) == last

    shop.tamper("UPDATE {daily} SET events = events + 1 WHERE day = '2026-03-02'")
    portion(last=False)
    shop.tamper("UPDATE {daily} SET events = events - 1 WHERE day = '2026-03-02'")
    portion(last=False)
    portion(last=True)
    assert proofs(shop) == [], "a slice of this round differed, and nobody has healed it"
    before = now(shop)
    portion(last=False)
    first = now(shop)
    portion(last=False)
    assert proofs(shop) == []
    portion(last=True)
    [(at, _)] = [proved(shop)["daily"]]
    assert at is not None and before <= at <= first


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(days=400)])
def test_a_proof_from_the_future_is_no_claim(shop: Shop, connect: Connect, ahead: timedelta) -> None:
    compiler = Compiler(SHOP)
    quick_audit(shop.worker, compiler)
    with connect(autocommit=True) as owner:
        owner.execute("UPDATE refold.proofs SET began_at = began_at + %s, ended_at = ended_at + %s", (ahead, ahead))
    assert unproved(shop) == shop.tables.keys()
    quick_audit(shop.worker, compiler)
    assert unproved(shop) == set()
    number = len(proofs(shop))
    prune(shop.worker, compiler)
    assert len(proofs(shop)) == number / 2, "or it would be a claim when its time comes"
    assert all(at is not None for at, _ in proved(shop).values())


def test_a_snapshot_that_sees_a_page_in_the_middle_of_nothing(shop: Shop) -> None:
    """Events that are not applied yet are lag, and not against the proof."""
    shop.append(shopping(2, prefix="later"))
    quick_audit(shop.worker, Compiler(SHOP))
    assert unproved(shop) == set()
    assert quick(shop.worker, Compiler(SHOP).of(shop.worker, build_of(shop, "daily"))) == []


def test_hours_are_added_up_and_the_newest_proof_stays(shop: Shop, connect: Connect) -> None:
    compiler = Compiler(SHOP)
    build = build_of(shop, "daily")
    with connect(autocommit=True) as owner:
        owner.execute(
            """
            INSERT INTO refold.proofs (build_id, depth, began_at, ended_at, rows, slices, differed)
            SELECT %s, depth, at, at + interval '1 second', 1, 3, mod(n, 3)
            FROM unnest('{quick,deep}'::text[]) AS depth, generate_series(1, 180) AS n,
                 LATERAL (SELECT date_trunc('hour', now(), 'UTC') - n * interval '1 minute' AS at) AS t
            """,
            (build.build_id,),
        )
        before = owner.execute("SELECT * FROM refold.proofs_by_hour ORDER BY 1, 2, 3").fetchall()
        assert len(before) == 6
        claims = proved(shop)
        for _ in range(2):
            prune(shop.worker, compiler)
            assert owner.execute("SELECT * FROM refold.proofs_by_hour ORDER BY 1, 2, 3").fetchall() == before
            assert sorted(proofs(shop)) == [("daily", "deep", 1), ("daily", "quick", 1)]
            assert proved(shop) == claims
        quick_audit(shop.worker, compiler)
        owner.execute("UPDATE refold.proof_hours SET hour = hour - interval '31 days'")
        prune(shop.worker, compiler)
        old = "SELECT FROM refold.proof_hours WHERE hour < now() - interval '30 days'"
        assert owner.execute(old.encode()).rowcount == 0
        # A build that is forgotten takes its proofs along.
        owner.execute("UPDATE refold.builds SET state = 'dropped' WHERE build_id = %s", (build.build_id,))
        owner.execute("DELETE FROM refold.checksums WHERE build_id = %s", (build.build_id,))
        owner.execute("DELETE FROM refold.builds WHERE build_id = %s", (build.build_id,))
        assert owner.execute("SELECT FROM refold.proofs WHERE build_id = %s", (build.build_id,)).rowcount == 0


def test_readers_of_proofs_and_who_may_not_write_them(shop: Shop, connect: Connect) -> None:
    quick_audit(shop.worker, Compiler(SHOP))
    with connect(autocommit=True) as observer:
        observer.execute("SET ROLE refold_observer")
        assert observer.execute("SELECT FROM refold.proofs_now").rowcount == len(find(shop.worker))
        assert observer.execute("SELECT FROM refold.proofs_by_hour").rowcount
        for statement in (
            "DELETE FROM refold.proofs",
            "INSERT INTO refold.proofs (build_id, depth, began_at, ended_at, rows, slices, differed)"
            " VALUES (1, 'quick', now(), now(), 1, 1, 0)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                observer.execute(statement.encode())
        observer.execute("SET ROLE refold_analyst")
        assert observer.execute("SELECT FROM metrics.freshness WHERE proved_seconds < 60").rowcount
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            observer.execute("SELECT FROM refold.proofs_now")
    with connect(autocommit=True) as worker:
        worker.execute("SET ROLE refold_worker")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute("UPDATE refold.proofs SET began_at = now()")
