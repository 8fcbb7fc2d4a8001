"""What refold runs is what Postgres reads in the author's text; else the text is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlglot.dialects.postgres import Postgres

from refold import append
from refold.engine.verify.readings import refuse_misread
from refold.errors import DefinitionError
from refold.model.projection.definition import from_source
from refold.model.projection.plan import LOG_COLUMNS
from refold.model.projection.reading import reading
from refold.model.stream.page_sql import LOG_STREAM
from tests.support.law import worker_connection
from tests.support.live import make_live
from tests.support.making import events

EXPRESSIONS = [line for line in (Path(__file__).parent / "expressions.txt").read_text().splitlines() if line]
MISREAD = (
    "|/ (metadata ->> 'n')::numeric",
    "@ version",
    "0x1F",
    "to_hex(version)",
    "date_part('hour', ts AT TIME ZONE 'UTC')",
)
"""What sqlglot is known to take for something else."""


@pytest.fixture
def worker(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url) as conn:
        batch = events(6)
        for at, event in enumerate(batch):
            event["metadata"] = {"n": at, "a": {"b": "c"}}
            event["version"] = at + 1
        append(conn, batch)
    with worker_connection(database_url) as conn:
        yield conn


def refusal(conn: psycopg.Connection[Any], query: str) -> DefinitionError | None:
    """What is said to a query, if it is refused."""
    try:
        definition = from_source("metric", query, {"events": LOG_COLUMNS}, {}, Path("metric.sql"))
        with conn.transaction():
            refuse_misread(conn, definition, LOG_STREAM)
    except DefinitionError as error:
        return error
    return None


def values(conn: psycopg.Connection[Any], query: str) -> object:
    """What a query says, as text; or that it fails."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(f"CREATE TEMPORARY TABLE said AS {query}".encode())
            types = conn.execute(
                "SELECT atttypid::regtype::text FROM pg_attribute"
                " WHERE attrelid = 'pg_temp.said'::regclass AND attname = 'x'"
            )
            return types.fetchall(), conn.execute("SELECT event_id, x::text FROM pg_temp.said ORDER BY 1").fetchall()
    except psycopg.Error as error:
        return error.sqlstate


@pytest.mark.slow
def test_every_expression_is_the_same_or_refused(worker: psycopg.Connection[Any]) -> None:
    assert len(EXPRESSIONS) > 350
    refused = []
    for expression in EXPRESSIONS:
        query = f"SELECT event_id, {expression} AS x FROM events"
        if refusal(worker, query) is not None:
            refused.append(expression)
            continue
        again = reading("metric", query, "events", LOG_COLUMNS, None).text
        assert values(worker, query) == values(worker, again), expression
    assert set(MISREAD) <= set(refused)
    # Few, else it would be in everybody's way.
    print(refused)
    assert len(refused) < len(EXPRESSIONS) // 10


@pytest.mark.parametrize(
    ("query", "line", "says"),
    [
        ("SELECT event_id,\n  |/ version::numeric AS x,\n  user_id\nFROM events", 2, "which reads `… event_id, (|/ "),
        ("SELECT event_id,\n  |/ version::numeric AS x,\n  user_id\nFROM events", 2, "would run `… event_id, sqrt("),
        ("SELECT event_id,\n  user_id,\n  to_hex(version) AS x\nFROM events", 3, "to_hex"),
        ("SELECT event_id\nFROM events\nWHERE version > date_part('hour', ts AT TIME ZONE 'UTC')", 3, "date_part"),
        ("SELECT user_id\nFROM events\nGROUP BY user_id\nHAVING sum(to_hex(version)::numeric) > 0", 4, "to_hex"),
        ("SELECT event_id,\n  nothing(version) AS x\nFROM events", 2, "nothing(integer) does not exist"),
    ],
)  # fmt: skip
def test_a_refusal_says_where_and_in_whose_words(
    worker: psycopg.Connection[Any], query: str, line: int, says: str
) -> None:
    refused = refusal(worker, query)
    assert refused is not None
    assert refused.line == line
    assert says in str(refused).replace("events.", "")  # before version 16 Postgres writes each column with its table


@pytest.mark.parametrize(
    "query",
    [
        "SELECT user_id, max(interval '1 day' * version) AS x\nFROM events GROUP BY user_id",
        "SELECT metadata -> 'n' AS x, count(*) AS n\nFROM events GROUP BY x",
        "SELECT user_id, array_agg((metadata -> 'n') ORDER BY (metadata -> 'n')) AS x\nFROM events GROUP BY user_id",
        "SELECT user_id, percentile_disc(0.5) WITHIN GROUP (ORDER BY ts - timestamptz '2026-01-01Z') AS x\n"
        "FROM events GROUP BY user_id",
        "SELECT ARRAY[version::numeric] AS x, count(*) AS n\nFROM events GROUP BY 1",
        "SELECT numrange(version, 9) AS x, count(*) AS n\nFROM events GROUP BY x",
        "SELECT action::bpchar AS x, count(*) AS n\nFROM events GROUP BY x",
        "SELECT user_id, min(action COLLATE blind) AS x\nFROM events GROUP BY user_id",
    ],
)
def test_equals_that_can_be_told_apart_are_not_kept(
    admin: psycopg.Connection[Any], worker: psycopg.Connection[Any], query: str
) -> None:
    if "blind" in query:
        try:
            admin.execute("CREATE COLLATION refold.blind (provider = icu, locale = 'und', deterministic = false)")
        except psycopg.errors.FeatureNotSupported:
            pytest.skip("without ICU there is no such collation")
    refused = refusal(worker, query)
    assert refused is not None
    assert "equal" in str(refused) and "told apart" in str(refused)
    assert refused.line == 1
    assert refused.remedy


@pytest.mark.parametrize(
    "query",
    [
        "SELECT user_id, sum(interval '1 day' * version) AS x FROM events GROUP BY user_id",
        "SELECT user_id, count(DISTINCT metadata -> 'n') AS x FROM events GROUP BY user_id",
        "SELECT user_id, array_agg((metadata -> 'n') ORDER BY ts, event_id) AS x FROM events GROUP BY user_id",
        "SELECT (metadata ->> 'n')::numeric AS x, count(*) AS n FROM events GROUP BY x",
        "SELECT (metadata ->> 'n')::float AS x, count(*) AS n FROM events GROUP BY x",
        "SELECT ARRAY[action] AS x, count(*) AS n FROM events GROUP BY x",
        "SELECT user_id, max(ts) - min(ts) AS x FROM events GROUP BY user_id",
        "SELECT user_id, action, count(*) AS x FROM events GROUP BY (user_id, action)",
        "SELECT user_id, mode() WITHIN GROUP (ORDER BY version) AS x FROM events GROUP BY ((user_id))",
    ],
)
def test_what_has_one_spelling_may_stay(worker: psycopg.Connection[Any], query: str) -> None:
    assert refusal(worker, query) is None


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ("SELECT jsonb_array_length(metadata->'items') AS items, count(*) AS n FROM events GROUP BY 1", ["metadata"]),
        ("SELECT action, count(e.metadata -> 'a') AS n FROM events AS e GROUP BY 1", ["action", "metadata"]),
        ("SELECT event_id, num_nulls(user_id, metadata->'a') AS n FROM events", ["event_id", "user_id", "metadata"]),
        ("SELECT user_id, count(DISTINCT e.*) AS n FROM events AS e GROUP BY user_id", list(LOG_COLUMNS)),
        ("SELECT event_id, date_bin('1 hour', '2026-01-01Z'::timestamptz, ts) AS x FROM events", ["event_id", "ts"]),
        ("SELECT 'all' AS scope, count(*) AS n FROM events GROUP BY scope", []),
    ],
)
def test_postgres_says_which_columns_are_read(worker: psycopg.Connection[Any], query: str, columns: list[str]) -> None:
    definition = from_source("metric", query, {"events": LOG_COLUMNS}, {}, Path("metric.sql"))
    with worker.transaction():
        assert list(refuse_misread(worker, definition, LOG_STREAM)) == columns


ARGUMENTS = {
    "text": ("action", "user_id"),
    "integer": ("version",),
    "bigint": ("version::bigint",),
    "numeric": ("version::numeric",),
    "double precision": ("version::float",),
    "boolean": ("(version > 1)",),
    "jsonb": ("metadata -> 'a'",),
    "json": ("metadata::json -> 'a'",),
    "bytea": ("action::bytea", "user_id::bytea"),
    "date": ("(ts AT TIME ZONE 'UTC')::date",),
    "timestamp with time zone": ("ts",),
    "timestamp without time zone": ("(ts AT TIME ZONE 'UTC')",),
    "interval": ("(ts - ts)",),
    "text[]": ("ARRAY[action]", "ARRAY[user_id]"),
    "anyarray": ("ARRAY[action]",),
    "anycompatiblearray": ("ARRAY[action]", "ARRAY[user_id]"),
    "anycompatible": ("user_id",),
    "anyelement": ("user_id",),
}
"""What a function is given of a type; where it takes several, the next one each time."""


def calls(conn: psycopg.Connection[Any]) -> dict[str, set[str]]:
    """Calls of all functions that both Postgres and sqlglot know, each with the columns that it reads."""
    known = sorted({*Postgres.Parser.FUNCTIONS, *Postgres.Parser.FUNCTION_PARSERS})
    found = conn.execute(
        """
        SELECT p.proname, array_agg(format_type(a.type, NULL) ORDER BY a.at)
        FROM pg_proc AS p CROSS JOIN unnest(p.proargtypes) WITH ORDINALITY AS a (type, at)
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.provolatile = 'i'
          AND NOT p.proretset AND p.provariadic = 0 AND upper(p.proname) = ANY (%s)
        GROUP BY p.oid, p.proname
        ORDER BY 1, 2
        """,
        (known,),
    ).fetchall()
    made: dict[str, set[str]] = {}
    for name, types in found:
        if all(kind in ARGUMENTS for kind in types):
            given = {kind: iter(2 * ARGUMENTS[kind]) for kind in types}
            arguments = [next(given[kind], ARGUMENTS[kind][0]) for kind in types]
            read = {column for column in LOG_COLUMNS if any(column in argument for argument in arguments)}
            made[f"{name}({', '.join(arguments)})"] = read
    return made


@pytest.mark.slow
def test_no_function_hides_a_column(worker: psycopg.Connection[Any], database_url: str, tmp_path: Path) -> None:
    accepted = []
    for call, read in calls(worker).items():
        try:
            query = f"SELECT event_id, {call} AS x FROM events"
            definition = from_source("metric", query, {"events": LOG_COLUMNS}, {}, Path("metric.sql"))
            with worker.transaction():
                columns = refuse_misread(worker, definition, LOG_STREAM)
        except DefinitionError:
            continue
        assert set(columns) == {"event_id", *read}, call
        accepted.append(call)
    assert len(accepted) > 80
    worker.rollback()
    # Their pages are read by Postgres, too, before anything is live.
    counted = ", ".join(f"count({call}) AS n{at}" for at, call in enumerate(accepted))
    (tmp_path / "merged.sql").write_text(f"SELECT user_id, {counted} FROM events WHERE version < 0 GROUP BY user_id")
    ranked = f"rank() OVER (PARTITION BY user_id ORDER BY count(*)) AS r, {counted}"
    again = f"-- key: user_id\nSELECT user_id, {ranked} FROM events WHERE version < 0 GROUP BY user_id"
    (tmp_path / "again.sql").write_text(again)
    assert set(make_live(database_url, tmp_path)) == {"merged", "again"}


def test_a_stream_may_be_named_like_a_table_of_refolds(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "figures.sql").write_text("SELECT event_id, version AS n FROM events")
    (tmp_path / "top.sql").write_text("SELECT n, count(*) AS times FROM figures GROUP BY n")
    assert set(make_live(database_url, tmp_path)) == {"figures", "top"}
