"""What a command has shown as failed does not go live by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply.step import StepRunner
from refold.engine.deployment.deploy import deploy, rebuild
from refold.engine.deployment.promote import go_live
from refold.engine.publish.switch import promote
from refold.engine.verify.trial import Unkeepable
from refold.errors import BuildError
from refold.inspect.status import read
from refold.model.projection.definition import load_directory
from refold.store.builds.build import find
from refold.store.builds.compiled import Compiler
from tests.support.law import worker_connection
from tests.support.live import drain, make_live
from tests.support.making import events

GOOD = "SELECT action, count(*) AS n FROM events GROUP BY action"
BAD = "SELECT user_id, sum(public.weight(version)) AS n FROM events GROUP BY user_id"
BELOW = "SELECT user_id, public.weight(version) AS n FROM events"


@pytest.fixture
def worker(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A database with events, and a function that a projection calls, and that fails: a table is missing."""
    with psycopg.connect(database_url) as conn:
        append(conn, events(6))
        conn.execute(
            "CREATE FUNCTION public.weight(integer) RETURNS numeric IMMUTABLE LANGUAGE plpgsql"
            " AS 'BEGIN RETURN (SELECT factor * $1 FROM public.weights); END'"
        )
        conn.execute("GRANT USAGE ON SCHEMA public TO refold_worker")
    with worker_connection(database_url) as conn:
        yield conn


def mend(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute("CREATE TABLE public.weights AS SELECT 2 AS factor")
        conn.execute("GRANT SELECT ON public.weights TO PUBLIC")


def states(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """The state of the newest build of each projection."""
    return {build.projection: build.state for build in find(conn)}


def test_a_build_that_fails_is_ended_and_the_others_wait_for_the_next_deploy(
    worker: psycopg.Connection[Any], database_url: str, tmp_path: Path
) -> None:
    for name, query in (
        ("good", GOOD),
        ("bad", BAD),
        ("below", BELOW),
        ("top", "SELECT count(*) AS c, n FROM below GROUP BY n"),
    ):
        (tmp_path / f"{name}.sql").write_text(query)
    with pytest.raises(BuildError, match=r"cannot be kept: relation \"public.weights\" does not exist") as shown:
        make_live(database_url, tmp_path)
    assert shown.value.remedy is not None
    failed = {name for name, state in states(worker).items() if state == "retired"}
    assert failed and "good" not in failed
    mend(database_url)
    drain(database_url, tmp_path)
    assert "live" not in states(worker).values()
    assert set(make_live(database_url, tmp_path)) == {"good", "bad", "below", "top"}


def test_what_failed_is_of_no_use_once_its_file_is_gone(
    worker: psycopg.Connection[Any], database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "good.sql").write_text(GOOD)
    (tmp_path / "zbad.sql").write_text(BAD)
    with pytest.raises(BuildError):
        make_live(database_url, tmp_path)
    assert states(worker) == {"good": "building", "zbad": "retired"}
    (tmp_path / "good.sql").unlink()
    (tmp_path / "zbad.sql").write_text(GOOD)
    make_live(database_url, tmp_path)
    assert states(worker) == {"good": "retired", "zbad": "live"}


def test_a_switch_that_was_refused_is_not_made_later_by_a_worker(
    worker: psycopg.Connection[Any], database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "good.sql").write_text(GOOD)
    make_live(database_url, tmp_path)
    (tmp_path / "good.sql").write_text("SELECT action, max(ts) AS at FROM events GROUP BY action")
    deploy(worker, tmp_path, load_directory(tmp_path), lambda progress: None, promote=False)
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("CREATE VIEW public.mine AS SELECT n FROM metrics.good")
        with pytest.raises(BuildError):
            go_live(worker, tmp_path, [], lambda progress: None)
        other.execute("DROP VIEW public.mine")
    drain(database_url, tmp_path)
    assert states(worker)["good"] == "building"
    # Nor does status say that it goes live by itself.
    (refused,) = [build for build in read(worker).builds if build.state == "building"]
    assert not refused.promotes
    assert "--recreate-views" in (refused.refused or "")
    assert [build.projection for build in go_live(worker, tmp_path, [], lambda progress: None)] == ["good"]


def test_a_rebuild_goes_on_with_what_failed(worker: psycopg.Connection[Any], database_url: str, tmp_path: Path) -> None:
    (tmp_path / "good.sql").write_text(GOOD)
    make_live(database_url, tmp_path)
    rebuild(worker, tmp_path, ["good"], lambda progress: None, promote=False)
    worker.execute("UPDATE refold.deployments SET promote = true, given_up_at = now() WHERE kind = 'rebuild'")
    drain(database_url, tmp_path)
    assert [build.number for build in rebuild(worker, tmp_path, ["good"], lambda progress: None)] == [2]


def test_no_build_goes_live_whose_page_postgres_refuses(
    worker: psycopg.Connection[Any], database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "lengths.sql").write_text("SELECT length(action) AS long, count(*) AS n FROM events GROUP BY 1")
    deploy(worker, tmp_path, load_directory(tmp_path), lambda progress: None, promote=False)
    # As earlier versions of refold made it where they saw no column.
    worker.execute("UPDATE refold.builds SET reads = '{}'")
    worker.execute("UPDATE refold.deployments SET promote = true")
    compiled = StepRunner(worker, Compiler(tmp_path))
    with pytest.raises(Unkeepable, match='column "action" does not exist') as refused:
        promote(worker, find(worker)[0].deployment, compiled.compiler, compiled.catch_up)
    assert refused.value.remedy is not None
    drain(database_url, tmp_path)
    assert states(worker) == {"lengths": "building"}
    [(error,)] = worker.execute("SELECT error FROM refold.builds").fetchall()
    assert "cannot go live" in error and 'column "action" does not exist' in error
