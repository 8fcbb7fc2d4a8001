"""Pages are bounded in bytes where Python holds them in memory: wide events come a few at a time, and none is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply.load import load_step
from refold.engine.apply.page import PORTION, Applied, apply_next_page
from refold.engine.apply.step import FRESH, PageSize
from refold.engine.deployment.create import make_builds, new_deployment
from refold.model.projection.definition import load_directory
from refold.model.projection.transform import Transform
from refold.model.stream.parameters import BYTES
from refold.postgres.connect import connect
from refold.store.builds.build import Build, live
from refold.store.builds.compiled import Compiler
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.making import events

Connection = psycopg.Connection[Any]

WIDE = 900_000
"""Bytes of a wide event; compressed they are a hundredth."""
FITS = BYTES // WIDE + 1
"""How many of them a page takes: the last one goes over the bound."""


def wide(number: int, prefix: str = "wide") -> list[dict[str, Any]]:
    return events(number, prefix, metadata={"amount": 5, "padding": "x" * WIDE})


@pytest.fixture
def worker(database_url: str) -> Iterator[Connection]:
    with connect(database_url, "refold_worker", autocommit=True) as conn:
        yield conn


def graded(conn: Connection) -> Build:
    build = live(conn, "graded")
    assert build is not None
    return build


@pytest.mark.live("shop")
@pytest.mark.slow
def test_a_page_of_wide_events_ends_with_its_bytes(database_url: str, producer: Connection, worker: Connection) -> None:
    make_live(database_url)
    for part in (wide(50), events(PORTION + 700, "narrow", metadata={"amount": 200})):
        append(producer, part)
        producer.commit()
    compiled = Compiler(SHOP).of(worker, graded(worker))
    pages = []
    while (page := apply_next_page(worker, compiled, FRESH)) is not None and page.events:
        pages.append(page.events)
        assert page.full == (len(pages) < 3)
    # The narrow ones come behind the last wide ones, in portions.
    assert pages == [FITS, FITS, 50 - 2 * FITS + PORTION + 700]
    drain(database_url)
    assert wrong(database_url) == {}


@contextmanager
def portions() -> Iterator[list[int]]:
    """How many rows functions are given at once in this block."""
    given: list[int] = []
    rows = Transform.rows

    def counted(transform: Transform, page: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
        portion = list(page)
        given.append(len(portion))
        return rows(transform, portion)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transform, "rows", counted)
        yield given


@pytest.mark.live("shop")
def test_what_is_small_only_because_it_is_compressed_counts_as_wide(
    database_url: str, producer: Connection, worker: Connection
) -> None:
    """Compressed they are a kilobyte each, and stand in the log's own pages."""
    make_live(database_url)
    producer.execute(
        "INSERT INTO refold.events (event_id, action, ts, metadata)"
        " SELECT 'thin' || n, 'view', '2026-03-02Z', jsonb_build_object('amount', 5, 'padding', repeat('x', 100000))"
        " FROM generate_series(1, 400) AS n"
    )
    producer.commit()
    page = apply_next_page(worker, Compiler(SHOP).of(worker, graded(worker)), FRESH)
    assert page is not None
    assert (page.events, page.full) == (BYTES // 100_000 + 1, True)


@pytest.mark.live("shop")
@pytest.mark.slow
def test_a_page_with_an_event_that_fails_holds_no_more(
    database_url: str, producer: Connection, worker: Connection
) -> None:
    make_live(database_url)
    bad = events(1, "bad", metadata={"amount": "no number", "padding": "x" * WIDE})
    append(producer, [*wide(15, "before"), *bad, *wide(25, "behind")])
    producer.commit()
    compiled = Compiler(SHOP).of(worker, graded(worker))
    with portions() as given:
        page = apply_next_page(worker, compiled, FRESH)
    assert page is not None and page.events == 41
    assert max(given) == FITS
    table = graded(worker).table_name
    row = worker.execute(f"SELECT count(*) FROM refold_builds.{table}".encode()).fetchone()
    assert row == (40,)


@pytest.mark.slow
def test_a_first_load_goes_on_behind_a_step_that_was_full_of_bytes(
    database_url: str, producer: Connection, worker: Connection
) -> None:
    append(producer, [*wide(2 * FITS + 3), *events(5, metadata={"amount": 200})])
    producer.commit()
    with worker.transaction():
        deployment = new_deployment(worker, "deploy", promote=True)
        [build] = make_builds(worker, [load_directory(SHOP)["graded"]], deployment, resumed={})
    compiled = Compiler(SHOP).of(worker, build)
    with portions() as given, pytest.MonkeyPatch.context() as patch:
        patch.setattr("refold.engine.apply.page.CUTS", 1)
        steps = []
        while step := load_step(worker, compiled):
            steps.append((step.events, step.finished))
    assert steps == [(2 * FITS, False), (8, True)]
    assert given == [FITS, FITS, 8]


def test_a_page_that_was_full_of_bytes_is_followed_by_a_small_one() -> None:
    size = PageSize()
    size.learn(Applied(18, full=True))
    assert size.rows == 36
    size.learn(Applied(18, full=True))
    assert size.rows == 36
    size.learn(Applied(36, full=True))
    assert size.rows == 72
    size.learn(Applied(5, full=False))
    assert size.rows == FRESH
