"""Erasures while the border of purged events lies inside a slice of positions."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from refold import SourceEvent
from refold.engine.archive.object_store import open_store
from refold.engine.erasure.run import erase
from refold.engine.reconcile.archived import reconcile_archived
from refold.engine.reconcile.audit import quick
from refold.model.erasure import Person
from refold.model.stream.slices import POSITION_BITS
from refold.store.erasures import Mode
from tests.engine.erasure.test_crash import erasing, session_ends
from tests.engine.erasure.test_purged import POINTS_OF_PURGED, whole
from tests.engine.purge.conftest import PROJECT, SLICE, Connection, Yard, segments_of
from tests.support.law import MONDAY, worker_connection
from tests.support.purging import let_go

pytestmark = pytest.mark.live("archived")

KIM = "kim"
WHOM = Person(KIM)
ENDS = (SLICE // 4, SLICE // 2, 2 * SLICE + SLICE // 2, 4 * SLICE)
"""Ends of segments: two of them are in the first slice, and one in the third."""
PLACES = {"below": (0, 1), "above": (2,), "on both sides": (0, 1, 2)}
"""Segments with events of the person, by where these are of the border of what was purged, the end of the second."""


def of_kim(prefix: str) -> list[SourceEvent]:
    """Two events of the person: the last ones of their transaction, whatever becomes of them."""
    return [
        SourceEvent(id=f"{prefix}-1", user_id=KIM, action="buy", ts=MONDAY, metadata={"n": 5, "place": "her's"}),
        SourceEvent(id=f"{prefix}-{KIM}", user_id=KIM, action="view", ts=MONDAY, metadata={}),
    ]


@pytest.fixture
def cut(database_url: str, admin: Connection, tmp_path: Path) -> Iterator[Yard]:
    """Four segments of which nothing is purged yet."""
    segments_of(admin, *ENDS)
    admin.execute("CREATE TABLE everything (LIKE refold.events)")
    location = str(tmp_path / "archive")
    with worker_connection(database_url) as worker:
        yield Yard(database_url, admin, worker, location, open_store(location))


def purged(yard: Yard, where: str, segments: int = 2) -> None:
    """Fill the segments, put events of the person into some, and purge the first ones."""
    for number, end in enumerate(ENDS):
        yard.append(20)
        if number in PLACES[where]:
            yard.append(of_kim(f"k{number}"))
        yard.skip_to(end)
    yard.drain()
    yard.seal()
    for archive in yard.archive()[:segments]:
        yard.fold(archive)
        let_go(yard.admin, archive)
    assert yard.build("clicks").floor == ENDS[segments - 1]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["anonymise", "delete"])
@pytest.mark.parametrize("where, segments", [("below", 2), ("above", 2), ("on both sides", 2), ("on both sides", 3)])
def test_the_border_of_what_was_purged_cuts_a_slice(cut: Yard, where: str, segments: int, mode: Mode) -> None:
    purged(cut, where, segments)
    done = erase(cut.worker, PROJECT, WHOM, mode=mode, keeps=["n"], reason="asked")
    assert done.evidence["proof"]["events"] == 2 * len(PLACES[where])
    assert not any(done.evidence["after"].values())
    cut.forget(WHOM, mode, ["n"])
    whole(cut)
    assert reconcile_archived(cut.worker, cut.compiler, by="the test").clean


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["anonymise", "delete"])
def test_the_purge_goes_on_afterwards(cut: Yard, mode: Mode) -> None:
    purged(cut, "on both sides")
    erase(cut.worker, PROJECT, WHOM, mode=mode, keeps=["n"], reason="asked")
    cut.forget(WHOM, mode, ["n"])
    assert len(cut.purge().segments) == 2
    whole(cut)


@pytest.mark.slow
@pytest.mark.parametrize("point", [*POINTS_OF_PURGED, "erasure_log", "erasure_healed"])
def test_killed_anywhere_it_is_finished(cut: Yard, point: str) -> None:
    purged(cut, "on both sides")
    killed = erasing(cut.url, KIM, "--keep", "n", "--projections", str(PROJECT), at=point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    session_ends(cut.admin)
    done = erasing(cut.url, KIM, "--keep", "n", "--projections", str(PROJECT))
    assert done.returncode == 0, done.stderr.decode()
    cut.forget(WHOM, "anonymise", ["n"])
    whole(cut)


@pytest.mark.slow
@pytest.mark.parametrize("projection", ["clicks", "tagged"])
@pytest.mark.parametrize("segments", [1, 2, 3])
def test_a_wrong_checksum_of_a_cut_slice(cut: Yard, projection: str, segments: int) -> None:
    """All of its rows are compared, with the archive and with the log, before it is corrected."""
    purged(cut, "on both sides", segments)
    build = cut.build(projection)
    number = (build.floor - 1) >> POSITION_BITS
    cut.admin.execute(
        "INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash) VALUES (%s, 0, %s, 0, 7)",
        (build.build_id, number),
    )
    assert cut.reconcile(deep=False).skipped
    told = reconcile_archived(cut.worker, cut.compiler, dry_run=True, by="the test")
    assert [(one.projection, one.slice) for one in told.checksums] == [(projection, name(number))]
    healed = reconcile_archived(cut.worker, cut.compiler, by="the test")
    assert healed.checksums == told.checksums and not (healed.drift or healed.beyond)
    cut.reconcile()
    whole(cut)


def name(number: int) -> str:
    return f"positions {number * SLICE:,} to {(number + 1) * SLICE - 1:,}"


@pytest.mark.parametrize("side", ["<", ">="])
def test_a_wrong_checksum_beside_a_wrong_row(cut: Yard, side: str) -> None:
    """The row is healed first, wherever it stands, so that the checksum says nothing of it."""
    purged(cut, "on both sides")
    build = cut.build("clicks")
    cut.admin.execute(
        "INSERT INTO refold.checksum_changes (build_id, relation, slice, rows, hash) VALUES (%s, 0, 0, 0, 7)",
        (build.build_id,),
    )
    table = f"refold_builds.{build.table_name}"
    first = f"(SELECT min(position) FROM {table} WHERE position {side} %s)"
    cut.admin.execute(f"UPDATE {table} SET n = 999 WHERE position = {first}".encode(), (build.floor,))
    healed = reconcile_archived(cut.worker, cut.compiler, by="the test")
    assert healed.drift >= 1
    cut.reconcile()
    whole(cut)


@pytest.mark.slow
def test_an_erasure_above_the_border_does_not_hide_damage_below(cut: Yard) -> None:
    purged(cut, "above")
    build = cut.build("clicks")
    cut.admin.execute(f"UPDATE refold_builds.{build.table_name} SET n = 999 WHERE position = 1".encode())
    erase(cut.worker, PROJECT, WHOM, mode="anonymise", keeps=["n"], reason="asked")
    cut.forget(WHOM, "anonymise", ["n"])
    assert [one.slice for one in quick(cut.worker, cut.compiler.of(cut.worker, cut.build("clicks")))] == [0]
    healed = reconcile_archived(cut.worker, cut.compiler, by="the test")
    assert [one.before["n"] for one in healed.findings if one.projection == "clicks"] == [999]
    cut.reconcile()
    whole(cut)
