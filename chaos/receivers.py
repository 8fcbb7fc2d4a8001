"""I9: what receivers have, compared with the metrics, when all faults are over and nobody has helped."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from chaos import skipped
from chaos.findings import Findings
from chaos.stage import OPTIONS, Stage
from refold.inspect.sinks import sink_statuses
from refold.sinks.refused import give_again

Rows = list[tuple[Any, ...]]
COPIES = {"daily": "exposed_daily", "changing": "changing", "graded": "graded"}
"""Tables of the receiving database, and their metrics."""


def check(stage: Stage, conn: psycopg.Connection, found: Findings, *, seconds: float) -> None:
    """Wait until sinks have nothing to deliver, then compare each receiver with its metric.

    Args:
        stage: of the campaign; its workers run.
        conn: a superuser's connection.
        found: receives what does not hold.
        seconds: that sinks have for it.
    """
    until = time.monotonic() + seconds
    while waiting := _waiting(conn):
        if time.monotonic() > until:
            found.add("I9", f"after {seconds:.0f} s there is still to be delivered: {waiting}")
            return
        time.sleep(0.2)
    with psycopg.connect(stage.receiver_url, autocommit=True, options=OPTIONS) as there:
        for table, metric in COPIES.items():
            columns = _columns(conn, metric)
            ours, theirs = _texts(conn, "metrics", metric, columns), _texts(there, "public", table, columns)
            if table == skipped.TABLE:
                ours = without(ours, theirs, columns, stage.let_go)
            compare(found, table, ours, theirs)
    columns = _columns(conn, "exposed_purchases")
    compare(found, "files", _texts(conn, "metrics", "exposed_purchases", columns), _lake(stage, columns))
    rows = conn.execute("SELECT to_jsonb(m)::text FROM metrics.exposed_spending AS m").fetchall()
    ours = [(_canonical(json.loads(row, parse_float=Decimal)),) for (row,) in rows]
    compare(found, "webhook", ours, [(_canonical(row),) for row in stage.hook.rows()])


def _waiting(conn: psycopg.Connection) -> list[tuple[Any, ...]]:
    found = conn.execute(
        "SELECT sink_id, name, condition, following, failures, error FROM refold.sinks_now ORDER BY name"
    ).fetchall()
    behind = {one.sink for one in sink_statuses(conn) if one.behind}
    left = []
    for sink_id, *told in found:
        queue = sql.Identifier("pgmq", f"q_refold_sink_{sink_id}")
        row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(queue)).fetchone()
        messages = 0 if row is None else int(row[0])
        refused = conn.execute(
            "SELECT FROM refold.undelivered WHERE sink_id = %s AND state = 'waiting'", (sink_id,)
        ).rowcount
        if refused:
            # The liar has refused a row that has not changed since. An operator asks for it again.
            give_again(conn, sink_id)
        if messages or refused or told[0] in behind or told[1] != "active" or not told[2] or told[3]:
            left.append((*told, messages, refused))
    return left


def _columns(conn: psycopg.Connection, metric: str) -> list[str]:
    found = conn.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(sql.Identifier("metrics", metric)))
    return [column.name for column in found.description or ()]


def _texts(conn: psycopg.Connection, schema: str, relation: str, columns: list[str]) -> Rows:
    listed = sql.SQL(", ").join(sql.SQL("coalesce({}::text, '')").format(sql.Identifier(name)) for name in columns)
    return conn.execute(sql.SQL("SELECT {} FROM {}").format(listed, sql.Identifier(schema, relation))).fetchall()


def without(ours: Rows, theirs: Rows, columns: list[str], let_go: set[str]) -> Rows:
    """The rows of a metric, but for those of events that a person let go, and that the receiver has not."""
    place = columns.index("event_id")
    gone = let_go - {row[place] for row in theirs}
    return [row for row in ours if row[place] not in gone]


def _lake(stage: Stage, columns: list[str]) -> Rows:
    rows: Rows = []
    for path in stage.lake.glob("slice-*.csv"):
        with path.open(newline="") as file:
            rows += [tuple(row[column] for column in columns) for row in csv.DictReader(file)]
    return rows


def _canonical(row: Any) -> str:
    return json.dumps(row, sort_keys=True, default=_number)


def _number(value: Decimal) -> str:
    return format(value.normalize(), "f")


def compare(found: Findings, what: str, ours: Rows, theirs: Rows) -> None:
    """Note what a receiver lacks, or has too much."""
    few: Callable[[Rows], str] = lambda rows: ", ".join(map(str, rows[:3])) + (" …" if len(rows) > 3 else "")  # noqa: E731
    missing, extra = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    if len(theirs) != len(set(theirs)):
        found.add("I9", f"{what}: the receiver has rows twice")
    if missing:
        found.add("I9", f"{what}: the receiver lacks {few(missing)}")
    if extra:
        found.add("I9", f"{what}: the receiver has {few(extra)}, which the metric has not")
