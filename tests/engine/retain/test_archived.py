"""Rows go while events leave the log: bases, loads from the archive and audits against it keep to the same border."""

from __future__ import annotations

from datetime import date
from typing import Any

import psycopg
import pytest

from refold.engine.deployment.deploy import rebuild
from refold.engine.purge.fold import fold
from refold.engine.reconcile.archived import reconcile_archived
from refold.engine.retain.let_go import let_go
from refold.errors import BuildError
from refold.store import bases, retentions
from refold.store.bases import Folded
from refold.store.builds.compiled import Compiler
from tests.engine.purge.conftest import PROJECT, Yard, yard  # noqa: F401
from tests.support.law import worker_connection

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


def test_rows_go_while_a_step_folds(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The step has its SQL from before, and folds only what is kept all the same."""
    [first, *_] = yard.archive()
    found = bases.find

    def find(conn: psycopg.Connection[Any], build_id: int, *, lock: bool = False) -> Folded | None:
        if lock and conn is yard.worker:
            monkeypatch.undo()
            with worker_connection(yard.url) as other:
                wanted = retentions.find(other, "daily")
                assert wanted is not None and let_go(other, Compiler(PROJECT), wanted) > 0
        return found(conn, build_id, lock=lock)

    build = yard.build("daily")
    # The first step only says what is folded.
    fold(yard.worker, yard.compiler, build, first)
    retentions.put(yard.worker, "daily", keep_from=BORDER)
    monkeypatch.setattr(bases, "find", find)
    calls = [fold(yard.worker, yard.compiler, build, first) for _ in range(3)]
    assert calls
    base = build.table_name + "__base"
    assert yard.admin.execute(f"SELECT count(*) FROM refold_builds.{base} WHERE day < '{BORDER}'").fetchone() == (0,)
    yard.purge()
    yard.look()
    assert differs(yard) == 0


def test_rows_go_while_a_base_is_compared_with_the_archive(yard: Yard) -> None:  # noqa: F811
    yard.purge()
    retentions.put(yard.worker, "daily", keep_from=BORDER)

    def progress(name: str, done: int, total: int) -> None:
        with worker_connection(yard.url) as other:
            wanted = retentions.find(other, "daily")
            assert wanted is not None
            let_go(other, Compiler(PROJECT), wanted)

    with pytest.raises(BuildError, match="keeps fewer slices since the audit began"):
        reconcile_archived(yard.worker, yard.compiler, ["daily"], by="the test", progress=progress)
    yard.look()
    assert reconcile_archived(yard.worker, yard.compiler, ["daily"], by="the test").findings == []
