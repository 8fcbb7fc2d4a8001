"""How long the rows of metrics are kept: `refold.retentions`.

It says what a person wants. From which slice on a build has its rows, the row of the build says
(`refold.builds.retained_from`), which follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import psycopg
from psycopg.rows import class_row

WANTED_FROM = "coalesce(r.keep_from::timestamp, (clock_timestamp() AT TIME ZONE 'UTC')::date - r.keep)"
"""The first day that a row `r` wants to be kept, as SQL. A build whose rows are weeks or months keeps all of that."""


@dataclass(frozen=True, slots=True)
class Retention:
    """A row of `refold.retentions`: one of `keep` and `keep_from` is set.

    Args:
        projection: the metric.
        keep: how long its rows are kept, as an SQL interval.
        keep_from: the first day whose rows are kept.
        set_by: who said so.
        set_at: when.
    """

    projection: str
    keep: str | None
    keep_from: date | None
    set_by: str
    set_at: datetime

    @property
    def words(self) -> str:
        """Return it in words."""
        return f"{self.keep}" if self.keep_from is None else f"from {self.keep_from}"


def every(conn: psycopg.Connection) -> list[Retention]:
    """Return all retentions, by projection."""
    return _find(conn, "true")


def find(conn: psycopg.Connection, projection: str) -> Retention | None:
    """Return the retention of a metric; None if all its rows are kept."""
    found = _find(conn, "projection = %s", projection)
    return found[0] if found else None


def put(conn: psycopg.Connection, projection: str, *, keep: str | None = None, keep_from: date | None = None) -> None:
    """Record how long the rows of a metric are kept.

    Args:
        conn: acts as refold_worker.
        projection: the metric.
        keep: an SQL interval; or
        keep_from: a day.
    """
    conn.execute(
        """
        INSERT INTO refold.retentions (projection, keep, keep_from) VALUES (%s, %s::interval, %s)
        ON CONFLICT (projection) DO UPDATE SET
            keep = excluded.keep, keep_from = excluded.keep_from, set_by = session_user, set_at = clock_timestamp()
        """,
        (projection, keep, keep_from),
    )


def forget(conn: psycopg.Connection, projection: str) -> bool:
    """Record that all rows of a metric are kept; return whether that is new."""
    return conn.execute("DELETE FROM refold.retentions WHERE projection = %s", (projection,)).rowcount > 0


def rename(conn: psycopg.Connection, old: str, new: str) -> None:
    """Give a metric another name; a dropped metric may have had it."""
    forget(conn, new)
    conn.execute("UPDATE refold.retentions SET projection = %s WHERE projection = %s", (new, old))


def _find(conn: psycopg.Connection, condition: str, *parameters: object) -> list[Retention]:
    with conn.cursor(row_factory=class_row(Retention)) as cursor:
        return cursor.execute(
            "SELECT projection, keep::text AS keep, keep_from, set_by, set_at FROM refold.retentions"
            f" WHERE {condition} ORDER BY projection".encode(),
            parameters,
        ).fetchall()
