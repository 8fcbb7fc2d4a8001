"""From a SELECT to its plan: which upkeep, which key, what is kept and what analysts see."""

from __future__ import annotations

from pathlib import Path

import pytest

from refold.errors import DefinitionError
from refold.model.projection.plan import LOG_COLUMNS, Funnel, KeyPart, Members, Partial, Plan
from refold.model.projection.query import analyse

STREAMS = {"events": LOG_COLUMNS, "orders": ("event_id", "user_id", "amount", "paid_at")}


def plan(source: str) -> Plan:
    return analyse("metric", source, STREAMS, path=Path("metric.sql"))


def refused(source: str) -> DefinitionError:
    with pytest.raises(DefinitionError) as refusal:
        plan(source)
    assert str(refusal.value).startswith("metric.sql")
    return refusal.value


# ---------------------------------------------------------------- which upkeep


@pytest.mark.parametrize(
    ("query", "upkeep"),
    [
        ("SELECT event_id, action FROM events", "facts"),
        ("SELECT * FROM events WHERE action = 'buy'", "facts"),
        ("SELECT e.* FROM events AS e", "facts"),
        ("SELECT user_id, amount * 2 AS twice FROM orders", "facts"),
        ("SELECT action, count(*) AS n FROM events GROUP BY action", "merge"),
        ("SELECT action FROM events GROUP BY action", "merge"),
        ("SELECT 'all' AS scope, count(*) AS n FROM events GROUP BY scope", "merge"),
        ("SELECT action, sum(version) AS a, min(ts) AS b, max(ts) AS c FROM events GROUP BY 1", "merge"),
        ("SELECT action, bool_and(version = 1) AS a, bool_or(version = 2) AS b FROM events GROUP BY 1", "merge"),
        ("SELECT action, avg(version) AS mean FROM events GROUP BY 1", "merge"),
        ("SELECT action, count(*) FILTER (WHERE version = 1) AS n FROM events GROUP BY 1", "merge"),
        ("SELECT action, round(100.0 * count(user_id) / count(*), 1) AS share FROM events GROUP BY 1", "merge"),
        ("SELECT action, count(*) AS n FROM events GROUP BY 1 HAVING max(version) > 1", "merge"),
        ("SELECT action, count(DISTINCT user_id) AS n FROM events GROUP BY 1", "members"),
        ("SELECT action, count(DISTINCT user_id) FILTER (WHERE version = 1) AS n FROM events GROUP BY 1", "members"),
        (
            "SELECT action, percentile_cont(0.5) WITHIN GROUP (ORDER BY version) AS m FROM events GROUP BY 1",
            "recompute",
        ),
        ("SELECT action, array_agg(version ORDER BY ts, event_id) AS path FROM events GROUP BY 1", "recompute"),
        ("SELECT action, sum(DISTINCT version) AS n FROM events GROUP BY 1", "recompute"),
        ("SELECT action, avg(DISTINCT version) AS n FROM events GROUP BY 1", "recompute"),
        ("SELECT action, stddev(version) AS s FROM events GROUP BY 1", "recompute"),
        ("SELECT action, count(*) AS n FROM events GROUP BY 1 HAVING stddev(version) > 1", "recompute"),
        ("SELECT user_id, my_aggregate(action) AS n FROM events GROUP BY user_id", "recompute"),
        (
            "-- key: user_id\nSELECT user_id, rank() OVER (PARTITION BY user_id ORDER BY ts) AS r FROM events",
            "recompute",
        ),
        ("-- key: user_id\nSELECT DISTINCT user_id, action FROM events", "recompute"),
        ("-- key: user_id\nSELECT a.user_id, b.action AS x FROM events a JOIN events b USING (user_id)", "recompute"),
        (
            "-- key: user_id\nWITH x AS (SELECT user_id FROM events) SELECT user_id, count(*) AS n FROM x GROUP BY 1",
            "recompute",
        ),
    ],
)
def test_the_cheapest_upkeep_is_chosen(query: str, upkeep: str) -> None:
    assert plan(query).upkeep == upkeep


def test_a_stream_is_named_with_its_schema_or_without() -> None:
    assert plan("SELECT event_id FROM refold.events").stream == "events"
    assert plan("SELECT event_id FROM orders").stream == "orders"


# ---------------------------------------------------------------- what is kept


def test_facts_are_kept_under_the_events_id() -> None:
    facts = plan("SELECT action, ts FROM events WHERE user_id IS NOT NULL")
    assert facts.key == (KeyPart("event_id", "event_id"),)
    assert facts.where == "user_id IS NOT NULL"
    assert facts.reads == ("event_id", "user_id", "action", "ts")
    assert facts.stream_columns == ("event_id", "action", "ts")
    assert facts.event_grain


def test_all_columns_are_read_where_all_are_selected() -> None:
    for query in ("SELECT * FROM events", "SELECT e.* FROM events AS e"):
        assert plan(query).reads == LOG_COLUMNS
        assert [column.name for column in plan(query).columns] == list(LOG_COLUMNS)
    assert plan("SELECT action, count(*) AS n FROM events GROUP BY action").reads == ("action",)


def test_an_average_is_kept_as_sum_and_count() -> None:
    merge = plan("SELECT action, avg(version) FILTER (WHERE version < 9) AS mean FROM events GROUP BY action")
    condition = "FILTER(WHERE version < 9)"
    assert merge.partials == (
        Partial("mean__sum", f"SUM(version) {condition}", "sum"),
        Partial("mean__count", f"COUNT(version) {condition}", "count"),
    )
    assert merge.columns[1].sql == "(CAST(mean__sum AS DECIMAL) / NULLIF(mean__count, 0))"


def test_an_aggregate_is_kept_once_however_often_it_is_used() -> None:
    merge = plan(
        "SELECT action, count(*) AS n, count(*) + sum(version) AS both FROM events GROUP BY action HAVING count(*) > 1"
    )
    assert merge.partials == (Partial("n", "COUNT(*)", "count"), Partial("both__2", "SUM(version)", "sum"))
    # A reader's own condition may come before HAVING.
    assert merge.columns[2].sql == "CASE WHEN n > 1 THEN n + both__2 END"
    assert merge.having == "n > 1"


def test_a_distinct_count_keeps_its_set() -> None:
    members = plan(
        "SELECT action, count(DISTINCT user_id) AS users,"
        " count(DISTINCT version) FILTER (WHERE ts > '2026-01-01Z') AS v FROM events GROUP BY action"
    )
    assert members.members == (
        Members("users", "user_id", None),
        Members("v", "version", "ts > '2026-01-01Z'"),
    )
    assert [partial.combine for partial in members.partials] == ["members", "members"]


def test_only_rows_that_may_go_are_deleted_by_recompute() -> None:
    lasting = "SELECT action, mode() WITHIN GROUP (ORDER BY version) AS m FROM events GROUP BY action"
    assert plan(lasting).lasting
    assert not plan(lasting + " HAVING count(*) < 3").lasting
    assert not plan("-- key: user_id\nSELECT DISTINCT user_id, action FROM events").lasting


CALL = "window_funnel(interval '1 day', ts, action = 'view', action = 'buy')"
CALLED_TIMES = CALL.replace("window_funnel", "window_funnel_times")


@pytest.mark.parametrize(
    ("query", "upkeep"),
    [
        (f"SELECT user_id, {CALL} AS level FROM events GROUP BY user_id", "funnel"),
        (f"SELECT user_id, refold.{CALL} AS level FROM events GROUP BY 1", "funnel"),
        (f"SELECT user_id, {CALLED_TIMES} FILTER (WHERE version = 1) AS at FROM events GROUP BY 1", "funnel"),
        (f"SELECT user_id, {CALL} AS level, count(*) AS n, min(ts) AS first FROM events GROUP BY 1", "funnel"),
        (f"SELECT coalesce(user_id, '-') AS who, {CALL} AS level FROM events WHERE version = 1 GROUP BY who", "funnel"),
        # What the row keeps does not say it, or it would be evaluated for everybody who looks.
        (f"SELECT user_id, {CALL} = 2 AS bought FROM events GROUP BY 1", "recompute"),
        (f"SELECT user_id, {CALL} AS level FROM events GROUP BY 1 HAVING {CALL} > 0", "recompute"),
        (f"SELECT user_id, {CALL} AS level, avg(version) AS mean FROM events GROUP BY 1", "recompute"),
        (f"SELECT user_id, {CALL} AS level, count(DISTINCT action) AS n FROM events GROUP BY 1", "recompute"),
        (f"SELECT user_id, {CALL} AS level, stddev(version) AS n FROM events GROUP BY 1", "recompute"),
        ("SELECT user_id, window_funnel(NULL, ts, VARIADIC ARRAY[true]) AS n FROM events GROUP BY 1", "recompute"),
        (f"SELECT user_id, window_funnel(NULL, ts{', true' * 32}) AS n FROM events GROUP BY 1", "recompute"),
    ],
)
def test_a_funnel_is_kept_where_its_rows_can_go_on(query: str, upkeep: str) -> None:
    assert plan(query).upkeep == upkeep


def test_funnels_over_the_same_events_share_what_is_kept() -> None:
    query = (
        f"SELECT user_id, {CALL} AS level, {CALLED_TIMES} AS at, {CALL} FILTER (WHERE version > 1) AS late,"
        " count(*) AS n FROM events WHERE version < 9 GROUP BY user_id"
    )
    kept = plan(query)
    events = (
        "string_agg(refold.window_funnel_event(CAST('1 day' AS INTERVAL), ts, action = 'view', action = 'buy'), '')"
    )
    assert kept.funnels == (
        Funnel("level__state", events, 2, level=("level",), times=("at",)),
        Funnel("late__state", f"{events} FILTER(WHERE version > 1)", 2, level=("late",)),
    )
    assert kept.partials == (Partial("n", "COUNT(*)", "count"),)
    assert (kept.where, kept.key) == ("version < 9", (KeyPart("user_id", "user_id"),))


def test_a_build_that_was_made_to_be_recomputed_has_that_plan() -> None:
    query = f"SELECT user_id, {CALL} AS level FROM events GROUP BY user_id"
    again = plan(query).kept_as("recompute")
    assert (again.upkeep, again.funnels, again.partials) == ("recompute", (), ())
    assert "refold.window_funnel_level" in "".join(again.query)
    assert plan(query).kept_as("funnel") == plan(query)


# ---------------------------------------------------------------- the key, resolved as Postgres does


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("SELECT upper(action) AS act FROM events GROUP BY act", ("act", "UPPER(action)")),
        ("SELECT upper(action) AS act FROM events GROUP BY 1", ("act", "UPPER(action)")),
        ("SELECT upper(action) AS act FROM events GROUP BY upper(action)", ("act", "UPPER(action)")),
        ("SELECT e.action FROM events AS e GROUP BY e.action", ("action", "action")),
        ("SELECT action FROM events GROUP BY ((action))", ("action", "action")),
        ("SELECT 'all' AS scope FROM events GROUP BY scope", ("scope", "CAST('all' AS TEXT)")),
    ],
)
def test_a_group_is_found_by_name_number_or_text(query: str, key: tuple[str, str]) -> None:
    assert plan(query).key == (KeyPart(*key),)


def test_groups_may_stand_in_parentheses() -> None:
    grouped = plan("SELECT action, version, user_id FROM events GROUP BY (action, version), (user_id)")
    assert [part.name for part in grouped.key] == ["action", "version", "user_id"]


def test_a_column_of_the_stream_goes_before_a_new_name() -> None:
    """As in Postgres: GROUP BY action is the stream's column, and that is not selected here."""
    error = refused("SELECT upper(action) AS action, count(*) AS n FROM events GROUP BY action")
    assert "GROUP BY action is not selected" in str(error)


# ---------------------------------------------------------------- what the file says about itself


def test_comments_describe_the_metric_and_its_columns() -> None:
    described = plan(
        "-- What people do.\n-- key: action\n"
        "SELECT\n    action,  -- What.\n    count(*) AS n  -- How often.\nFROM events GROUP BY action"
    )
    assert described.description == "What people do."
    assert [column.comment for column in described.columns] == ["What.", "How often."]


# ---------------------------------------------------------------- refusals: line and remedy


@pytest.mark.parametrize(
    ("query", "line", "message", "remedy"),
    [
        ("SELECT event_id\nFROM event", 2, "no stream named event. Did you mean events?", "Streams: events, orders."),
        ("SELECT event_id\nFROM public.events", 2, "public.events is not a stream", "Read events by its plain name."),
        (
            "SELECT\n  event_id,\n  usr_id\nFROM events",
            3,
            "events has no column usr_id. Did you mean user_id?",
            "Columns:",
        ),
        ("SELECT a.user_id\nFROM events a\nJOIN orders o USING (user_id)", 2, "reads one stream", "Join in a view"),
        (
            "SELECT p.name, count(*) AS n\nFROM products AS p\nJOIN events ON p.id = metadata->>'p' GROUP BY 1",
            2,
            "products is not a stream: a projection reads events",
            "in a view in sql/views/: … FROM metrics.metric JOIN products",
        ),
        (
            "SELECT action\nFROM events\nJOIN shop.products AS p USING (id)",
            3,
            "shop.products is not a stream",
            "in a view",
        ),
        (
            "SELECT action FROM events WHERE action IN (SELECT a FROM allowed)",
            1,
            "allowed is not a stream",
            "in a view",
        ),
        *(
            (
                f"SELECT t, count(*) AS n FROM events{comma}\n{call} AS {alias} GROUP BY t",
                2,
                f"{call.removeprefix('shop.')} in FROM",
                "a list",
            )
            for comma in (",", ", LATERAL", " CROSS JOIN LATERAL")
            for call in (
                "unnest(string_to_array(action, ','))",
                "jsonb_array_elements(metadata->'items')",
                "shop.f(ts)",
            )
            for alias in ("t", "x (t)")
        ),
        *(
            (
                f"SELECT action, version AS v, count(*) AS n FROM events\nGROUP BY {how}",
                2,
                f"{word} puts totals",
                "in a view",
            )
            for word, how in {
                "ROLLUP": "ROLLUP (action, version)",
                "CUBE": "action, CUBE (version)",
                "GROUPING SETS": "GROUPING SETS ((action), (version), ())",
            }.items()
        ),
        (
            "SELECT action, count(*) AS n FROM events\nGROUP BY ()",
            None,
            "GROUP BY names no column",
            "Name the columns.",
        ),
        ("EXPLAIN SELECT action FROM events", 1, "one SELECT, not EXPLAIN", "`refold explain`"),
        ("-- Tidy.\nVACUUM events", 2, "one SELECT, not VACUUM", None),
        ("(SELECT event_id FROM events)", 1, "without parentheses around it", None),
        ("SELECT 1 AS one", None, "reads no stream", "Add FROM events."),
        ("SELECT\n  action,\n  count(*)\nFROM events GROUP BY action", None, "count(*) has no name", "AS name"),
        ("SELECT 1\nFROM events", None, "1 has no name", "AS name"),
        ("SELECT action AS a, ts AS a FROM events", 1, "two columns are named a", "its own name"),
        ("SELECT ts AS position FROM events", 1, "cannot be named position", "not ordinal, position, txid"),
        ('SELECT version AS "100%" FROM events', 1, "cannot be named 100%", "no percent sign"),
        ("SELECT ts AS a__b FROM events", 1, "cannot be named a__b", "no double underscore"),
        ("SELECT count(*) AS n FROM events", 1, "an aggregate without GROUP BY has no key", "SELECT 'all' AS scope"),
        ("SELECT count(*) AS n\nFROM events\nGROUP BY action", 3, "GROUP BY action is not selected", "Select it too."),
        ("SELECT action\nFROM events\nGROUP BY 2", None, "GROUP BY 2 is not a column", None),
        ("SELECT action, count(*) AS n FROM events GROUP BY ALL", 1, "names no column", "Name the columns."),
        ("SELECT action, sum(count(*)) AS n FROM events GROUP BY action", 1, "nests aggregates", None),
        ("SELECT DISTINCT user_id FROM events", 1, "by a key", "-- key: user_id"),
        ("SELECT event_id FROM events FOR UPDATE", 1, "only reads", "Remove it."),
        ("WITH d AS (DELETE FROM events RETURNING *) SELECT * FROM d", 1, "only reads", "Remove it, and read events"),
        ("SELECT u FROM events AS e (event_id, u)", 1, "gives other names to columns", "own column names"),
        ("DELETE FROM events", 1, "one SELECT, not DELETE", None),
        ("SELECT event_id FROM events UNION SELECT event_id FROM events", 1, "one SELECT, not UNION", None),
        ("SELECT event_id FROM events; SELECT 1 AS one", None, "has 2 statements", "a file for each"),
        ("-- Nothing yet.", 1, "the file is empty", "Write one SELECT"),
        ("SELECT event_id,\nFROM WHERE", 2, "cannot read this SQL", "a comma"),
        (
            "SELECT action,\n  sum(@ length(user_id)) AS s FROM events GROUP BY 1",
            2,
            "cannot read this SQL",
            "If psql takes it",
        ),
        ("SELECT 'open FROM events", None, "cannot read this SQL", None),
    ],
)
def test_what_is_wrong_is_said_with_place_and_remedy(
    query: str, line: int | None, message: str, remedy: str | None
) -> None:
    error = refused(query)
    assert message in str(error)
    assert remedy is None or (error.remedy is not None and remedy in error.remedy)
    if line is not None:
        assert error.line == line
        assert f"metric.sql:{line}: " in str(error)
