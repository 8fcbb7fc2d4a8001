"""A metric is a function of the set of events: what depends on anything else is refused when it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from refold.errors import DefinitionError
from refold.model.projection.plan import LOG_COLUMNS
from refold.model.projection.query import analyse

LINE = 3


def analysed(expression: str, *, grouped: bool) -> None:
    """Analyses a query with the expression on its third line."""
    tail = "GROUP BY user_id" if grouped else ""
    source = f"-- Key to a file with lines.\nSELECT user_id,\n    {expression} AS x\nFROM events {tail}"
    analyse("metric", source, {"events": LOG_COLUMNS}, path=Path("metric.sql"))


def refusal(expression: str, *, grouped: bool = False) -> DefinitionError:
    with pytest.raises(DefinitionError) as refused:
        analysed(expression, grouped=grouped)
    assert refused.value.line == LINE
    assert str(refused.value).startswith(f"metric.sql:{LINE}: ")
    assert refused.value.remedy
    return refused.value


@pytest.mark.parametrize(
    "expression",
    [
        "now()",
        "CURRENT_TIMESTAMP",
        "current_date",
        "LOCALTIMESTAMP",
        "clock_timestamp()",
        "statement_timestamp()",
        "ts > now() - interval '1 day'",
        "age(ts)",
        "'now'::timestamptz",
        "timestamptz 'now'",
        "date 'today'",
        "ts < 'yesterday'",
        "ts BETWEEN '2026-01-01Z' AND 'tomorrow'",
    ],
)
def test_the_time_of_evaluation(expression: str) -> None:
    assert "time of evaluation" in str(refusal(expression))


@pytest.mark.parametrize(
    "expression", ["random()", "random(1, 6)", "md5(random()::text)", "gen_random_uuid()", "uuidv7()"]
)
def test_chance(expression: str) -> None:
    assert "chance" in str(refusal(expression))


@pytest.mark.parametrize(
    "expression", ["current_user", "session_user", "current_schema", "pg_backend_pid()", "current_setting('TimeZone')"]
)
def test_the_session(expression: str) -> None:
    assert "the session" in str(refusal(expression))


@pytest.mark.parametrize(
    "expression",
    [
        "ts::date",
        "(ts)::date",
        "CAST(ts AS date)",
        "ts::timestamp",
        "ts::time",
        "ts::text",
        "date(ts)",
        "date_trunc('day', ts)",
        "extract(hour FROM ts)",
        "date_part('day', ts)",
        "to_char(ts, 'YYYY')",
    ],
)
def test_days_of_nobodys_time_zone(expression: str) -> None:
    refused = refusal(expression)
    assert "time zone" in str(refused)
    assert "AT TIME ZONE 'UTC'" in str(refused.remedy)


@pytest.mark.parametrize(
    "expression",
    [
        "(ts AT TIME ZONE 'UTC')::date",
        "(ts AT TIME ZONE 'Asia/Kathmandu')::date",
        "date_trunc('day', ts, 'UTC')",
        "date_trunc('day', ts AT TIME ZONE 'UTC')",
        "extract(epoch FROM ts)",
        "extract(hour FROM ts AT TIME ZONE 'UTC')",
        "to_char(ts AT TIME ZONE 'UTC', 'YYYY')",
        "age(ts, timestamptz '2026-01-01Z')",
        "ts - timestamptz '2026-01-01Z'",
        "action = 'now'",
        "metadata->>'today'",
    ],
)
def test_what_says_whose_day_it_is_may_stay(expression: str) -> None:
    analysed(expression, grouped=False)


@pytest.mark.parametrize(
    "expression",
    [
        "array_agg(action)",
        "array_agg(action ORDER BY ts)",
        "string_agg(action, ',')",
        "string_agg(action, ',' ORDER BY ts)",
        "jsonb_agg(action ORDER BY version)",
        "json_agg(action)",
        "jsonb_object_agg(action, version)",
    ],
)
def test_the_order_of_arrival(expression: str) -> None:
    refused = refusal(expression, grouped=True)
    assert f"{expression.partition('(')[0]} depends on the order" in str(refused)
    assert "event_id" in str(refused.remedy)


@pytest.mark.parametrize(
    "expression",
    [
        "array_agg(action ORDER BY ts, event_id)",
        "array_agg(action ORDER BY action)",
        "array_agg(DISTINCT action ORDER BY action)",
        "string_agg(action, ',' ORDER BY ts DESC, event_id)",
        "string_agg(DISTINCT action, ',' ORDER BY action)",
        "mode() WITHIN GROUP (ORDER BY action)",
        "percentile_disc(0.5) WITHIN GROUP (ORDER BY version)",
    ],
)
def test_an_order_without_ties_may_stay(expression: str) -> None:
    analysed(expression, grouped=True)


@pytest.mark.parametrize(
    "expression",
    [
        "row_number() OVER (PARTITION BY user_id ORDER BY ts)",
        "lag(ts) OVER (PARTITION BY user_id ORDER BY ts)",
        "first_value(action) OVER (PARTITION BY user_id ORDER BY ts)",
        "sum(version) OVER (PARTITION BY user_id ORDER BY ts ROWS 2 PRECEDING)",
        "row_number() OVER (PARTITION BY user_id)",
    ],
)
def test_the_order_of_ties_in_windows(expression: str) -> None:
    assert "ties" in str(refusal(expression))


def test_distinct_on_needs_an_order_without_ties() -> None:
    query = "-- key: user_id\nSELECT DISTINCT ON (user_id) user_id, action FROM events ORDER BY user_id, ts"
    with pytest.raises(DefinitionError, match="ties"):
        analyse("metric", query, {"events": LOG_COLUMNS})
    assert analyse("metric", query + ", event_id", {"events": LOG_COLUMNS}).upkeep == "recompute"


@pytest.mark.parametrize(
    "expression",
    ["sum((metadata->>'x')::float8)", "avg((metadata->>'x')::real)", "sum(((metadata->>'x')::double precision))"],
)
def test_sums_of_floats(expression: str) -> None:
    refused = refusal(expression, grouped=True)
    assert "adds floats" in str(refused)
    assert "numeric" in str(refused.remedy)


@pytest.mark.parametrize("tail", ["LIMIT 3", "OFFSET 3", "FETCH FIRST 3 ROWS ONLY"])
@pytest.mark.parametrize(
    "query", ["SELECT event_id FROM events\n{}", "SELECT n FROM (SELECT version AS n FROM events\n{}) AS x"]
)
def test_limits(query: str, tail: str) -> None:
    with pytest.raises(DefinitionError, match="depend on all other rows") as refused:
        analyse("metric", query.format(tail), {"events": LOG_COLUMNS}, path=Path("metric.sql"))
    assert refused.value.remedy is not None and "view" in refused.value.remedy


def test_samples() -> None:
    with pytest.raises(DefinitionError, match="chance"):
        analyse("metric", "SELECT event_id FROM events TABLESAMPLE SYSTEM (10)", {"events": LOG_COLUMNS})
