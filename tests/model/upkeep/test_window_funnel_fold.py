"""What a funnel keeps: constant in size, a function of the set of events, and enough to go on from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.upkeep.test_window_funnel import (
    BYTES,
    Answer,
    Row,
    as_answer,
    as_json,
    ask,
    funnel,
    histories,
    oracle,
    shared_database,
    windows,
)

Conn = psycopg.Connection[tuple[Any, ...]]

FOLD = f"SELECT refold.window_funnel_fold(%(kept)s, ({BYTES}), %(steps)s, %(times)s, %(latest)s)"
SAID = "SELECT get_byte(%(kept)s, 0), refold.window_funnel_kept_times(%(kept)s)"


class Kept:
    """The events of one key as a build keeps them, page by page; and the log behind it."""

    def __init__(self, conn: Conn, window: int | None, steps: int, latest: int, *, times: bool = True) -> None:
        self.conn = conn
        self.window = None if window is None else timedelta(seconds=window)
        self.steps = steps
        self.latest = latest
        self.times = times
        self.log: list[Row] = []
        self.state: bytes | None = None
        self.read_again = 0

    def page(self, rows: Sequence[Row]) -> None:
        self.log += rows
        self.state = self.folded(self.state, rows)
        if self.state is None:
            self.read_again += 1
            self.state = self.of_the_log()

    def of_the_log(self) -> bytes:
        """What all events at once come to."""
        state = self.folded(None, self.log)
        assert state is not None
        return state

    def folded(self, kept: bytes | None, rows: Sequence[Row]) -> bytes | None:
        parameters = {"window": self.window, "rows": as_json(rows), "kept": kept, "steps": self.steps}
        row = self.conn.execute(FOLD, parameters | {"times": self.times, "latest": self.latest}).fetchone()
        assert row is not None
        state: bytes | None = row[0]
        return state

    def answer(self) -> Answer:
        return as_answer(self.conn.execute(SAID, {"kept": self.state}).fetchone())

    def level(self) -> int:
        assert self.state is not None
        return self.state[0]


def pages(rows: list[Row], sizes: Sequence[int]) -> list[list[Row]]:
    """The rows cut into pages, the last one of whatever is left."""
    found, at = [], 0
    for size in sizes:
        found.append(rows[at : at + size])
        at += size
    return [*found, rows[at:]]


@shared_database
@given(
    window=windows,
    rows=histories(6),
    sizes=st.lists(st.integers(0, 3), max_size=6),
    latest=st.integers(0, 4),
    instants=st.integers(1, 5),
    times=st.booleans(),
)
def test_page_by_page_it_is_every_chain_tried(
    conn: Conn, window: int | None, rows: list[Row], sizes: list[int], latest: int, instants: int, times: bool
) -> None:
    rows = [(None if ts is None else ts % instants, steps) for ts, steps in rows]
    kept = Kept(conn, window, len(rows[0][1]) if rows else 1, latest, times=times)
    for page in pages(rows, sizes):
        kept.page(page)
        # An audit compares the two byte by byte.
        assert kept.state == kept.of_the_log()
        expected = oracle(window, kept.log)
        assert (kept.answer() if times else kept.level()) == (expected if times else expected[0])


@shared_database
@given(
    window=st.none() | st.integers(0, 40),
    rows=histories(60),
    spread=st.integers(1, 30),
    sizes=st.lists(st.integers(0, 9), max_size=20),
    latest=st.integers(0, 12),
    in_order=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_page_by_page_it_is_the_aggregate(
    conn: Conn,
    window: int | None,
    rows: list[Row],
    spread: int,
    sizes: list[int],
    latest: int,
    in_order: bool,
    seed: int,
) -> None:
    """Longer histories, in order of time with ties, or in none."""
    chance = random.Random(seed)
    rows = [(None if ts is None else chance.randrange(spread), steps) for ts, steps in rows]
    if in_order:
        rows.sort(key=lambda row: row[0] or 0)
    kept = Kept(conn, window, len(rows[0][1]) if rows else 1, latest)
    for page in pages(rows, sizes):
        kept.page(page)
    assert kept.state == kept.of_the_log()
    assert kept.answer() == ask(conn, window, rows)


@shared_database
@given(data=st.data(), window=windows, rows=histories(20), latest=st.integers(0, 6))
def test_the_order_of_events_does_not_matter(
    conn: Conn, data: st.DataObject, window: int | None, rows: list[Row], latest: int
) -> None:
    kept = Kept(conn, window, len(rows[0][1]) if rows else 1, latest)
    assert kept.folded(None, rows) == kept.folded(None, data.draw(st.permutations(rows)))


@pytest.mark.parametrize("times", [False, True])
def test_events_in_order_of_time_never_ask_the_log(conn: Conn, times: bool) -> None:
    """But for the times of a chain that gets longer: as often as there are steps, in all of a key's life."""
    chance = random.Random(times)
    kept = Kept(conn, 60, 3, 32, times=times)
    rows = funnel(" ".join(f"{ts // 2}:{chance.choice(['1', '2', '12', '-'])}" for ts in range(2000)), 3)
    for page in pages(rows, [7] * 250):
        kept.page(page)
        assert kept.state is not None and len(kept.state) <= 2 + 3 * 8 + 2 * 4 * 8 + 33 * 20
    assert kept.read_again <= (2 if times else 0)
    assert kept.level() == ask(conn, 60, rows)[0] == 2


def test_a_key_with_few_events_never_asks_the_log_in_any_order(conn: Conn) -> None:
    rows: list[Row] = [(ts, (ts % 3 == 0, ts % 3 == 1, ts % 5 == 2, False)) for ts in range(30)]
    random.Random(7).shuffle(rows)
    kept = Kept(conn, 9, 4, 32)
    for page in pages(rows, [1] * 30):
        kept.page(page)
    assert kept.read_again == 0
    assert kept.answer() == ask(conn, 9, rows)


def test_an_instant_stays_whole(conn: Conn) -> None:
    """Its events compete for the steps: the one that matches both gives way to the one that comes later."""
    kept = Kept(conn, 10, 2, 1, times=False)
    kept.page(funnel("0:12 0:1", 2))
    assert kept.level() == 2


def test_late_by_a_little_is_not_late(conn: Conn) -> None:
    """Among the latest events, and at their instants, others may stand yet."""
    kept = Kept(conn, 60, 3, 32, times=False)
    kept.page(funnel(" ".join(f"{ts}:1" for ts in range(100)), 3))
    kept.page(funnel("68:2 99:2 99:3", 3))
    assert (kept.level(), kept.read_again) == (3, 0)


def test_what_is_too_late_asks_the_log(conn: Conn) -> None:
    kept = Kept(conn, 60, 3, 32, times=False)
    kept.page(funnel(" ".join(f"{ts}:2" for ts in range(100)), 3))
    assert kept.level() == 0
    kept.page(funnel("67:1", 3))
    assert (kept.level(), kept.read_again) == (2, 1)


def test_whoever_came_all_the_way_is_kept_small(conn: Conn) -> None:
    kept = Kept(conn, 60, 3, 32)
    kept.page(funnel("5:1 6:2 7:3", 3))
    assert kept.state is not None and len(kept.state) == 2 + 3 * 8
    kept.page(funnel("7:1 8:1 9:2", 3))
    assert kept.read_again == 0
    # Earlier, it could be the start of a chain with earlier times.
    kept.page(funnel("4:1", 3))
    assert kept.answer() == (3, [4, 6, 7])


def test_an_instant_that_thousands_share_is_kept_small(conn: Conn) -> None:
    kept = Kept(conn, 60, 3, 32)
    for _ in range(20):
        kept.page(funnel("5:12 " * 60 + "5:2 " * 40, 3))
    assert kept.state is not None and len(kept.state) < 200
    assert kept.answer() == (2, [5, 5])


def test_many_events_at_once(conn: Conn) -> None:
    """A first load, or a key that is read again: linear in its events."""
    chance = random.Random(1)
    rows = funnel(
        " ".join(f"{chance.randrange(9000)}:{chance.choice(['1', '2', '23', '4'])}" for _ in range(20_000)), 4
    )
    kept = Kept(conn, 2, 4, 32)
    kept.page(rows)
    assert kept.answer() == ask(conn, 2, rows)
