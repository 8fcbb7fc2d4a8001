"""What a view leaves out cannot be made out by whoever reads the view."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.deployment.deploy import deploy, rebuild
from refold.engine.publish.analyst_views import apply_analyst_views
from refold.engine.publish.views import without_barrier
from refold.model.projection.definition import load_directory
from refold.store.schema.resources import sql_dir
from tests.support.law import worker_connection

Connection = psycopg.Connection[Any]

KINDS = {
    "merge": "SELECT user_id, count(*) AS events FROM events GROUP BY user_id HAVING count(*) >= 10",
    "members": "SELECT user_id, count(DISTINCT action) AS events FROM events GROUP BY user_id HAVING count(*) >= 10",
    "recompute": "SELECT user_id, array_agg(action ORDER BY ts, event_id) AS events FROM events GROUP BY user_id"
    " HAVING count(*) >= 10",
}
OTHER = {name: text.replace("SELECT user_id,", "SELECT upper(user_id) AS user_id, version,").replace(
    "GROUP BY user_id", "GROUP BY upper(user_id), version") for name, text in KINDS.items()}  # fmt: skip
"""With other columns: the views are made again."""


@pytest.fixture
def worker(database_url: str, tmp_path: Path) -> Iterator[Connection]:
    with psycopg.connect(database_url) as conn:
        append(conn, [{"id": f"m{n}", "user_id": "many", "action": "a", "ts": n} for n in range(12)])
        append(conn, [{"id": f"f{n}", "user_id": "few", "action": "a", "ts": n} for n in range(3)])
    with worker_connection(database_url) as conn:
        write(conn, tmp_path, KINDS)
        yield conn


def write(conn: Connection, folder: Path, projections: dict[str, str]) -> None:
    for name, text in projections.items():
        (folder / f"{name}.sql").write_text(text)
    deploy(conn, folder, load_directory(folder), lambda progress: None)


@pytest.fixture
def made_out(database_url: str) -> Callable[[str], set[str]]:
    """What an analyst makes out of a view, by a function that is cheaper than any condition of the view."""

    def made_out(view: str) -> set[str]:
        seen: set[str] = set()
        with psycopg.connect(database_url, options="-c role=refold_analyst") as analyst:
            analyst.add_notice_handler(lambda notice: seen.add(str(notice.message_primary)))
            analyst.execute(
                "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS"
                " $$ BEGIN RAISE NOTICE '%', lower($1); RETURN true; END $$"
            )
            analyst.execute(f"SELECT * FROM {view} WHERE pg_temp.leak(user_id)".encode())
        return seen

    return made_out


def test_having_is_a_threshold(worker: Connection, tmp_path: Path, made_out: Callable[[str], set[str]]) -> None:
    assert {name: made_out(f"metrics.{name}") for name in KINDS} == {name: {"many"} for name in KINDS}
    rebuild(worker, None, list(KINDS), lambda progress: None)
    assert {name: made_out(f"metrics.{name}") for name in KINDS} == {name: {"many"} for name in KINDS}
    write(worker, tmp_path, OTHER)
    assert {name: made_out(f"metrics.{name}") for name in KINDS} == {name: {"many"} for name in KINDS}


def test_a_view_on_top_stays_what_it_was_when_it_is_made_again(
    worker: Connection, tmp_path: Path, made_out: Callable[[str], set[str]]
) -> None:
    (tmp_path / "plain.sql").write_text("SELECT user_id, count(*) AS events FROM events GROUP BY user_id")
    write(worker, tmp_path, {})
    worker.execute(
        "CREATE VIEW metrics.known WITH (security_barrier, security_invoker = false) AS"
        " SELECT user_id FROM metrics.plain WHERE events >= 10"
    )
    worker.execute("GRANT SELECT ON metrics.known TO refold_analyst")
    assert made_out("metrics.known") == {"many"}
    write(worker, tmp_path, {"plain": OTHER["merge"].partition(" HAVING")[0]})
    assert made_out("metrics.known") == {"many"}


def test_authors_are_told_of_a_view_without_a_barrier(worker: Connection, tmp_path: Path) -> None:
    views = {
        "hides": "AS SELECT 1 AS one FROM metrics.merge WHERE events > 11",
        "fenced": "WITH (security_barrier) AS SELECT 1 AS one FROM metrics.merge WHERE events > 11",
        "unfenced": "WITH (security_barrier = false) AS SELECT 1 AS one FROM metrics.merge HAVING count(*) > 3",
        "counts": "AS SELECT count(*) FILTER (WHERE events > 11) AS n FROM metrics.merge",
    }
    folder = tmp_path / "views"
    folder.mkdir()
    for name, text in views.items():
        (folder / f"{name}.sql").write_text(f"CREATE OR REPLACE VIEW metrics.{name} {text}")
    assert apply_analyst_views(worker, folder) == sorted(views)
    assert without_barrier(worker, views) == ["hides", "unfenced"]


def test_what_comes_with_refold_has_one_where_it_leaves_rows_out(admin: Connection) -> None:
    for path in [*(sql_dir() / "views").glob("*.sql"), sql_dir() / "metrics" / "freshness.sql"]:
        text = path.read_text().partition("COMMENT ON")[0]
        assert ("WHERE" in text.replace("FILTER (WHERE", "")) == ("WITH (security_barrier)" in text), path
