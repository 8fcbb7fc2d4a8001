"""What became of a build: rows that were healed, and the builds of its metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class Repair:
    """A row that was healed.

    Args:
        repair_id: its number.
        kind: `missing`, `orphan` or `drifted`.
        relation: the table.
        repaired_at: when, UTC.
        repaired_by: login that healed it.
        key: columns that identify the row; None for an observer.
        before: the row before; None for an observer, or if it was missing.
        after: the row after; None for an observer, or if it was removed.
    """

    repair_id: int
    kind: str
    relation: str
    repaired_at: datetime
    repaired_by: str
    key: Mapping[str, Any] | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None

    @property
    def changes(self) -> list[tuple[str, Any, Any]]:
        """Return (column, before, after) of what differed."""
        before, after = self.before or {}, self.after or {}
        names = [name for name in {**before, **after} if name not in (self.key or {})]
        return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def repairs(conn: psycopg.Connection, build_id: int, *, evidence: bool, most: int = 12) -> list[Repair]:
    """Return the newest healed rows of a build.

    Args:
        conn: may act as refold_observer; for keys and rows, as refold_inspector.
        build_id: the build.
        evidence: whether to return keys and rows.
        most: how many.
    """
    rows = '"key", "before", "after"' if evidence else "NULL AS key, NULL AS before, NULL AS after"
    query = f"""
        SELECT repair_id, kind, relation, repaired_at, repaired_by, {rows} FROM refold.repairs
        WHERE build_id = %s ORDER BY repaired_at DESC, repair_id DESC LIMIT %s
    """
    with conn.cursor(row_factory=class_row(Repair)) as cursor:
        return cursor.execute(query.encode(), (build_id, most)).fetchall()


@dataclass(frozen=True, slots=True)
class BuildLine:
    """A build of a metric in its history.

    Args:
        table: its table.
        state: its state.
        events_applied: events applied since it was created.
        created_at: when it was created, UTC.
        promoted_at: when it went live, UTC.
        retired_at: when it was retired, UTC.
    """

    build_id: int
    table: str
    state: str
    events_applied: int
    created_at: datetime
    promoted_at: datetime | None
    retired_at: datetime | None


def builds_of(conn: psycopg.Connection, metric: str, *, most: int = 8) -> list[BuildLine]:
    """Return the newest builds of a metric."""
    with conn.cursor(row_factory=class_row(BuildLine)) as cursor:
        return cursor.execute(
            """
            SELECT build_id, table_name AS table, state, events_applied, created_at, promoted_at, retired_at
            FROM refold.builds_now WHERE projection = %s ORDER BY build_id DESC LIMIT %s
            """,
            (metric, most),
        ).fetchall()
