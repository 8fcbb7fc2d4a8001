"""Equal is not identical: in whatever order equals come, and wherever pages end, what is shown is the same text."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refold import append
from refold.engine.apply.page import apply_next_page
from refold.engine.deployment.deploy import rebuild
from refold.store.builds.build import find
from refold.store.builds.compiled import Compiler
from refold.store.builds.graph import by_depth
from tests.support.law import worker_connection
from tests.support.live import make_live
from tests.support.making import MONDAY_MS

N = "(metadata->>'n')::numeric"
F = "(metadata->>'n')::double precision"
PROJECTS = {
    "facts": f"SELECT event_id, user_id, {N} AS n, {F} AS f FROM events",
    "largest": f"SELECT user_id, max({N})::text AS high, min({N})::text AS low, max({F}) AS f"
    " FROM events GROUP BY user_id",
    "keyed": f"SELECT {N} AS n, count(*) AS events, count(DISTINCT user_id) AS users FROM events GROUP BY n",
    "keyed_floats": "SELECT f, count(*) AS events FROM facts GROUP BY f",
    "members": f"SELECT user_id, count(DISTINCT {N}) AS numbers, sum({N}) AS total, avg({N}) AS mean"
    " FROM events GROUP BY user_id",
    "ordered": "SELECT user_id, array_agg(n ORDER BY n) AS numbers, array_agg(DISTINCT n ORDER BY n) AS each,"
    " percentile_disc(0.5) WITHIN GROUP (ORDER BY n) AS middle, mode() WITHIN GROUP (ORDER BY n) AS usual,"
    " max(n)::text AS high FROM facts GROUP BY user_id",
    "regrouped": "SELECT n, n::text AS t, count(*) AS events, mode() WITHIN GROUP (ORDER BY user_id) AS u"
    " FROM facts GROUP BY n",
    "declared": "-- key: user_id\nWITH each AS (SELECT DISTINCT user_id, n FROM facts)\n"
    "SELECT user_id, n, max(n) OVER (PARTITION BY user_id) AS high FROM each",
}
EQUAL = ("1.0", "1.00", "1", "10e-1")
ZERO = ("0", "-0.0", "0.00", "0e1")


@pytest.fixture
def project(database_url: str, admin: psycopg.Connection[Any], tmp_path: Path) -> Iterator[tuple[str, Path]]:
    for name, query in PROJECTS.items():
        (tmp_path / f"{name}.sql").write_text(query)
    make_live(database_url, tmp_path)
    yield database_url, tmp_path


def shown(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """What the metrics show, as text."""
    with psycopg.connect(url) as conn:
        return {
            name: conn.execute(f"SELECT m::text FROM metrics.{name} AS m ORDER BY 1".encode()).fetchall()
            for name in PROJECTS
            if name != "facts"
        }


def play(url: str, folder: Path, numbers: tuple[str, ...], limit: int) -> dict[str, list[tuple[Any, ...]]]:
    """What is shown after events with these numbers, read in pages of so many, and nothing else."""
    with psycopg.connect(url, autocommit=True) as admin:
        for (table,) in admin.execute("SELECT table_name FROM refold.builds WHERE state = 'live'").fetchall():
            admin.execute(f"TRUNCATE refold_builds.{table}".encode())
            for at in (1, 2):
                admin.execute(
                    f"DO $$ BEGIN IF to_regclass('refold_builds.{table}__m{at}') IS NOT NULL"
                    f" THEN TRUNCATE refold_builds.{table}__m{at}; END IF; END $$".encode()
                )
        before = admin.execute("SELECT count(*) FROM refold.events").fetchone()
        assert before is not None
        for at, number in enumerate(numbers):
            append(
                admin,
                [
                    {
                        "id": f"e{before[0] + at}",
                        "user_id": f"u{before[0]}",
                        "action": "view",
                        "ts": MONDAY_MS,
                        "metadata": {"n": number},
                    }
                ],
            )
    with worker_connection(url) as conn:
        compiler = Compiler(folder)
        for build in by_depth(conn, find(conn, "b.state = 'live'")):
            compiled = compiler.of(conn, build)
            while (done := apply_next_page(conn, compiled, limit)) is not None and done.events:
                pass
    return {name: [(str(text).replace(f"u{before[0]}", "u"),) for (text,) in rows] for name, rows in shown(url).items()}


def test_the_numbers_are_equal_and_not_identical() -> None:
    assert len({Decimal(number) for number in EQUAL}) == 1
    assert len({str(Decimal(number)) for number in EQUAL}) > 1


@pytest.mark.slow
@given(order=st.sampled_from(list(permutations(EQUAL[:3])) + list(permutations(ZERO[:3]))), limit=st.integers(1, 3))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equals_in_every_order_show_the_same(project: tuple[str, Path], order: tuple[str, ...], limit: int) -> None:
    url, folder = project
    first = play(url, folder, tuple(sorted(order)), 1)
    found = play(url, folder, order, limit)
    # A recompute reads its key's events alone, and the others have been emptied.
    for name in ("largest", "keyed", "keyed_floats", "members", "ordered", "declared"):
        assert found[name] == first[name], name


@pytest.mark.parametrize("numbers", [EQUAL, tuple(reversed(EQUAL)), ZERO, tuple(reversed(ZERO))])
def test_a_rebuild_shows_the_same(project: tuple[str, Path], numbers: tuple[str, ...]) -> None:
    url, folder = project
    live = play(url, folder, numbers, 2)
    with worker_connection(url) as conn:
        rebuild(conn, folder, ["facts"], lambda progress: None, cascade=True)
        rebuild(conn, folder, ["largest", "keyed", "members"], lambda progress: None)
    assert {name: [(text.replace("u0", "u"),) for (text,) in rows] for name, rows in shown(url).items()} == live
    one = str(Decimal(numbers[0]).normalize() + 0)
    assert live["largest"] == [(f"(u,{one},{one},{one})",)]
    assert live["keyed"] == [(f"({one},4,1)",)]


def test_the_one_spelling_of_a_value_has_its_type(admin: psycopg.Connection[Any]) -> None:
    """Postgres would rather take an integer for a double than for anyelement."""
    types = admin.execute("SELECT oid::regtype::text FROM pg_type WHERE typtype = 'b' AND typname !~ '^_'").fetchall()
    assert len(types) > 50
    for (name,) in types:
        query = f"SELECT pg_typeof(refold.plain(NULL::{name})) = '{name}'::regtype"
        assert admin.execute(query.encode()).fetchone() == (True,), name


def test_integers_stay_integers(database_url: str, admin: psycopg.Connection[Any], tmp_path: Path) -> None:
    (tmp_path / "named.sql").write_text("SELECT event_id, version, 9007199254740992 + version AS big FROM events")
    (tmp_path / "made.sql").write_text("SELECT big, 10 / (max(version) + 1) AS share FROM named GROUP BY big")
    append(admin, [{"id": f"e{at}", "action": "a", "ts": 0, "version": at} for at in (1, 2)])
    make_live(database_url, tmp_path)
    rows = admin.execute("SELECT *, pg_typeof(big)::text, pg_typeof(share)::text FROM metrics.made ORDER BY big")
    assert rows.fetchall() == [(2**53 + 1, 5, "bigint", "integer"), (2**53 + 2, 3, "bigint", "integer")]
