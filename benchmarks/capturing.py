"""Captured tables: INSERTs of several sizes, against the same table without a trigger, and with one as people write it.

The three tables are filled in turns over one connection; every statement is a transaction.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import psycopg

from benchmarks.report import Figure
from benchmarks.server import Server
from refold.engine.capture.deploy import deploy, plan
from refold.engine.capture.probe import checked
from refold.model.capture.capture_file import load_captures
from refold.postgres.connect import connection

SIZES = {1: 400, 100: 40, 1000: 10}
"""Statements in a round, by rows in a statement."""
GOALS = {1: (0.75, 1.0), 1000: (0.35, 3.0)}
"""Goals against no trigger and against the audit trigger, by rows in a statement."""
ROUNDS = 5

_TABLES = """
CREATE SCHEMA shop;
CREATE TABLE shop.plain (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer integer, status text, amount numeric,
    created_at timestamptz DEFAULT now()
);
CREATE TABLE shop.captured (LIKE shop.plain INCLUDING ALL);
CREATE TABLE shop.audited (LIKE shop.plain INCLUDING ALL);
CREATE TABLE shop.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz DEFAULT now(), relation text, operation text,
    who text, old_row jsonb, new_row jsonb
);
CREATE FUNCTION shop.audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO shop.audit (relation, operation, who, old_row)
        VALUES (TG_TABLE_NAME, TG_OP, current_user, to_jsonb(OLD));
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO shop.audit (relation, operation, who, old_row, new_row)
        VALUES (TG_TABLE_NAME, TG_OP, current_user, to_jsonb(OLD), to_jsonb(NEW));
    ELSE
        INSERT INTO shop.audit (relation, operation, who, new_row)
        VALUES (TG_TABLE_NAME, TG_OP, current_user, to_jsonb(NEW));
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON shop.audited FOR EACH ROW EXECUTE FUNCTION shop.audit()
"""
_CAPTURE = """
table = "shop.captured"
user = "new.customer"
action = "'order ' || new.status"
time = "new.created_at"
metadata = "jsonb_build_object('amount', new.amount)"
"""


def measure(server: Server, events: int) -> list[Figure]:
    """Rows a second into the three tables."""
    with server.database("capturing") as url, psycopg.connect(url, autocommit=True) as conn:
        conn.execute(_TABLES.encode())
        _capture(url, conn)
        return [figure for rows, number in SIZES.items() for figure in _figures(conn, rows, number)]


def _capture(url: str, conn: psycopg.Connection) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "orders.toml").write_text(_CAPTURE)
        files = checked(conn, load_captures(Path(folder), []), [])
        with connection(url, "refold_capture", autocommit=True) as own:
            deploy(own, plan(own, files, {"orders"}))


def _figures(conn: psycopg.Connection, rows: int, number: int) -> list[Figure]:
    rounds = [
        {table: _rate(conn, table, rows, number) for table in ("plain", "captured", "audited")} for _ in range(ROUNDS)
    ]
    made = []
    for place, (table, words) in enumerate((("plain", "without a trigger"), ("audited", "with an audit trigger"))):
        made.append(
            Figure(
                "capturing",
                f"INSERT of {rows:,} row{'s' if rows > 1 else ''}, captured, against the same {words}",
                median(one["captured"] for one in rounds),
                "rows/s",
                median(one[table] for one in rounds),
                median(one["captured"] / one[table] for one in rounds),
                at_least=GOALS[rows][place] if rows in GOALS else None,
            )
        )
    return made


def _rate(conn: psycopg.Connection, table: str, rows: int, number: int) -> float:
    """Insert rows, and return how many a second."""
    insert = (
        f"INSERT INTO shop.{table} (customer, status, amount) SELECT n %% 1000, 'new', n"
        " FROM generate_series(1, %s) AS n"
    ).encode()
    started = time.perf_counter()
    for _ in range(number):
        conn.execute(insert, (rows,))
    return rows * number / (time.perf_counter() - started)
