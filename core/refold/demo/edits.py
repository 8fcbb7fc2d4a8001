"""Edits of metrics by hand, and the findings that an audit must report for each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from refold.demo.shop import TODAY
from refold.engine.reconcile import Difference
from refold.postgres.rows import one_row

Drift = tuple[str, str, str, str]
"""Metric, kind, row in the table, row that must be there."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A statement that edits a metric.

    Args:
        metric: the metric.
        statement: the SQL to execute.
        rows: condition that selects the affected rows, before and after.
    """

    metric: str
    statement: str
    rows: str


def plan(conn: psycopg.Connection) -> list[Edit]:
    """Return edits of every kind: changed values, deleted and added rows, in rollups and in the stream that they read.

    Args:
        conn: may read the metrics.
    """
    largest = f"day = '{TODAY}' AND action = 'purchase' AND segment = '{_largest_segment(conn)}'"
    today = f"day = '{TODAY}'"
    paid = ", ".join(f"'{user}'" for user in _paid(conn))
    lost = f"user_id IN ({paid})"
    ghost = "user_id = 'nobody'"
    event = f"event_id = '{_view(conn)}'"
    return [
        _update("event_counts", "events = events + 1000", largest),
        _update("active_users", "users = users - 7", today),
        Edit("funnel_stages", f"DELETE FROM metrics.funnel_stages WHERE {lost}", lost),
        Edit("user_cohorts", "INSERT INTO metrics.user_cohorts VALUES ('nobody', '2001-01-01')", ghost),
        _update("enriched_events", "action = 'purchase'", event),
    ]


def _update(metric: str, change: str, rows: str) -> Edit:
    return Edit(metric, f"UPDATE metrics.{metric} SET {change} WHERE {rows}", rows)


def perform(conn: psycopg.Connection, edits: Sequence[Edit]) -> Counter[Drift]:
    """Execute edits, and return the findings that an audit must report.

    All edits are in one transaction: a worker may audit at any moment, and would heal an edit before its rows are read.

    Args:
        conn: acts as the owner of the tables, in autocommit mode.
        edits: the edits.
    """
    expected: Counter[Drift] = Counter()
    with conn.transaction():
        for edit in edits:
            right = _rows(conn, edit)
            conn.execute(edit.statement.encode())
            wrong = _rows(conn, edit)
            kind = "missing" if not wrong else "orphan" if not right else "drifted"
            for at in range(max(len(wrong), len(right))):
                row = (_text(wrong[at] if wrong else None), _text(right[at] if right else None))
                expected[(edit.metric, kind, *row)] += 1
    return expected


def drift(conn: psycopg.Connection, findings: Sequence[Difference]) -> Counter[Drift]:
    """Return findings in the same form, reduced to the columns that analysts see."""
    columns: dict[str, set[str]] = {}
    for metric, column in conn.execute(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'metrics'"
    ).fetchall():
        columns.setdefault(metric, set()).add(column)

    def text(one: Difference, row: Any) -> str:
        seen = columns[one.projection]
        return _text({name: row[name] for name in row if name in seen} if isinstance(row, dict) else row)

    return Counter((one.projection, one.kind, text(one, one.before), text(one, one.after)) for one in findings)


def healed_by_workers(conn: psycopg.Connection) -> list[Difference]:
    """Return the findings that workers have healed by themselves.

    Args:
        conn: a connection of another login than the workers'.
    """
    rows = conn.execute(
        "SELECT projection, relation, kind, key, before, after FROM refold.repairs"
        " WHERE repaired_by <> session_user ORDER BY repair_id"
    ).fetchall()
    return [
        Difference(projection, relation, kind, key, before, after, True)
        for projection, relation, kind, key, before, after in rows
    ]


def describe(finding: Difference, arrow: str) -> tuple[str, str]:
    """Return a finding's key, and its change from before to after, in short."""
    key = ", ".join(str(value) for value in finding.key.values())
    before, after = (row if isinstance(row, dict) else {} for row in (finding.before, finding.after))
    names = [name for name in (after or before) if name not in finding.key and name not in _COORDINATES]
    for name in names:
        if before.get(name) != after.get(name):
            return key, f"{name}: {before.get(name, _NO_ROW)} {arrow} {after.get(name, _NO_ROW)}"
    return key, f"{'a row' if before else _NO_ROW} {arrow} {'a row' if after else _NO_ROW}"


_NO_ROW = "no row"
_COORDINATES = ("txid", "position", "ordinal")


def _text(row: Any) -> str:
    return "" if row is None else json.dumps(row, sort_keys=True)


def _rows(conn: psycopg.Connection, edit: Edit) -> list[dict[str, Any]]:
    query = f"SELECT to_jsonb(m) FROM metrics.{edit.metric} AS m WHERE {edit.rows} ORDER BY to_jsonb(m)"
    return [row for (row,) in conn.execute(query.encode()).fetchall()]


def _largest_segment(conn: psycopg.Connection) -> str:
    return _one(
        conn,
        f"SELECT segment FROM metrics.event_counts WHERE day = '{TODAY}' AND action = 'purchase'"
        " ORDER BY events DESC, segment LIMIT 1",
    )


def _paid(conn: psycopg.Connection) -> list[str]:
    query = b"SELECT user_id FROM metrics.funnel_stages WHERE level = 3 ORDER BY user_id LIMIT 3"
    return [user for (user,) in conn.execute(query).fetchall()]


def _view(conn: psycopg.Connection) -> str:
    return _one(conn, "SELECT min(event_id) FROM metrics.enriched_events WHERE action = 'view'")


def _one(conn: psycopg.Connection, query: str) -> str:
    return str(one_row(conn, query.encode())[0])
