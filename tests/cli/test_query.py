"""`refold query`, `url` and `rejected`: figures out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.cli.url import Role, acting_as

from .conftest import Refold

Connection = psycopg.Connection[tuple[Any, ...]]

VALUES = "SELECT * FROM (VALUES (1, 'a,\"b', 1.50, NULL), (2, 'ä', 2, true)) AS v (n, word, price, flag)"


@pytest.fixture
def deployed(refold: Refold, metric: Callable[[str, str], Path], record: Callable[..., None]) -> Refold:
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    record("view=ann", "view=bob", "buy=ann")
    assert refold("deploy").status == 0
    return refold


def test_a_table_is_plain_where_there_is_no_terminal(deployed: Refold) -> None:
    done = deployed("query", "SELECT * FROM counts ORDER BY action;")
    assert done.status == 0
    assert done.out == "action  events\nbuy          1\nview         2\n"


AS_POSTGRES_WRITES = {
    '\'{"b": true, "a": [1, null, 1.50]}\'::jsonb': '{"a": [1, null, 1.50], "b": true}',
    "'{\"b\":  1.0e2}'::json": '{"b":  1.0e2}',
    "'null'::jsonb": "null",
    "'\"text\"'::jsonb": '"text"',
    "NULL::jsonb": "NULL",
    "''": "",
    "ARRAY['a', 'b c', NULL]": '{a,"b c",NULL}',
    "ARRAY['{\"a\": 1}'::jsonb]": '{"{\\"a\\": 1}"}',
    "ARRAY[timestamptz '2026-03-01T09:00:00.25Z']": '{"2026-03-01 09:00:00.25+00"}',
    "ROW(1, 'a b', NULL)": '(1,"a b",)',
    "1234567890123456789012345678901234567890.1230": "1234567890123456789012345678901234567890.1230",
    "0.00000001": "0.00000001",
    "1e20::float8": "1e+20",
    "'NaN'::numeric": "NaN",
    "1234567": "1234567",
    "true": "t",
    "timestamptz '2026-03-01T09:00:00.25Z'": "2026-03-01 09:00:00.25+00",
    "timestamptz 'infinity'": "infinity",
    "date '20260-03-01'": "20260-03-01",
    "interval '1 month 02:00'": "1 mon 02:00:00",
    "'\\x00ff'::bytea": "\\x00ff",
    "int4range(1, 5)": "[1,5)",
    "to_jsonb(chr(155) || chr(27) || chr(8238) || 'x')": r'"\x9b\u001b\u202ex"',
    "ARRAY[chr(27) || ']0;x' || chr(7)]": r"{\x1b]0;x\x07}",
}


def test_values_are_what_postgres_writes(deployed: Refold) -> None:
    for value, shown in AS_POSTGRES_WRITES.items():
        assert deployed("query", f"SELECT '|' AS n, {value} AS v").out.splitlines()[1] == f"|  {shown}".rstrip(), value


def test_null_is_not_an_empty_text(deployed: Refold) -> None:
    done = deployed("query", "VALUES (NULL, 1), ('', 2)")
    assert done.out == "column1  column2\nNULL           1\n               2\n"


def test_json_is_shown_as_json(deployed: Refold) -> None:
    done = deployed("query", """SELECT '{"a": true, "b": [1.50, null]}'::jsonb AS o, '[1]'::json AS l""")
    assert done.out == """o                               l\n{"a": true, "b": [1.50, null]}  [1]\n"""


def test_csv_quotes_what_needs_quotes(deployed: Refold) -> None:
    done = deployed("query", VALUES + " -- a comment at the end", "--csv")
    assert list(csv.reader(io.StringIO(done.out))) == [
        ["n", "word", "price", "flag"],
        ["1", 'a,"b', "1.50", ""],
        ["2", "ä", "2", "t"],
    ]


def test_json_keeps_every_digit(deployed: Refold) -> None:
    done = deployed("query", VALUES, "--json")
    assert done.json == [
        {"n": 1, "word": 'a,"b', "price": 1.5, "flag": None},
        {"n": 2, "word": "ä", "price": 2, "flag": True},
    ]
    assert '"price":1.50' in done.out
    assert deployed("query", "SELECT 1 WHERE false", "--json").json == []


def test_many_rows_are_cut_on_the_screen_only(deployed: Refold) -> None:
    many = "SELECT * FROM generate_series(1, 12000) AS n"
    shown = deployed("query", many)
    assert len(shown.out.splitlines()) == 1 + 1000
    assert "--csv or --json gives all" in shown.err
    assert len(deployed("query", many, "--json").json) == 12_000
    assert len(deployed("query", many, "--csv").out.splitlines()) == 1 + 12_000


def test_from_stdin(deployed: Refold) -> None:
    assert deployed("query", "-", "--csv", stdin="TABLE counts\n;\n").out.startswith("action,events\n")
    assert deployed("query", "-", stdin="  ").status == 2


def test_explain_and_show_work_too(deployed: Refold) -> None:
    assert "counts__" in deployed("query", "EXPLAIN SELECT * FROM counts").out
    assert deployed("query", "SHOW transaction_read_only").out.split() == ["transaction_read_only", "on"]


def test_it_acts_as_an_analyst_who_only_reads(deployed: Refold) -> None:
    assert deployed("query", "SELECT current_user AS who", "--csv").out.split() == ["who", "refold_analyst"]
    for forbidden in ("SELECT * FROM refold.events", "TABLE refold.builds"):
        done = deployed("query", forbidden)
        assert done.status == 2
        assert "permission denied" in done.err
        assert "`refold query` reads the schema `metrics`" in done.err
    assert deployed("query", "CREATE TABLE metrics.mine (n integer)").status == 2
    assert deployed("query", "DELETE FROM counts").status == 2
    assert deployed("query", "SELECT set_config('a.b', 'c', false)", "--csv", "--json").status == 2


SEVERAL = [
    "COMMIT; RESET ROLE; CREATE TABLE public.pwned AS SELECT * FROM refold.events",
    "SELECT 1; COMMIT; RESET ROLE; CREATE TABLE public.pwned AS SELECT 1",
    "SELECT 1) AS q; COMMIT; RESET ROLE; CREATE TABLE public.pwned AS (SELECT 1",
    "SELECT 1) TO STDOUT; COMMIT; RESET ROLE; CREATE TABLE public.pwned AS SELECT 1; COPY (SELECT 1",
]
WRITING = [
    "COMMIT AND CHAIN",
    "SET TRANSACTION READ WRITE",
    "DO $$ BEGIN RESET ROLE; SET TRANSACTION READ WRITE; CREATE TABLE public.pwned (n int); END $$",
    "WITH made AS (INSERT INTO metrics.counts VALUES ('x', 1) RETURNING 1) SELECT * FROM made",
]


@pytest.mark.parametrize("options", [(), ("--json",), ("--csv",)])
def test_one_statement_that_only_reads(deployed: Refold, conn: Connection, options: tuple[str, ...]) -> None:
    for text in SEVERAL + WRITING:
        done = deployed("query", text, *options)
        assert (done.status, done.out) == (2, "") or text == "COMMIT AND CHAIN", text
        assert conn.execute("SELECT to_regclass('public.pwned')").fetchone() == (None,), text
    refused = deployed("query", "SELECT 1; SELECT 2", *options)
    assert (refused.status, refused.out) == (2, "")
    assert "more than one statement" in refused.err


def test_what_is_made_in_metrics_does_not_pass_for_what_is_built_in(deployed: Refold, conn: Connection) -> None:
    conn.autocommit = True
    conn.execute("CREATE FUNCTION metrics.upper(text) RETURNS text LANGUAGE sql AS $$ SELECT 'shadow' $$")
    conn.execute("CREATE FUNCTION metrics.count(bigint) RETURNS text LANGUAGE sql AS $$ SELECT 'shadow' $$")
    conn.execute("CREATE VIEW metrics.pg_class AS SELECT 'shadow' AS relname")
    asked = "SELECT upper('x') AS u, (SELECT count(*) FROM pg_class WHERE relname = 'shadow') AS n"
    assert deployed("query", asked, "--csv").out == "u,n\nX,0\n"
    with psycopg.connect(deployed("url", "--role", "analyst").out.strip(), autocommit=True) as analyst:
        analyst.execute("CREATE TEMP VIEW counts AS SELECT 'shadow' AS action")
        assert analyst.execute("SELECT upper('x'), (SELECT min(action) FROM counts)").fetchone() == ("X", "buy")


def test_an_error_in_the_statement_is_postgres_s_own(deployed: Refold) -> None:
    done = deployed("query", "SELEKT 1")
    assert (done.status, done.err) == (2, 'error: syntax error at or near "SELEKT"\n')


def test_the_url_is_the_one_in_use(refold: Refold, database_url: str) -> None:
    assert refold("url").out == database_url + "\n"


def test_a_url_for_analysts(deployed: Refold) -> None:
    with psycopg.connect(deployed("url", "--role", "analyst").out.strip()) as conn:
        assert conn.execute("SELECT current_user, count(*) FROM counts GROUP BY 1").fetchall() == [
            ("refold_analyst", 2)
        ]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT * FROM refold.events")


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://us%40er:p%40ss%2Fw%3A@db.example:5433/sh%20op?sslmode=require&options=-c%20jit%3Doff",
        "host=/tmp/a,b dbname='sh op' user=us@er password='p@ss/w:' options='-c jit=off'",
        "postgresql:///shop",
    ],
)
def test_a_url_with_a_role_keeps_everything_else(given: str) -> None:
    before = psycopg.conninfo.conninfo_to_dict(given)
    after = psycopg.conninfo.conninfo_to_dict(acting_as(given, Role.worker))
    assert after.pop("options") == (f"{before.pop('options', '')} -c role=refold_worker -c TimeZone=UTC").strip()
    assert after == before


def test_input_that_was_rejected(refold: Refold, conn: Connection) -> None:
    assert "nothing was rejected" in refold("rejected").err
    assert refold("rejected", "--json").json == []
    conn.execute("SELECT refold.reject('orders.csv', 7, 'invalid', 'no action', E'{\"id\": \"1\"}\\r\\n')")
    conn.execute("SELECT refold.reject('orders.csv', 9, 'conflict', 'other content', repeat('x', 500))")
    conn.commit()
    first, second = refold("rejected", "--json").json
    assert (first["line"], second["line"], second["raw"]) == (9, 7, '{"id": "1"}\r\n')
    assert set(first) == {"source", "line", "answer", "reason", "raw", "times", "first_seen", "last_seen"}
    shown = refold("rejected", "--limit", "1").out.splitlines()
    assert len(shown) == 2
    # Piped, it is whole; a terminal shows the beginning.
    assert shown[1].endswith("x" * 500)
