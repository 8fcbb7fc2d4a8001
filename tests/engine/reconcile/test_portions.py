"""Tables whose quick audit takes longer than a statement may: audited in portions, in the end all of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from refold import Log
from refold.engine.reconcile.audit import quick
from refold.engine.reconcile.portions import Portion, next_portion
from refold.engine.reconcile.reconcile import reconcile
from refold.service.duties.audits import QUICK
from refold.store.builds.build import Build, live
from refold.store.builds.checksums import known_slices
from refold.store.builds.compiled import Compiler
from refold.store.incidents import find as incidents
from refold.store.schema.resources import sql_dir
from tests.support.law import worker_connection
from tests.support.live import SHOP, drain, make_live
from tests.support.making import events

pytestmark = pytest.mark.live("shop")

Connection = psycopg.Connection[Any]


@pytest.fixture
def worker(database_url: str, admin: Connection) -> Iterator[Connection]:
    """A duty's session, for which each row of a table takes a millisecond, and a statement 700."""
    make_live(database_url)
    with Log(database_url) as log:
        log.append([event | {"action": "purchase"} for event in events(1000)])
    drain(database_url)
    for name, of in (("day_slice", "day date"), ("position_slice", '"position" bigint')):
        body = {
            "day_slice": "day - date '1970-01-01'",
            "position_slice": '("position" >> 14)::integer',
        }[name]
        admin.execute(
            f"CREATE OR REPLACE FUNCTION refold.{name}({of}) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$"
            " BEGIN IF current_query() LIKE '%FROM refold_builds.%' THEN PERFORM pg_sleep(0.001); END IF;"
            f" RETURN {body}; END $$".encode()
        )
    with worker_connection(database_url) as conn:
        conn.execute("SET statement_timeout = '700ms'")
        yield conn


def build_of(conn: Connection, projection: str) -> Build:
    found = live(conn, projection)
    assert found is not None
    return found


def rounds(conn: Connection, projection: str, compiler: Compiler) -> list[Portion]:
    """Portions until one was the last."""
    compiled = compiler.of(conn, build_of(conn, projection))
    done = [next_portion(conn, compiled)]
    while (
        not done[-1].whole
        and conn.execute(
            "SELECT FROM refold.quick_audits WHERE build_id = %s AND upto_slice IS NOT NULL", (compiled.build_id,)
        ).rowcount
    ):
        done.append(next_portion(conn, compiled))
    return done


@pytest.mark.slow
@pytest.mark.parametrize(("projection", "kind"), [("purchases", "blocks"), ("graded", "blocks"), ("grades", "blocks")])
def test_a_table_of_one_slice_is_read_by_blocks(projection: str, kind: str, worker: Connection) -> None:
    compiler = Compiler(SHOP)
    build = build_of(worker, projection)
    with pytest.raises(psycopg.errors.QueryCanceled):
        quick(worker, compiler.of(worker, build))
    assert [(one.found, one.whole) for one in rounds(worker, projection, compiler)] == [([], True)]
    row = worker.execute("SELECT blocks FROM refold.quick_audits WHERE build_id = %s", (build.build_id,)).fetchone()
    assert row is not None and row[0] is not None


@pytest.mark.slow
@pytest.mark.parametrize("place", ["min", "max"])
def test_what_somebody_has_changed_is_found_wherever_it_is(place: str, worker: Connection, admin: Connection) -> None:
    compiler = Compiler(SHOP)
    build = build_of(worker, "purchases")
    admin.execute(
        f"DELETE FROM refold_builds.{build.table_name}"
        f" WHERE position = (SELECT {place}(position) FROM refold_builds.{build.table_name})".encode()
    )
    [portion] = rounds(worker, "purchases", compiler)
    assert [(one.recorded - one.actual, one.slice) for one in portion.found] == [(1, 0)]
    assert not portion.whole


def test_slices_are_taken_a_few_at_a_time_and_the_mark_goes_on(worker: Connection, admin: Connection) -> None:
    compiler = Compiler(SHOP)
    build = build_of(worker, "daily")
    compiled = compiler.of(worker, build)
    admin.execute("INSERT INTO refold.quick_audits (build_id, together, clean) VALUES (%s, 4, true)", (build.build_id,))
    admin.execute(
        f"UPDATE refold_builds.{build.table_name} SET events = events + 1"
        f" WHERE day = (SELECT max(day) FROM refold_builds.{build.table_name})".encode()
    )
    now = [0.0]

    def clock() -> float:
        # Each portion takes as long as it should.
        now[0] += 5.0
        return now[0]

    portions = []
    for _ in range(100):
        portions.append(next_portion(worker, compiled, clock=clock))
        if portions[-1].found:
            break
    days = len(known_slices(worker, build.build_id))
    assert len(portions) >= days // 4 > 1
    assert not any(portion.whole for portion in portions)


@pytest.mark.slow
def test_the_duty_heals_what_it_finds(worker: Connection, admin: Connection) -> None:
    compiler = Compiler(SHOP)
    build = build_of(worker, "purchases")
    before = admin.execute(f"SELECT count(*) FROM refold_builds.{build.table_name}".encode()).fetchone()
    admin.execute(f"DELETE FROM refold_builds.{build.table_name} WHERE position % 100 = 0".encode())
    found = reconcile(worker, compiler, ["purchases"], depth="slice", by=QUICK, in_portions=True)
    # Healing reads as much; that it can do so in time is another matter.
    assert found.failed == ["purchases"] or found.drift > 0
    assert [one.kind for one in incidents(worker)] == ["drift"]
    worker.execute("SET statement_timeout = 0")
    reconcile(worker, compiler, ["purchases"], depth="slice", by=QUICK, in_portions=True)
    assert admin.execute(f"SELECT count(*) FROM refold_builds.{build.table_name}".encode()).fetchone() == before


@pytest.mark.slow
def test_a_table_that_is_small_again_has_no_mark(worker: Connection, admin: Connection) -> None:
    compiler = Compiler(SHOP)
    rounds(worker, "purchases", compiler)
    assert worker.execute("SELECT FROM refold.quick_audits").rowcount == 1
    admin.execute((sql_dir() / "functions" / "position_slice.sql").read_bytes())
    for _ in range(12):
        rounds(worker, "purchases", compiler)
    assert worker.execute("SELECT FROM refold.quick_audits").rowcount == 0


def test_who_is_told_to_stop_does_not_begin_portions(worker: Connection, admin: Connection) -> None:
    compiled = Compiler(SHOP).of(worker, build_of(worker, "purchases"))
    worker.execute("SET statement_timeout = '60s'")
    canceller = threading.Timer(0.2, worker.cancel_safe)
    canceller.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        next_portion(worker, compiled)
    canceller.join()
    assert admin.execute("SELECT FROM refold.quick_audits").rowcount == 0
