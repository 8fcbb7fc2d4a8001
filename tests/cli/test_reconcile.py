"""`refold reconcile`: its exit status, what it lists, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.store.builds.build import find
from tests.support.tampering import tamper

from .conftest import Refold

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def drifted(
    refold: Refold, metric: Callable[[str, str], Path], record: Callable[..., None], conn: Connection
) -> Refold:
    """A metric of which one row was changed, one deleted and one made up."""
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    metric("users", "SELECT user_id, count(*) AS events FROM events GROUP BY user_id")
    record("view=ann", "buy=ann", "see=ann", "view=bob")
    assert refold("deploy").status == 0
    (build,) = find(conn, "b.projection = 'counts'")
    for change in (
        "UPDATE refold_builds.{} SET events = 99 WHERE action = 'view'",
        "DELETE FROM refold_builds.{} WHERE action = 'buy'",
        "INSERT INTO refold_builds.{} VALUES ('never', 7)",
    ):
        conn.execute(change.format(build.table_name).encode())
    conn.commit()
    return refold


def test_no_drift(refold: Refold, metric: Callable[[str, str], Path]) -> None:
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    refold("deploy")
    done = refold("reconcile")
    assert (done.status, done.out) == (0, "no drift: counts\n")


def test_drift_is_found_healed_and_recorded(drifted: Refold, conn: Connection) -> None:
    first = drifted("reconcile", "--json")
    assert first.status == 1
    assert sorted((f["kind"], f["key"]["action"], f["healed"]) for f in first.json["findings"]) == [
        ("drifted", "view", True),
        ("missing", "buy", True),
        ("orphan", "never", True),
    ]
    (changed,) = (finding for finding in first.json["findings"] if finding["kind"] == "drifted")
    assert (changed["before"]["events"], changed["after"]["events"]) == (99, 2)
    assert (first.json["drift"], sorted(first.json["audited"])) == (3, ["counts", "users"])
    second = drifted("reconcile", "--json")
    assert (second.status, second.json["findings"]) == (0, [])
    assert conn.execute("SELECT count(*) FROM refold.repairs").fetchone() == (3,)


def test_a_dry_run_heals_nothing(drifted: Refold, conn: Connection) -> None:
    for _ in range(2):
        done = drifted("reconcile", "counts", "--dry-run")
        assert done.status == 1
        assert "nothing was healed" in done.out
        assert '{"events": 99}' in done.out
    assert conn.execute("SELECT count(*) FROM refold.repairs").fetchone() == (0,)


def test_only_what_is_named_is_audited(drifted: Refold) -> None:
    done = drifted("reconcile", "users", "--json")
    assert (done.status, done.json["audited"]) == (0, ["users"])
    unknown = drifted("reconcile", "userz")
    assert (unknown.status, "Did you mean users?" in unknown.err) == (2, True)


@pytest.mark.parametrize("since", ["2026-13-01", "yesterday", "20260101T99"])
def test_a_wrong_date_is_refused(refold: Refold, since: str) -> None:
    done = refold("reconcile", "--since", since)
    assert done.status == 2
    assert "not a date or time" in done.err


@pytest.mark.parametrize("since", ["2026-01-01", "2026-01-01T12:00", "2026-01-01T12:00+05:30", "2026-01-01T00:00Z"])
def test_dates_and_times(refold: Refold, since: str) -> None:
    assert refold("reconcile", "--since", since).status == 0


def test_what_cannot_be_audited_is_told(refold: Refold, metric: Callable[[str, str], Path]) -> None:
    metric("actions", "SELECT action FROM events")
    metric("counts", "SELECT action, count(*) AS events FROM actions GROUP BY action")
    refold("deploy")
    done = refold("reconcile", "--since", "2026-01-01")
    assert done.status == 0
    assert "counts was not audited: actions has no column ts" in done.err


def test_the_first_line_is_the_verdict(drifted: Refold) -> None:
    quick = drifted("reconcile", "counts", "--depth", "quick")
    assert quick.out.startswith("drift: ") and "`refold reconcile --depth slice`" in quick.out.splitlines()[0]
    healed = drifted("reconcile")
    assert healed.out.splitlines()[0] == "drift: 3 rows differed, healed; refold.repairs keeps the old rows"
    # What the key says already is not repeated.
    assert '{"events": 1}' in healed.out and healed.out.count('"buy"') == 1


def test_json_says_whether_it_is_clean(drifted: Refold) -> None:
    """A quick audit counts slices and no rows: `drift` alone would read like a clean bill."""
    quick = drifted("reconcile", "--depth", "quick", "--json")
    assert (quick.status, quick.json["clean"], quick.json["drift"]) == (1, False, 0)
    drifted("reconcile")
    assert drifted("reconcile", "--depth", "quick", "--json").json["clean"] is True


def test_what_a_clean_verdict_does_not_cover_is_told(
    refold: Refold, metric: Callable[[str, str], Path], record: Callable[..., None], conn: Connection
) -> None:
    metric("tens", "SELECT action, sum(10 / (metadata->>'by')::integer) AS tens FROM events GROUP BY action")
    refold("deploy")
    record("view=ann", metadata={"by": 2})
    record("view=bob", metadata={"by": 0})
    refold("worker", "--drain")
    clean = refold("reconcile")
    assert (clean.status, clean.out) == (0, "no drift: tens\n")
    assert "tens excludes 1 event: `refold deadletters list tens --all`" in clean.err
    assert "damaged" not in clean.err
    tamper(conn, "UPDATE refold.events SET action = 'other' WHERE event_id = '1'")
    conn.commit()
    assert refold("scrub").out.startswith("damaged: 1 fault")
    assert "the log is damaged" in refold("reconcile").err


def test_a_funnel_is_told_by_what_analysts_see_of_it(
    refold: Refold, metric: Callable[[str, str], Path], record: Callable[..., None], conn: Connection
) -> None:
    metric(
        "steps",
        "SELECT user_id, window_funnel(NULL, ts, action = 'view', action = 'buy') AS level"
        " FROM events GROUP BY user_id",
    )
    record("view=ann", "buy=ann", "view=bob")
    assert refold("deploy").status == 0
    (build,) = find(conn, "b.projection = 'steps'")
    conn.execute(f"DELETE FROM refold_builds.{build.table_name} WHERE user_id = 'ann'".encode())
    conn.execute(f"UPDATE refold_builds.{build.table_name} SET level = 2 WHERE user_id = 'bob'".encode())
    conn.commit()
    findings = {one["key"]["user_id"]: one for one in refold("reconcile", "--json").json["findings"]}
    assert (findings["ann"]["before"], findings["ann"]["after"]["level"]) == (None, 2)
    assert (findings["bob"]["before"]["level"], findings["bob"]["after"]["level"]) == (2, 1)
