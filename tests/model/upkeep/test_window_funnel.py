"""refold.window_funnel and refold.window_funnel_times against an oracle that tries every chain."""

import csv
import json
import os
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DATA = Path(os.environ.get("REFOLD_TEST_DATA", Path(__file__).parents[3] / "../shared/data"))
SQL = Path(__file__).parents[3] / "sql"

# Two seconds before 2000: the bytes that the funnel sorts change their sign there.
START = datetime(1999, 12, 31, 23, 59, 58, tzinfo=UTC)

Conn = psycopg.Connection[tuple[Any, ...]]
Row = tuple[int | None, tuple[bool | None, ...]]  # seconds after START, whether each step matches
Answer = tuple[int, list[int]]  # the level, and the seconds at which its steps were reached

# The aggregates only read, so that examples may share a database.
shared_database = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

RECORDS = "jsonb_to_recordset(%(rows)s::jsonb) AS e (ts timestamptz, steps boolean[])"
BYTES = f"SELECT string_agg(refold.window_funnel_event(%(window)s::interval, ts, VARIADIC steps), '') FROM {RECORDS}"


def as_json(rows: Sequence[Row]) -> str:
    return json.dumps(
        [
            {"ts": None if ts is None else (START + timedelta(seconds=ts)).isoformat(), "steps": steps}
            for ts, steps in rows
        ]
    )


def as_answer(row: tuple[Any, ...] | None) -> Answer:
    assert row is not None
    return row[0], [int((at - START).total_seconds()) for at in row[1]]


def ask(conn: Conn, window: int | None, rows: Sequence[Row]) -> Answer:
    """What the two aggregates say of these rows, given in this order."""
    query = f"""
        SELECT refold.window_funnel(%(window)s::interval, ts, VARIADIC steps),
               refold.window_funnel_times(%(window)s::interval, ts, VARIADIC steps)
        FROM {RECORDS}"""
    span = None if window is None else timedelta(seconds=window)
    return as_answer(conn.execute(query, {"window": span, "rows": as_json(rows)}).fetchone())


def chains(window: int | None, rows: Sequence[Row]) -> Iterator[list[int]]:
    """The times of every chain, by the words of the definition."""
    events = [(ts, steps) for ts, steps in rows if ts is not None]
    for length in range(1, max((len(steps) for _, steps in events), default=0) + 1):
        for chain in permutations(events, length):
            times = [ts for ts, _ in chain]
            if (
                all(steps[k] for k, (_, steps) in enumerate(chain))
                and times == sorted(times)
                and (window is None or times[-1] <= times[0] + window)
            ):
                yield times


def oracle(window: int | None, rows: Sequence[Row]) -> Answer:
    """The longest chain; of several, the one with the lexicographically earliest times."""
    best = min(chains(window, rows), key=lambda times: (-len(times), times), default=[])
    return len(best), best


def funnel(text: str, steps: int) -> list[Row]:
    """Rows written as "second:steps", for instance "0:1 5:12 7:-"."""
    rows = (word.split(":") for word in text.split())
    return [(int(ts), tuple(str(k) in matched for k in range(1, steps + 1))) for ts, matched in rows]


def histories(max_size: int) -> st.SearchStrategy[list[Row]]:
    """Few instants, so that most are shared, and as many conditions on every row."""

    def rows(steps: int) -> st.SearchStrategy[list[Row]]:
        conditions = st.tuples(*[st.sampled_from([True, True, False, None])] * steps)
        return st.lists(st.tuples(st.none() | st.integers(0, 4), conditions), max_size=max_size)

    return st.integers(1, 4).flatmap(rows)


windows = st.none() | st.integers(-1, 4)


@pytest.mark.parametrize(
    ("case", "window", "rows", "expected"),
    [
        ("in order", 10, "0:1 4:2 10:3", [0, 4, 10]),
        ("the last step just too late", 10, "0:1 4:2 11:3", [0, 4]),
        ("no limit", None, "0:1 4000:2 90000:3", [0, 4000, 90000]),
        ("no time at all", 0, "0:1 3:1 3:2 4:3", [3, 3]),
        ("a window that is over before it opens", -1, "0:1 0:2", []),
        ("a window that is over, for competing events", -1, "0:1 0:2 0:12", []),
        ("reversed", 10, "0:3 1:2 2:1", [2]),
        ("no first step", 10, "0:2 1:3", []),
        ("nothing matches", 10, "0:- 1:-", []),
        ("no rows", 10, "", []),
        ("other events in between", 10, "0:1 1:- 2:3 3:2 4:- 5:3", [0, 3, 5]),
        ("repeated steps", 10, "0:1 1:2 2:1 3:2 4:3", [0, 1, 4]),
        ("the first anchor is too early", 5, "0:1 4:1 5:2 9:3", [4, 5, 9]),
        ("the last anchor is too late", 5, "0:1 1:2 2:1 5:3", [0, 1, 5]),
        ("an earlier chain is no better", 5, "0:1 1:2 7:1 8:2 9:3", [7, 8, 9]),
        ("the first of several anchors that do", 9, "0:1 1:1 2:1 9:2 10:3", [1, 9, 10]),
        ("one instant, in step order", 10, "7:3 7:2 7:1", [7, 7, 7]),
        ("one event, two steps", 10, "0:12", [0]),
        ("two events, the same two steps", 10, "0:12 0:12", [0, 0]),
        ("the flexible event gives way", 10, "0:123 0:1 0:2", [0, 0, 0]),
        ("two events cannot be three", 10, "0:123 0:123", [0, 0]),
        ("an event of all steps, thrice", 10, "0:123 1:123 2:123", [0, 1, 2]),
        ("no event follows itself", 10, "0:1 5:23", [0, 5]),
        ("a later instant takes the rest", 10, "0:1 1:23 1:2 2:3", [0, 1, 1]),
        ("the same page twice (ClickHouse counts 2)", 10, "3:12 3:-", [3]),
    ],
)
def test_case(conn: Conn, case: str, window: int | None, rows: str, expected: list[int]) -> None:
    history = funnel(rows, 3)
    assert ask(conn, window, history) == (len(expected), expected), case
    assert ask(conn, window, history[::-1]) == (len(expected), expected), f"{case}, reversed"
    assert oracle(window, history) == (len(expected), expected), f"{case}: the case itself is wrong"


@shared_database
@given(window=windows, rows=histories(6))
def test_agrees_with_every_chain_tried(conn: Conn, window: int | None, rows: list[Row]) -> None:
    assert ask(conn, window, rows) == oracle(window, rows)


@shared_database
@given(data=st.data(), window=windows, rows=histories(12))
def test_the_order_of_rows_does_not_matter(
    conn: Conn, data: st.DataObject, window: int | None, rows: list[Row]
) -> None:
    shuffled = data.draw(st.permutations(rows))
    assert ask(conn, window, shuffled) == ask(conn, window, rows)


@shared_database
@given(window=windows, rows=histories(16), early=st.integers(0, 16))
def test_pruned_events_are_not_missed(conn: Conn, window: int | None, rows: list[Row], early: int) -> None:
    """Whatever comes after the pruning, also earlier events."""
    steps = len(rows[0][1]) if rows else 1
    span = None if window is None else timedelta(seconds=window)

    def kept(part: list[Row]) -> bytes:
        row = conn.execute(BYTES, {"window": span, "rows": as_json(part)}).fetchone()
        return (row and row[0]) or b""

    first, later = kept(rows[:early]), kept(rows[early:])
    pruned = conn.execute("SELECT refold.window_funnel_prune(%s, %s)", (first, steps)).fetchone()
    assert pruned is not None and len(pruned[0]) <= len(first)
    both = "SELECT refold.window_funnel_level(%(events)s), refold.window_funnel_chain(%(events)s)"
    answers = [
        as_answer(conn.execute(both, {"events": events}).fetchone()) for events in (first + later, pruned[0] + later)
    ]
    assert answers[0] == answers[1]


def test_a_user_who_came_all_the_way_is_kept_small(conn: Conn) -> None:
    rows = funnel("0:1 1:2 2:3", 3) + [(ts, (True, True, False)) for ts in range(3, 300)]
    query = f"SELECT length(refold.window_funnel_prune(({BYTES}), 3)) / 20"
    assert conn.execute(query, {"window": None, "rows": as_json(rows)}).fetchone() == (3,)
    # Two steps of a funnel of four: everything may matter yet.
    query = query.replace(", 3))", ", 4))")
    assert conn.execute(query, {"window": None, "rows": as_json(rows)}).fetchone() == (300,)


@pytest.mark.parametrize("seed", range(4))
def test_many_events_of_one_user(conn: Conn, seed: int) -> None:
    """The aggregate, which prunes, against the same functions over everything, unsorted and sorted."""
    chance = random.Random(seed)
    matched = chance.choices(["1", "1", "2", "23", "3"], k=3000)
    rows = funnel(" ".join(f"{chance.randrange(20_000)}:{steps}" for steps in matched), 3)
    if seed % 2:
        rows.sort(key=lambda row: row[0] or 0)
    for window in (60, 2):
        query = f"SELECT refold.window_funnel_level(({BYTES})), refold.window_funnel_chain(({BYTES}))"
        whole = conn.execute(query, {"window": timedelta(seconds=window), "rows": as_json(rows)}).fetchone()
        assert ask(conn, window, rows) == as_answer(whole)


@shared_database
@given(masks=st.lists(st.integers(1, 31), min_size=1, max_size=5))
def test_an_instant_is_a_matching(conn: Conn, masks: list[int]) -> None:
    """From every level, the steps that stand for an instant lead as far as distinct events of it can."""
    codes = [mask.bit_length() if mask.bit_count() == 1 else -mask for mask in masks]
    row = conn.execute("SELECT refold.window_funnel_instant(%s::integer[])", (codes,)).fetchone()
    assert row is not None
    for level in range(5):
        reached = level
        for step in row[0]:
            if step == reached + 1:
                reached = step
        lengths = range(min(5 - level, len(masks)) + 1)
        chosen = (events for length in lengths for events in permutations(masks, length))
        possible = (len(events) for events in chosen if all(m >> (level + k) & 1 for k, m in enumerate(events)))
        assert reached == level + max(possible)


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "America/St_Johns"])
@pytest.mark.parametrize(
    ("window", "first", "last", "level"),
    [
        # The night in which Berlin's clocks go forward: its day is 23 hours long, a day of UTC is not.
        ("1 day", "2024-03-30 12:00+00", "2024-03-31 12:00+00", 2),
        ("1 day", "2024-03-30 12:00+00", "2024-03-31 12:00:00.000001+00", 1),
        ("24 hours", "2024-03-30 12:00+00", "2024-03-31 12:00+00", 2),
        # January 31 in UTC, February 1 in Berlin.
        ("1 month", "2024-01-31 23:30+00", "2024-02-29 23:30+00", 2),
        ("1 month", "2024-01-31 23:30+00", "2024-02-29 23:30:00.000001+00", 1),
    ],
)
def test_days_and_months_are_those_of_utc(
    conn: Conn, timezone: str, window: str, first: str, last: str, level: int
) -> None:
    conn.execute("SELECT set_config('TimeZone', %s, false)", (timezone,))
    row = conn.execute(
        "SELECT refold.window_funnel(%s, ts, n = 1, n = 2) FROM (VALUES (%s::timestamptz, 1), (%s, 2)) AS e (ts, n)",
        (window, first, last),
    ).fetchone()
    assert row == (level,)


def test_a_later_start_with_an_earlier_end(conn: Conn) -> None:
    """January 31 plus a month is February 29, and 11 o'clock there is before 12 o'clock."""
    row = conn.execute("""
        SELECT refold.window_funnel(interval '1 month', ts, n = 1, n = 2),
               refold.window_funnel_times(interval '1 month', ts, n = 1, n = 2)
                   = ARRAY[timestamptz '2024-01-30 12:00Z', '2024-02-29 11:30Z']
        FROM (VALUES (timestamptz '2024-01-30 12:00Z', 1), ('2024-01-31 11:00Z', 1), ('2024-02-29 11:30Z', 2))
            AS e (ts, n)
    """).fetchone()
    assert row == (2, True)


def test_times_come_back_to_the_microsecond(conn: Conn) -> None:
    times = [
        "-infinity",
        "4713-01-01 00:00:00Z BC",
        "1969-07-20 20:17:40.123457Z",
        "1999-12-31 23:59:59.999999Z",
        "2000-01-01 00:00:00Z",
        "2262-04-11 23:47:16.854776Z",
        "294276-12-31 23:59:59.999999Z",
        "infinity",
    ]
    row = conn.execute(
        "SELECT refold.window_funnel_times(NULL, ts, n = 1, n = 2, n = 3, n = 4, n = 5, n = 6, n = 7, n = 8)"
        " = %(times)s::timestamptz[]"
        " FROM unnest(%(times)s::timestamptz[]) WITH ORDINALITY AS e (ts, n)",
        {"times": times},
    ).fetchone()
    assert row == (True,)


def test_the_longest_of_several_windows_counts(conn: Conn) -> None:
    for order in permutations(["(1, 0, 1)", "(1, 5, 1)", "(2, 9, 5)"]):
        row = conn.execute(
            "SELECT refold.window_funnel(make_interval(secs => w), to_timestamp(ts), n = 1, n = 2)"
            f" FROM (VALUES {', '.join(order)}) AS e (n, w, ts)"
        ).fetchone()
        assert row == (2,)


def test_at_most_31_steps(conn: Conn) -> None:
    query = "SELECT refold.window_funnel(NULL, now(), VARIADIC %s::boolean[])"
    assert conn.execute(query, ([True] * 31,)).fetchone() == (1,)
    with pytest.raises(psycopg.errors.ProgramLimitExceeded, match="at most 31 steps, not 32"):
        conn.execute(query, ([True] + [False] * 31,))


def test_needs_no_search_path(conn: Conn) -> None:
    conn.execute("SET search_path = ''")
    # Out of order and competing for steps: every helper is called.
    assert ask(conn, 10, funnel("5:12 5:12 5:3 0:1", 3)) == (3, [0, 5, 5])


def test_may_run_in_workers_and_indexes(conn: Conn) -> None:
    row = conn.execute("""
        SELECT array_agg(DISTINCT provolatile), array_agg(DISTINCT proparallel)
        FROM pg_proc WHERE pronamespace = 'refold'::regnamespace AND proname LIKE 'window\\_funnel%'
    """).fetchone()
    assert row == (["i"], ["s"])


def test_every_object_can_be_applied_again_and_says_what_it_is(conn: Conn) -> None:
    for folder in ("functions", "aggregates"):
        for path in sorted((SQL / folder).glob("window_funnel*.sql")):
            conn.execute(path.read_bytes())
    row = conn.execute("""
        SELECT array_agg(proname) FILTER (WHERE obj_description(oid, 'pg_proc') IS NULL), count(*) > 2
        FROM pg_proc WHERE pronamespace = 'refold'::regnamespace AND proname LIKE 'window\\_funnel%'
    """).fetchone()
    assert row == (None, True)


@pytest.mark.data
@pytest.mark.parametrize(
    ("steps", "users"),
    [
        (["catalog", "cart", "payment_done"], [3611, 1924, 653]),
        (["catalog", "product1 product2", "cart", "payment_done"], [3611, 2010, 1257, 429]),
    ],
)
def test_figures_that_retentioneering_published(conn: Conn, steps: list[str], users: list[int]) -> None:
    file = DATA / "simple_shop" / "simple-onlineshop.csv"
    if not file.exists():
        pytest.skip(f"no {file}")
    conn.execute("CREATE TEMPORARY TABLE click (user_id text, action text, ts timestamptz)")
    with file.open(newline="") as clicks, conn.cursor() as cursor, cursor.copy("COPY click FROM STDIN") as copy:
        for click in csv.DictReader(clicks):
            copy.write_row((click["client_id"], click["event"], click["timestamp"] + "Z"))
    conditions = ", ".join(["action = ANY (%s)"] * len(steps))
    reached = conn.execute(
        f"""
        WITH levels AS (
            SELECT refold.window_funnel(NULL, ts, {conditions}) AS level FROM click GROUP BY user_id
        )
        SELECT count(*) FROM generate_series(1, {len(steps)}) AS step JOIN levels ON level >= step
        GROUP BY step ORDER BY step
        """,
        [step.split() for step in steps],
    ).fetchall()
    assert [count for (count,) in reached] == users
