"""Rows go while events leave the log: bases, loads from the archive and audits against it keep to the same border."""

from __future__ import annotations

from datetime import date

import pytest

from refold.engine.deployment.deploy import rebuild
from refold.engine.reconcile.archived import reconcile_archived
from refold.engine.retain.let_go import let_go
from refold.store import retentions
from tests.engine.purge.conftest import PROJECT, Yard, yard  # noqa: F401

pytestmark = pytest.mark.live("archived")

BORDER = date(2026, 3, 2)


def retain(yard: Yard, first: date = BORDER) -> int:  # noqa: F811
    retentions.put(yard.worker, "daily", keep_from=first)
    wanted = retentions.find(yard.worker, "daily")
    assert wanted is not None
    return let_go(yard.worker, yard.compiler, wanted, rows=1)


def differs(yard: Yard, first: date = BORDER) -> int:  # noqa: F811
    """How many rows differ from the query over all events that were ever appended, from the border on."""
    query = (PROJECT / "daily.sql").read_text()
    with yard.admin.transaction(force_rollback=True):
        yard.admin.execute("SET LOCAL search_path = pg_temp, refold, pg_catalog; SET LOCAL TimeZone = 'UTC'")
        yard.admin.execute("CREATE TEMPORARY VIEW events AS SELECT * FROM public.everything")
        yard.admin.execute(f"CREATE TEMPORARY VIEW counted AS SELECT * FROM ({query}) AS q WHERE day >= '{first}'")
        row = yard.admin.execute(
            "SELECT count(*) FROM ((TABLE counted EXCEPT ALL TABLE metrics.daily)"
            " UNION ALL (TABLE metrics.daily EXCEPT ALL TABLE counted)) AS d"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_before_the_purge(yard: Yard) -> None:  # noqa: F811
    assert retain(yard) > 0
    yard.purge()
    yard.append(20)
    yard.drain()
    yard.look()
    assert differs(yard) == 0
    found = reconcile_archived(yard.worker, yard.compiler, ["daily"], by="the test")
    assert (found.findings, found.checksums) == ([], [])


def test_after_the_purge(yard: Yard) -> None:  # noqa: F811
    yard.purge()
    assert retain(yard) > 0
    yard.look()
    assert differs(yard) == 0
    base = yard.build("daily").table_name + "__base"
    assert yard.admin.execute(f"SELECT count(*) FROM refold_builds.{base} WHERE day < '{BORDER}'").fetchone() == (0,)
    found = reconcile_archived(yard.worker, yard.compiler, ["daily"], by="the test")
    assert (found.findings, found.checksums) == ([], [])
    # Of damage to the base, what is kept is healed, and nothing else comes back.
    yard.admin.execute(f"DELETE FROM refold_builds.{base}")
    assert reconcile_archived(yard.worker, yard.compiler, ["daily"], by="the test").findings
    yard.reconcile()
    yard.look()
    assert differs(yard) == 0


def test_in_the_middle_of_folding(yard: Yard) -> None:  # noqa: F811
    [first, *_] = yard.archive()
    yard.fold(first)
    assert retain(yard) > 0
    yard.look()
    yard.append(20)
    yard.drain()
    yard.purge()
    yard.look()
    assert differs(yard) == 0


def test_rebuilds(yard: Yard) -> None:  # noqa: F811
    yard.purge()
    retain(yard)
    rebuild(yard.worker, PROJECT, ["daily"], lambda progress: None)
    yard.look()
    assert differs(yard) == 0
    retentions.forget(yard.worker, "daily")
    # No other build has what is purged: it comes from the archive.
    rebuild(yard.worker, PROJECT, ["daily"], lambda progress: None)
    assert yard.build("daily").retained_from is None
    yard.look()
    assert differs(yard, date(1, 1, 1)) == 0
