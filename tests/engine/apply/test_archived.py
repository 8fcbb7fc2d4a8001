"""A new build reads what was purged from the archive, and equals its query over all events that ever were."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from refold.engine.archive.sources import purged
from refold.engine.deployment.deploy import deploy
from refold.engine.deployment.run import Progress
from refold.engine.reconcile.release import release
from refold.engine.scrub.scrub import scrub
from refold.errors import BuildError, DefinitionError
from refold.model.projection.definition import load_directory
from refold.postgres.rows import one_row
from refold.service.worker.loop import Worker
from refold.store.bases import complete
from refold.store.builds.build import find
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import letters
from refold.store.builds.first_load import start_over
from tests.engine.purge.conftest import CHANGES, PROJECT, Yard, yard  # noqa: F401
from tests.support.law import wrong_metrics
from tests.support.purging import chill_all, let_go

pytestmark = pytest.mark.live("archived")


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    folder = tmp_path / "changed"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (old, new) in CHANGES.items():
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))
    return folder


@pytest.fixture
def purged_yard(yard: Yard) -> Iterator[Yard]:  # noqa: F811
    """Two of three full segments are purged, one of which begins with half a slice, and all their ids are cold."""
    first, second, *_ = yard.archive()
    for archive in (first, second):
        yard.fold(archive)
        let_go(yard.admin, archive)
    chill_all(yard.worker)
    yield yard


def make(yard: Yard, folder: Path, told: list[Progress] | None = None) -> None:  # noqa: F811
    seen = [] if told is None else told
    deploy(yard.worker, folder, load_directory(folder), seen.append)
    yard.compiler, yard.definitions = Compiler(folder), load_directory(folder)


def wrong(yard: Yard) -> Mapping[str, object]:  # noqa: F811
    return wrong_metrics(yard.url, yard.definitions, log="public.everything")


def test_all_kinds_load_from_archive_and_log(purged_yard: Yard, changed: Path) -> None:
    told: list[Progress] = []
    make(purged_yard, changed, told)
    assert wrong(purged_yard) == {}
    purged_yard.look()
    assert purged_yard.reconcile().clean
    assert scrub(purged_yard.worker).damage == []
    # Progress is of all events, not only of those in the log.
    daily = [one for one in told if one.build.projection == "daily"]
    assert [one.events for one in daily[:2]] == [40, 80]
    assert all(one.total >= 160 for one in daily[:2])
    left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'thawed%'"
    assert purged_yard.admin.execute(left).fetchone() == (0,)


def test_it_goes_on_with_pages_audits_and_another_purge(purged_yard: Yard, changed: Path) -> None:
    yard = purged_yard  # noqa: F811
    make(yard, changed)
    yard.append(30)
    Worker(yard.url, changed).run(drain=True)
    yard.look()
    third = yard.archive()[0]
    yard.fold(third)
    let_go(yard.admin, third)
    yard.look()
    assert wrong(yard) == {}
    # A rebuild takes over the base that was loaded.
    fetched = Path(yard.location)
    fetched.rename(fetched.with_name("elsewhere"))
    with yard.admin.transaction():
        yard.admin.execute("UPDATE refold.builds SET state = 'retired', retired_at = now() WHERE projection = 'seen'")
    make(yard, changed)
    assert wrong(yard) == {}


@pytest.mark.slow
@pytest.mark.parametrize("point", ["load_archived", "load_archived:2", "load_rows:2", "load_indexes"])
def test_killed_anywhere_it_goes_on(purged_yard: Yard, changed: Path, point: str) -> None:
    environment = {**os.environ, "REFOLD_DATABASE_URL": purged_yard.url, "REFOLD_CRASH_AT": point}
    command = [sys.executable, "-m", "refold", "deploy", "--projections", str(changed)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    Worker(purged_yard.url, changed).run(drain=True)
    purged_yard.compiler, purged_yard.definitions = Compiler(changed), load_directory(changed)
    assert wrong(purged_yard) == {}
    purged_yard.look()


def forge(path: Path) -> None:
    """Write the file again, with the same events but for one user."""
    table = pq.read_table(path)
    users = table["user_id"].to_pylist()
    forged = pa.array(["forged", *users[1:]], pa.string())
    at = table.schema.get_field_index("user_id")
    pq.write_table(table.set_column(at, table.schema.field("user_id"), forged), path, store_schema=False)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "forged": forge,
    "missing": Path.unlink,
    "damaged": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
    "another": lambda path: path.write_bytes(sorted(path.parent.iterdir())[2].read_bytes()),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_file_that_is_not_what_was_proved_is_refused(purged_yard: Yard, changed: Path, what: str) -> None:
    file = purged(purged_yard.worker)[1]
    path = Path(purged_yard.location) / file.location
    good = path.read_bytes()
    DAMAGE[what](path)
    with pytest.raises(BuildError, match="cannot be read from the archive") as refused:
        make(purged_yard, changed)
    assert refused.value.remedy is not None and "refold archive verify --deep" in refused.value.remedy
    # What is live stays as it is, and nothing half built is shown.
    assert purged_yard.wrong() == {}
    assert find(purged_yard.worker, "b.state = 'live' AND b.number > 1") == []
    path.write_bytes(good)
    make(purged_yard, changed)
    assert wrong(purged_yard) == {}


def test_what_would_need_purged_events_again_is_refused(purged_yard: Yard, changed: Path) -> None:
    (changed / "every_path.sql").write_text(
        "SELECT user_id, array_agg(action ORDER BY ts, event_id) AS path FROM events GROUP BY user_id"
    )
    with pytest.raises(DefinitionError, match="were purged") as refused:
        make(purged_yard, changed)
    assert refused.value.remedy is not None and "a row for each event" in refused.value.remedy


def test_events_that_fail_become_dead_letters_with_their_event(purged_yard: Yard, changed: Path) -> None:
    """They can be released afterwards, though they are nowhere in the log."""
    for name in ("by_user.sql", "clicks.sql"):
        text = (changed / name).read_text()
        (changed / name).write_text(text.replace("(metadata->>'n')::numeric", "1 / (1 - (event_id LIKE 'r0-1%')::int)"))
    tagged = changed / "tagged.py"
    tagged.write_text(
        tagged.read_text().replace("    number =", "    1 / (event.event_id[:4] != 'r0-1')\n    number =")
    )
    make(purged_yard, changed)
    letters = purged_yard.admin.execute(
        "SELECT b.projection, count(*), count(d.event), min(d.event ->> 'event_id') FROM refold.dead_letters AS d"
        " JOIN refold.builds AS b USING (build_id) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [one[0] for one in letters] == ["by_user", "clicks", "tagged"]
    assert all(number == kept > 3 and first.startswith("r0-1") for _, number, kept, first in letters)
    failing = purged_yard.admin.execute("SELECT event_id FROM everything WHERE event_id LIKE 'r0-1%'").fetchall()
    left_out = {name: [event_id for (event_id,) in failing] for name in ("by_user", "clicks", "tagged")}
    assert wrong_metrics(purged_yard.url, purged_yard.definitions, left_out, log="public.everything") == {}
    purged_yard.look()


def test_a_purged_event_is_not_released_into_a_load_that_has_passed_it(purged_yard: Yard, changed: Path) -> None:
    (bad,) = one_row(purged_yard.admin, "SELECT min(event_id) FROM everything WHERE action <> 'noise' AND position < 9")
    for name in ("by_user.sql", "clicks.sql"):
        text = (changed / name).read_text()
        fails = f"1 / (1 - (event_id = '{bad}' AND NOT metadata ? 'mended')::int)"
        (changed / name).write_text(text.replace("(metadata->>'n')::numeric", fails))

    class Enough(Exception):
        pass

    def passed(name: str) -> bool:
        build = purged_yard.build(name)
        return (
            build.state == "building" and not build.loaded and complete(purged_yard.worker, build.build_id, build.floor)
        )

    for name in ("by_user", "clicks"):

        def stop(now: Progress, name: str = name) -> None:
            if passed(name):
                raise Enough

        with pytest.raises(Enough):
            deploy(purged_yard.worker, changed, load_directory(changed), stop)
        [letter] = [one for one in letters(purged_yard.worker, waiting=True) if one.projection == name]
        with pytest.raises(BuildError, match="is still being loaded"):
            release(purged_yard.worker, Compiler(changed), letter)
        assert passed(name)
    make(purged_yard, changed)
    for table in ("refold.dead_letters SET event = jsonb_set(event, '{metadata,mended}', '1')",
                  "everything SET metadata = metadata || '{\"mended\": 1}'"):  # fmt: skip
        purged_yard.admin.execute(f"UPDATE {table} WHERE event_id = '{bad}'".encode())
    for letter in letters(purged_yard.worker, waiting=True):
        assert release(purged_yard.worker, purged_yard.compiler, letter).answer == "released"
    purged_yard.drain()
    assert wrong(purged_yard) == {}
    purged_yard.look()


def test_a_load_that_starts_over_reads_the_archive_again(purged_yard: Yard, changed: Path) -> None:
    told: list[Progress] = []

    class Enough(Exception):
        pass

    def stop(now: Progress) -> None:
        told.append(now)
        if len(told) == 5:
            raise Enough

    with pytest.raises(Enough):
        deploy(purged_yard.worker, changed, load_directory(changed), stop)
    for build in find(purged_yard.worker, "b.state = 'building' AND b.upstream_id IS NULL"):
        with purged_yard.worker.transaction():
            start_over(purged_yard.worker, build)
    make(purged_yard, changed)
    assert wrong(purged_yard) == {}
    purged_yard.look()


def test_after_a_recovery_rows_come_with_the_present_coordinates(purged_yard: Yard, changed: Path) -> None:
    """Which the readers of a stream compare with their cursors."""
    purged_yard.admin.execute("UPDATE refold.archives SET rewritten = true WHERE state = 'purged'")
    make(purged_yard, changed)
    assert wrong(purged_yard) == {}
    (table,) = (one.table_name for one in find(purged_yard.worker, "b.state = 'live' AND b.projection = 'clicks'"))
    floor = purged(purged_yard.worker)[-1].upper_position
    rows = purged_yard.admin.execute(
        f"SELECT DISTINCT txid::text FROM refold_builds.{table} WHERE position < {floor}".encode()
    ).fetchall()
    assert rows == [("2",)]
