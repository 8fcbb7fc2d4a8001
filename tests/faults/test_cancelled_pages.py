"""Fault 31: pages are cancelled, by a person or by a proxy that bounds statements. Smaller ones still get through."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply.load import Loaded
from refold.engine.apply.page import Applied
from refold.engine.apply.step import FORGIVE, PageSize, StepRunner
from refold.engine.deployment.deploy import _begin_rebuild
from refold.postgres.connect import connect as connect_as
from refold.store.builds.build import find
from refold.store.builds.compiled import Compiler
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.making import events

Connection = psycopg.Connection[Any]


def bound(admin: Connection, table: str, rows: int) -> None:
    """Cancels every statement that writes more rows than this into a table."""
    admin.execute(
        f"""
        CREATE OR REPLACE FUNCTION public.bound() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT count(*) FROM fresh) > TG_ARGV[0]::integer THEN
                RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = 'query_canceled';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER bound AFTER INSERT ON refold_builds.{table} REFERENCING NEW TABLE AS fresh
            FOR EACH STATEMENT EXECUTE FUNCTION public.bound({rows});
        """.encode()
    )


@pytest.mark.live("shop")
@pytest.mark.slow
@pytest.mark.parametrize("projection", ["purchases", "graded", "paths"])
def test_a_page_that_is_cancelled_is_halved(
    projection: str, admin: Connection, database_url: str, producer: Connection
) -> None:
    tables = make_live(database_url)
    bound(admin, tables[projection].removeprefix("refold_builds."), 100)
    offered = [event | {"user_id": event["id"], "action": "purchase"} for event in events(1000)]
    append(producer, offered)
    producer.commit()
    drain(database_url)
    assert wrong(database_url) == {}
    assert admin.execute("SELECT error FROM refold.builds WHERE error IS NOT NULL").fetchall() == []


@pytest.mark.live("shop")
def test_a_page_of_one_row_that_is_cancelled_is_an_error(
    admin: Connection, database_url: str, producer: Connection
) -> None:
    tables = make_live(database_url)
    bound(admin, tables["purchases"].removeprefix("refold_builds."), 0)
    append(producer, [event | {"action": "purchase"} for event in events(3)])
    producer.commit()
    with connect_as(database_url, "refold_worker", autocommit=True) as conn:
        compiled = StepRunner(conn, Compiler(SHOP))
        (build,) = find(conn, "b.projection = 'purchases'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            while compiled.step(build) == Applied(0, full=True):
                pass


@pytest.mark.live("shop")
@pytest.mark.parametrize("projection", ["purchases", "graded", "paths"])
def test_a_step_of_a_load_that_is_cancelled_is_halved(
    projection: str, admin: Connection, database_url: str, producer: Connection
) -> None:
    make_live(database_url)
    append(producer, [event | {"user_id": event["id"], "action": "purchase"} for event in events(1000)])
    producer.commit()
    drain(database_url)
    admin.execute("ANALYZE refold.events")
    with connect_as(database_url, "refold_worker", autocommit=True) as conn:
        with conn.transaction():
            _begin_rebuild(conn, Compiler(SHOP), find(conn, "b.projection = %s", projection), promote=True)
        (build,) = find(conn, "b.projection = %s AND b.state = 'building'", projection)
        bound(admin, build.table_name, 400)
        compiled = StepRunner(conn, Compiler(SHOP))
        steps = 0
        while not (found := find(conn, "b.build_id = %s", build.build_id))[0].loaded:
            assert isinstance(compiled.step(found[0]), Loaded)
            steps += 1
    assert steps > 7
    drain(database_url)
    assert wrong(database_url) == {}


def test_the_size_grows_again() -> None:
    """Pure: halved at once, doubled after many pages that came through."""
    size = PageSize(20_000)
    assert size.rows == 10_000
    assert size.cancelled()
    assert size.rows == 5_000
    for _ in range(FORGIVE - 1):
        size.learn(Applied(5_000, full=True))
        assert size.rows == 5_000
    size.learn(Applied(5_000, full=True))
    assert size.rows == 10_000
    while size.rows > 1:
        assert size.cancelled()
    assert not size.cancelled()
