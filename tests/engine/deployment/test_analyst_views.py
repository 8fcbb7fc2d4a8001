"""The views for analysts in sql/views: the figures are those that one would count by hand."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from refold import append
from refold.engine.publish.analyst_views import apply_analyst_views
from refold.engine.publish.scans import scans
from refold.errors import ViewError
from refold.service.worker.loop import Worker
from refold.store.schema.resources import projections_dir, sql_dir
from tests.support.law import deploy_project, worker_connection
from tests.support.waiting import wait_until

VIEWS = sorted(path.stem for path in (sql_dir() / "views").glob("*.sql"))
START = datetime(2025, 12, 20, tzinfo=UTC)  # the ISO weeks cross a year
Event = tuple[str | None, str, datetime]


@pytest.fixture
def worker(database_url: str) -> Iterator[psycopg.Connection]:
    """A worker's connection to a database with the delivered metrics and views."""
    deploy_project(database_url, projections_dir())
    with worker_connection(database_url) as conn:
        assert apply_analyst_views(conn, sql_dir() / "views") == VIEWS
        yield conn


@pytest.fixture
def analyst(worker: psycopg.Connection, database_url: str) -> Iterator[psycopg.Connection]:
    """An analyst far from UTC."""
    with psycopg.connect(database_url, options="-c role=refold_analyst -c TimeZone=Asia/Kathmandu") as conn:
        yield conn


def record(url: str, events: list[Event], mark: str = "") -> None:
    """Appends events and lets a worker apply them; with another mark, the same once more."""
    rows = [
        {"id": f"{at.isoformat()}-{number}{mark}", "user_id": user, "action": action, "ts": at.isoformat()}
        for number, (user, action, at) in enumerate(events)
    ]
    with psycopg.connect(url) as conn:
        append(conn, rows)
    Worker(url, projections_dir()).run(drain=True)


def some_events(seed: int) -> list[Event]:
    """Ten weeks of a small shop; many events stand close to midnight, Mondays and the first of a month."""
    chance = random.Random(seed)
    events: list[Event] = []
    for _ in range(400):
        user = chance.choice([None, *(f"u{n}" for n in range(12))])
        day = START + timedelta(days=chance.randrange(70))
        at = day + timedelta(seconds=chance.choice([0, 1, 86_399, chance.randrange(86_400)]))
        events.append((user, chance.choice(["view", "cart", "purchase"]), at))
    return events


def users_by(events: list[Event], period: Any) -> list[tuple[date, int]]:
    seen: dict[date, set[str]] = defaultdict(set)
    for user, _, at in events:
        if user is not None:
            seen[period(at.date())].add(user)
    return sorted((start, len(users)) for start, users in seen.items())


def monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def rows(conn: psycopg.Connection, view: str) -> list[tuple[Any, ...]]:
    query = sql.SQL("SELECT * FROM {} ORDER BY 1, 2").format(sql.Identifier("metrics", view))
    return conn.execute(query).fetchall()


@pytest.mark.parametrize("seed", [1, 2])
def test_active_users(analyst: psycopg.Connection, database_url: str, seed: int) -> None:
    events = some_events(seed)
    record(database_url, events)
    daily = [row for row in rows(analyst, "daily_active_users") if row[1] > 0]
    assert daily == users_by(events, lambda day: day)
    assert rows(analyst, "weekly_active_users") == users_by(events, monday)
    assert rows(analyst, "monthly_active_users") == users_by(events, lambda day: day.replace(day=1))


@pytest.mark.parametrize("seed", [3, 4])
def test_retention(analyst: psycopg.Connection, database_url: str, seed: int) -> None:
    events = some_events(seed)
    record(database_url, events)
    weeks: dict[str, set[date]] = defaultdict(set)
    for user, _, at in events:
        if user is not None:
            weeks[user].add(monday(at.date()))
    counts: dict[tuple[date, int], int] = defaultdict(int)
    for active in weeks.values():
        for week in active:
            counts[min(active), (week - min(active)).days // 7] += 1
    expected = [
        (cohort, since, users, round(Decimal(users) / counts[cohort, 0], 4))
        for (cohort, since), users in sorted(counts.items())
    ]
    assert rows(analyst, "retention_by_cohort") == expected


def test_an_event_that_arrives_late_moves_its_user_to_an_earlier_cohort(
    analyst: psycopg.Connection, database_url: str
) -> None:
    week = datetime(2026, 1, 5, 12, tzinfo=UTC)
    record(database_url, [("ann", "view", week + timedelta(weeks=1)), ("bob", "view", week + timedelta(weeks=1))])
    record(database_url, [("ann", "view", week)])
    assert rows(analyst, "retention_by_cohort") == [
        (date(2026, 1, 5), 0, 1, 1),
        (date(2026, 1, 5), 1, 1, 1),
        (date(2026, 1, 12), 0, 1, 1),
    ]


OVER_THE_LOG = {
    "weekly_active_users": """
        SELECT date_trunc('week', ts AT TIME ZONE 'UTC')::date, count(DISTINCT user_id)
        FROM refold.events WHERE user_id IS NOT NULL GROUP BY 1 ORDER BY 1
    """,
    "monthly_active_users": """
        SELECT date_trunc('month', ts AT TIME ZONE 'UTC')::date, count(DISTINCT user_id)
        FROM refold.events WHERE user_id IS NOT NULL GROUP BY 1 ORDER BY 1
    """,
    "retention_by_cohort": """
        WITH active AS (
            SELECT DISTINCT user_id, cohort AS week FROM metrics.enriched_events WHERE user_id IS NOT NULL
        ), since AS (
            SELECT min(week) OVER (PARTITION BY user_id) AS first_week, week FROM active
        ), counted AS (
            SELECT first_week, (week - first_week) / 7 AS weeks_since, count(*) AS users FROM since GROUP BY 1, 2
        )
        SELECT first_week, weeks_since, users,
               round(users::numeric / first_value(users) OVER (PARTITION BY first_week ORDER BY weeks_since), 4)
        FROM counted ORDER BY 1, 2
    """,
}
"""What each of them was when it was computed over all events at each read."""

EDGES: list[Event] = [
    ("ann", "view", datetime(2025, 12, 29, tzinfo=UTC)),  # a Monday, and week 1 of 2026
    ("ann", "view", datetime(2025, 12, 28, 23, 59, 59, 999_999, UTC)),  # late, and in the week before
    ("bob", "view", datetime(2026, 1, 1, tzinfo=UTC)),
    ("bob", "view", datetime(2025, 12, 31, 23, 59, 59, 999_999, UTC)),
    (None, "view", datetime(2026, 2, 2, tzinfo=UTC)),  # nobody else in that week: no row
    ("old", "view", datetime(1, 1, 1, tzinfo=UTC)),
    ("new", "view", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
]


def test_what_is_kept_is_what_was_computed(analyst: psycopg.Connection, database_url: str, admin: Any) -> None:
    events = [*EDGES, *some_events(5)]
    for _ in range(2):
        record(database_url, events)
        for name, query in OVER_THE_LOG.items():
            assert rows(analyst, name) == admin.execute(query).fetchall(), name
        analyst.rollback()
        # Events that come later than all others, and lie before all of their users'.
        events = [(user, "late", at - timedelta(weeks=9, hours=1)) for user, _, at in some_events(6)[:50]]


def test_no_delivered_number_grows_with_the_log(
    worker: psycopg.Connection, admin: psycopg.Connection, database_url: str
) -> None:
    """The pages of a read are the same when each user has done the same once more, again and again."""
    assert scans(worker, VIEWS) == []

    def read() -> dict[str, int]:
        # Without the versions of rows that updates have left.
        tables = admin.execute("SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'refold_builds'").fetchall()
        for (table,) in tables:
            admin.execute(sql.SQL("VACUUM (FULL, ANALYZE) {}").format(sql.Identifier("refold_builds", table)))
        return {name: pages(worker, name) for name in NUMBERS}

    def grown() -> dict[str, tuple[int, int]]:
        many = read()
        return {name: (few[name], many[name]) for name in NUMBERS if many[name] > few[name]}

    record(database_url, some_events(7), "-0")
    few = read()
    for copy in range(1, 8):
        record(database_url, some_events(7), f"-{copy}")
    # A transaction of another database, on a server that is shared, may keep old versions for a moment.
    wait_until(lambda: grown() == {}, deadline_s=30)


NUMBERS = [*VIEWS, "weekly_active_users", "monthly_active_users", "active_users", "event_counts"]


def pages(conn: psycopg.Connection, name: str) -> int:
    """How many pages a read of a metric or view touches."""
    query = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) SELECT * FROM {}")
    row = conn.execute(query.format(sql.Identifier("metrics", name))).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def test_views_that_read_a_stream_are_known(worker: psycopg.Connection, tmp_path: Path) -> None:
    stream = "metrics.enriched_events"
    made = {
        "by_action": f"SELECT action, count(*) FROM {stream} GROUP BY 1",
        "of_the_log": "SELECT count(*) FROM refold.events",
        "above": "SELECT max(count) FROM metrics.by_action",
        "one_event": f"SELECT * FROM {stream} WHERE event_id = 'e1'",
        "the_last": f"SELECT * FROM {stream} ORDER BY event_id DESC LIMIT 9",
        "the_best": f"SELECT user_id, count(*) FROM {stream} GROUP BY 1 ORDER BY 2 DESC LIMIT 9",
        "of_days": "SELECT sum(events) FROM metrics.event_counts",
    }
    for name, query in made.items():
        (tmp_path / f"{name}.sql").write_text(f"CREATE OR REPLACE VIEW metrics.{name} AS {query}")
    apply_analyst_views(worker, tmp_path)
    found = {one.view: (one.stream, one.through) for one in scans(worker, made)}
    assert found == {
        "by_action": ("enriched_events", ()),
        "of_the_log": ("events", ()),
        "above": ("enriched_events", ("by_action",)),
        "the_best": ("enriched_events", ()),
    }
    with psycopg.connect(worker.info.dsn) as producer:
        append(producer, [{"id": f"e{n}", "action": "x", "ts": START.isoformat()} for n in range(1200)])
    Worker(worker.info.dsn, projections_dir()).run(drain=True)
    for one in scans(worker, made):
        assert one.rows == 1200 and one.bytes > 0
        assert "about 1,200 rows" in one.told()


def test_funnel_conversion(analyst: psycopg.Connection, database_url: str) -> None:
    at = datetime(2026, 1, 5, tzinfo=UTC)
    steps = ("view", "cart", "purchase")
    events: list[Event] = []
    for user, reached in (("a", 3), ("b", 2), ("c", 2), ("d", 1), ("e", 0)):
        events += [(user, step, at + timedelta(hours=n)) for n, step in enumerate(steps[:reached])]
        events.append((user, "other", at))
    # In the wrong order, and too late: no conversion.
    events += [("f", "cart", at), ("f", "view", at + timedelta(hours=1))]
    events += [("g", "view", at), ("g", "cart", at + timedelta(days=8))]
    record(database_url, events)
    assert rows(analyst, "funnel_conversion") == [
        (1, "view", 6, 1, None),
        (2, "cart", 3, Decimal("0.5"), Decimal("0.5")),
        (3, "purchase", 1, Decimal("0.1667"), Decimal("0.3333")),
    ]


def test_an_empty_log_has_no_conversion_and_no_error(analyst: psycopg.Connection) -> None:
    assert rows(analyst, "funnel_conversion") == [
        (1, "view", 0, None, None),
        (2, "cart", 0, None, None),
        (3, "purchase", 0, None, None),
    ]
    for view in VIEWS:
        rows(analyst, view)


def test_every_view_and_column_is_described(analyst: psycopg.Connection) -> None:
    described = analyst.execute(
        """
        SELECT c.relname, coalesce(a.attname, ''), col_description(c.oid, coalesce(a.attnum, 0)),
               obj_description(c.oid, 'pg_class')
        FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = 'metrics'::regnamespace AND c.relname = ANY (%s)
        """,
        (VIEWS,),
    ).fetchall()
    assert {name for name, *_ in described} == set(VIEWS)
    assert [(view, column) for view, column, comment, about in described if not comment or not about] == []


def test_views_stand_on_views_whatever_their_names(worker: psycopg.Connection, tmp_path: Path) -> None:
    (tmp_path / "a_first.sql").write_text("CREATE OR REPLACE VIEW metrics.a_first AS SELECT * FROM metrics.b_second")
    (tmp_path / "b_second.sql").write_text("CREATE OR REPLACE VIEW metrics.b_second AS SELECT 1 AS one")
    assert apply_analyst_views(worker, tmp_path) == ["a_first", "b_second"]
    assert rows_of_one(worker, "a_first") == (1,)


def test_a_view_may_change_its_columns_and_keeps_its_grants(worker: psycopg.Connection, tmp_path: Path) -> None:
    file = tmp_path / "mine.sql"
    file.write_text("CREATE OR REPLACE VIEW metrics.mine AS SELECT 1 AS one, 2 AS two")
    apply_analyst_views(worker, tmp_path)
    worker.execute("GRANT SELECT ON metrics.mine TO refold_producer")
    file.write_text("CREATE OR REPLACE VIEW metrics.mine AS SELECT 'x' AS other")
    apply_analyst_views(worker, tmp_path)
    assert rows_of_one(worker, "mine") == ("x",)
    granted = worker.execute(
        "SELECT has_table_privilege(role, 'metrics.mine', 'SELECT')"
        " FROM unnest(ARRAY['refold_producer', 'refold_analyst']) AS role"
    ).fetchall()
    assert granted == [(True,), (True,)]


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("SELECT * FROM metrics.nothing", 'mine.sql:2: relation "metrics.nothing" does not exist', "There are: "),
        ("SELECT * FROM metrics.active_user", "does not exist", "Write metrics.active_users."),
        (
            "SELECT dya FROM metrics.active_users",
            'mine.sql:2: column "dya" does not exist',
            "Use a column",
        ),
        ("SELEKT", "mine.sql:2: syntax error", "Correct the file"),
    ],
)
def test_a_view_that_cannot_be_made_is_an_error_with_place_and_remedy(
    worker: psycopg.Connection, tmp_path: Path, text: str, message: str, remedy: str
) -> None:
    (tmp_path / "mine.sql").write_text(f"CREATE OR REPLACE VIEW metrics.mine AS\n{text}")
    with pytest.raises(ViewError) as refused:
        apply_analyst_views(worker, tmp_path)
    assert message in str(refused.value)
    assert remedy in (refused.value.remedy or "")


def rows_of_one(conn: psycopg.Connection, view: str) -> tuple[Any, ...] | None:
    return conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier("metrics", view))).fetchone()
