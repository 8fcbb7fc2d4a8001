"""Each file that is refused is told what is wrong, where, and what to do, in its author's own words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from refold.errors import DefinitionError, Mistakes, ViewError
from refold.model.projection.plan import LOG_COLUMNS
from refold.model.projection.query import analyse
from refold.model.projection.view_file import view_file

STREAMS = {"events": LOG_COLUMNS, "orders": ("event_id", "user_id", "amount", "paid_at")}
PLAIN = "SELECT action FROM events"

NO_SELECT = [
    ("insert into x select * from events", "not insert", "only reads"),
    ("UPDATE events SET action = 'x'", "not UPDATE", "only reads"),
    ("DELETE FROM events", "not DELETE", "only reads"),
    ("MERGE INTO x USING events ON true WHEN MATCHED THEN DELETE", "not MERGE", "only reads"),
    ("TRUNCATE events", "not TRUNCATE", "only reads"),
    ("COPY events TO STDOUT", "not COPY", "only reads"),
    ("vacuum events", "not vacuum", "up to date"),
    ("ANALYZE events", "not ANALYZE", "up to date"),
    ("REFRESH MATERIALIZED VIEW x", "not REFRESH", "up to date"),
    ("SET search_path = x", "not SET", "its own transactions"),
    ("SHOW search_path", "not SHOW", "its own transactions"),
    ("BEGIN", "not BEGIN", "its own transactions"),
    ("COMMIT", "not COMMIT", "its own transactions"),
    ("LOCK TABLE events", "not LOCK", "its own locks"),
    ("GRANT SELECT ON events TO x", "not GRANT", "refold_analyst may read every metric"),
    ("REVOKE SELECT ON events FROM x", "not REVOKE", "refold_analyst may read every metric"),
    ("ALTER TABLE events ADD x int", "not ALTER", "refold_analyst may read every metric"),
    ("COMMENT ON TABLE x IS 'x'", "not COMMENT", "lines that begin with --"),
    ("CALL f()", "not CALL", "transform in Python"),
    ("DO $$BEGIN END$$", "not DO", "transform in Python"),
    ("DECLARE c CURSOR FOR SELECT 1", "not DECLARE", "the SELECT itself"),
    (f"EXPLAIN {PLAIN}", "not EXPLAIN", "Remove EXPLAIN"),
    (f"CREATE TABLE x AS {PLAIN}", "not CREATE", "Remove everything before SELECT"),
    (f"create view x as {PLAIN}", "not create", "Remove everything before SELECT"),
    ("CREATE TABLE x (a int)", "not CREATE", "refold creates the table"),
    ("CREATE INDEX ON events (action)", "not CREATE", "refold creates the table"),
    ("DROP TABLE events", "not DROP", "`refold drop NAME`"),
    ("VALUES (1)", "not VALUES", "constant rows"),
    ("EXECUTE x", "not EXECUTE", "the SELECT itself"),
    (f"{PLAIN} UNION {PLAIN}", "not UNION", "metrics.a UNION SELECT"),
    (f"{PLAIN} EXCEPT {PLAIN}", "not EXCEPT", "metrics.a EXCEPT SELECT"),
    (f"({PLAIN})", "without parentheses", "Remove the outer parentheses"),
    (f"{PLAIN};\nSELECT 1", "2 statements", "a file for each"),
    ("", "empty", "Write one SELECT"),
]

SELECTS = [
    ("WITH x AS (delete from events returning *) SELECT action FROM x", "delete from events returning * locks", "Rem"),
    ("SELECT action into x FROM events", "INTO x makes a table", "Remove INTO"),
    (f"{PLAIN} for  update", ": for update locks", "Remove it"),
    ("SELECT a, count(*) AS n FROM events as e (a, b) GROUP BY a", "events as e (a, b) gives", "own column names"),
    ("SELECT action, count(*) AS n FROM events GROUP BY ()", "names no column", "scope"),
    ("SELECT action, count(*) AS n FROM events GROUP BY rollup (action)", "ROLLUP puts totals", "finest groups"),
    ("SELECT count(*) AS n FROM events", "has no key", "Add a GROUP BY"),
    ("SELECT action, count(*) FROM events GROUP BY action", ": count(*) has no name", "AS name"),
    ("SELECT action, count(*) AS n FROM events GROUP BY lower(action)", "GROUP BY lower(action) is", "Select it too"),
    ("SELECT action, count(*) AS n FROM events GROUP BY 3", "GROUP BY 3", "from 1 to 2"),
    ("SELECT action, count(*) AS n, count(*) AS n FROM events GROUP BY 1", "two columns are named n", "its own name"),
    ("SELECT action AS event_id FROM events", "event_id must be", "another name"),
    ("SELECT action AS position FROM events", "cannot be named position", "Use a name"),
    ("SELECT now() AS a FROM events", ": now() depends", "event's own ts"),
    ("SELECT action, random() AS a FROM events", ": random() depends on chance", "Remove it"),
    ("SELECT current_user AS a FROM events", ": current_user depends on the session", "Remove it"),
    ("SELECT ts::date AS d FROM events", ": ts::date depends", "AT TIME ZONE"),
    (f"{PLAIN} LIMIT 3", "LIMIT and OFFSET", "sql/views/"),
    ("SELECT action FROM events TABLESAMPLE system (10)", "TABLESAMPLE", "hash of event_id"),
    ("SELECT action, array_agg(user_id) AS n FROM events GROUP BY 1", "array_agg depends", "ORDER BY"),
    ("SELECT action, sum(version::float) AS n FROM events GROUP BY 1", "sum(version::float) adds floats", "numeric"),
    ("SELECT acton FROM events", "no column acton", "Columns:"),
    ("SELECT action FROM event", "no stream named event", "Streams:"),
    ("SELECT 1 AS a", "reads no stream", "Add FROM events"),
    ("SELECT e.action FROM events e JOIN public.users u ON u.id = e.user_id", "public.users is not", "sql/views/"),
    ("SELECT e.action FROM events e JOIN orders o USING (user_id)", "one stream", "Join in a view"),
    ("SELECT a.action FROM events a, unnest(array[1]) b", "several rows of one event", "transform"),
    ("SELECT action FROM events WHERE (action = 'x'", "cannot read this SQL", "parenthesis"),
    ("SELECT action FORM events", "cannot read this SQL", "Write FROM instead of FORM"),
]


@pytest.mark.parametrize(
    ("text", "message", "remedy"), NO_SELECT + SELECTS, ids=[one[0][:40] for one in NO_SELECT + SELECTS]
)
def test_a_projection(text: str, message: str, remedy: str) -> None:
    # The fault stands on the third line, and is found there.
    with pytest.raises(DefinitionError) as refusal:
        analyse("metric", f"\n\n{text}" if text else text, STREAMS, path=Path("metric.sql"))
    for one in refusal.value.errors if isinstance(refusal.value, Mistakes) else [refusal.value]:
        assert isinstance(one, DefinitionError)
        assert one.line in ((1,) if not text else (3, 4)), str(one)
        assert one.remedy
    first = refusal.value.errors[0] if isinstance(refusal.value, Mistakes) else refusal.value
    assert message in str(first)
    assert remedy in (first.remedy or "")


KEYLESS = [
    # A column that can be the key: with it the query is kept.
    ("WITH x AS (SELECT action, user_id, count(*) AS n FROM events GROUP BY 1, 2)\n"
     "SELECT action, max(n) AS m FROM x GROUP BY action", "-- key: action"),
    ("SELECT a.user_id, count(*) AS n FROM events a JOIN events b USING (user_id) GROUP BY 1", "-- key: user_id"),
    ("SELECT DISTINCT action, version FROM events", "-- key: action"),
    # The CTE only gives names: user_id, which it also selects, is no key of what comes out.
    ("WITH days AS (SELECT date_trunc('day', ts AT TIME ZONE 'UTC') AS day, user_id FROM events)\n"
     "SELECT day, count(DISTINCT user_id) AS n FROM days GROUP BY day", "as one level"),
    ("WITH x AS (SELECT user_id AS u, action FROM events)\nSELECT u, count(*) AS n FROM x GROUP BY u", "as one level"),
    ("SELECT action, rank() OVER (ORDER BY ts) AS r FROM events", "-- key: action. Then: Add action to PARTITION BY."),
    ("WITH x AS (SELECT user_id, max(ts) AS last FROM events GROUP BY user_id)\n"
     "SELECT last, count(*) AS n FROM x GROUP BY last", "Keep one row per user_id here"),
    ("SELECT action AS a, (SELECT count(*) FROM events) AS n FROM events", "Select a column of the stream unchanged"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "remedy"), KEYLESS)
def test_a_query_without_a_key_is_told_one_that_fits(text: str, remedy: str) -> None:
    with pytest.raises(DefinitionError, match="declares none") as refusal:
        analyse("metric", text, STREAMS)
    told = refusal.value.remedy or ""
    assert remedy in told
    declared = re.search(r": (-- key: \w+)$", told)
    if declared and "unchanged" not in told:
        assert analyse("metric", f"{declared[1]}\n{text}", STREAMS).upkeep == "recompute"


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("select 1 as a", "select 1 as … is a query", "Write before it: CREATE OR REPLACE VIEW metrics.top AS"),
        ("with x as (select 1) select 1", "with x as … is a query", "Write before it: CREATE OR REPLACE VIEW"),
        ("(select 1 as a)", "is a query", "Write before it: CREATE OR REPLACE VIEW"),
        ("values (1)", "is a query", "Write before it: CREATE OR REPLACE VIEW"),
        ("create materialized view metrics.top as select 1", "create materialized view … makes", "To keep its rows"),
        ("create temp view top as select 1", "create temp view … makes", "ends with its session"),
        ("create table metrics.top (a int)", "create table metrics … makes", "Remove it"),
        ("insert into x values (1)", "insert into x … makes", "Remove it"),
        ("vacuum", "vacuum … makes", "Remove it"),
        ("drop view metrics.top cascade", "cascade drops more", "Remove the DROP"),
        ("alter view metrics.top rename to x", "alter view metrics.top rename to changes more", "another file"),
        ("create view metrics.x as select 1", "is about metrics.x", "its own file"),
    ],
)
def test_a_view(text: str, message: str, remedy: str) -> None:
    with pytest.raises(ViewError) as refused:
        view_file("top", f"\n\n{text}", Path("top.sql"))
    assert message in str(refused.value)
    assert refused.value.line == 3
    assert remedy in (refused.value.remedy or "")
