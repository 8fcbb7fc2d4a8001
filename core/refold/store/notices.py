"""Notices and their routes in the database: `refold.write_notices` writes what is to be told, this module reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from refold.errors import InputError
from refold.store.schema.installed import insist_on
from refold.suggest import did_you_mean


@dataclass(frozen=True, slots=True)
class Route:
    """A row of `refold.routes`.

    Args:
        name: its name in notices.toml.
        kind: `webhook`, `alertmanager` or `heartbeat`.
        least: least level of the incidents that it is told.
        definition: its options as JSON; empty for an observer.
        failures: attempts that failed since the last one that did not.
        retry_at: the next attempt; None: at once.
        error: what the receiver said last.
    """

    name: str
    kind: str
    least: str
    definition: str
    failures: int
    retry_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice with what its incident says to everybody: neither evidence nor outcome.

    Args:
        notice_id: its number.
        incident_id: the incident.
        change: `opened`, `escalated` or `resolved`.
        route: whom it is for.
        level: `page`, `ticket` or `none`.
        due_at: it is not sent before.
        attempts: attempts to send it that have begun.
        sent_at: when the receiver confirmed it, or when it was left out.
        left_out: whether it was not sent, because the incident ended first or the receiver refused it.
        error: what the receiver said.
        kind: of the incident.
        subject: of the incident.
        started_at: of the incident.
        detected_at: of the incident.
        resolved_at: of the incident.
        resolved_by: of the incident.
    """

    notice_id: int
    incident_id: int
    change: str
    route: str
    level: str
    due_at: datetime
    attempts: int
    sent_at: datetime | None
    left_out: bool
    error: str | None
    kind: str
    subject: str
    started_at: datetime
    detected_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None


_NOTICES = """
SELECT n.notice_id, n.incident_id, n.change, n.route, n.level, n.due_at, n.attempts, n.sent_at, n.left_out,
       {error} AS error,
       i.kind, i.subject, i.started_at, i.detected_at, i.resolved_at, i.resolved_by
FROM refold.notices AS n JOIN refold.incidents AS i USING (incident_id)
"""


def insist_on_tables(conn: psycopg.Connection) -> None:
    """Raise NotInstalled if the database is of a version without notices."""
    insist_on(conn, "refold.notices")


def routes(conn: psycopg.Connection, *, definitions: bool = True) -> list[Route]:
    """Return all routes, by name; an observer may read neither definitions nor errors."""
    told = "definition, failures, retry_at, error"
    if not definitions:
        told = "'' AS definition, failures, retry_at, NULL AS error"
    with conn.cursor(row_factory=class_row(Route)) as cursor:
        return cursor.execute(f"SELECT name, kind, least, {told} FROM refold.routes ORDER BY name".encode()).fetchall()


def known(conn: psycopg.Connection, name: str) -> Route:
    """Return a route by its name; raise InputError with a suggestion if there is none."""
    found = {one.name: one for one in routes(conn)}
    if name not in found:
        raise InputError(
            f"there is no route {name!r}.{did_you_mean(name, found)}", remedy="`refold notices list` shows them."
        )
    return found[name]


def changing(conn: psycopg.Connection, wanted: Mapping[str, tuple[str, str, str]]) -> list[str]:
    """Return the names of the routes that `put` would make, change or drop.

    Args:
        conn: acts as refold_worker.
        wanted: as for `put`.
    """
    changed, gone = _differing(conn, wanted)
    return changed + gone


def _differing(conn: psycopg.Connection, wanted: Mapping[str, tuple[str, str, str]]) -> tuple[list[str], list[str]]:
    """Return the names of routes that are new or different, and of those that are wanted no more."""
    before = {one.name: (one.kind, one.least, one.definition) for one in routes(conn)}
    return [name for name, one in wanted.items() if before.get(name) != one], sorted(before.keys() - wanted.keys())


def put(conn: psycopg.Connection, wanted: Mapping[str, tuple[str, str, str]]) -> list[str]:
    """Make routes as a file says, and drop the others; return the names of those that changed.

    What waits for a route that is dropped is dropped with it. A new route is told of what happens from then on.

    Args:
        conn: acts as refold_worker; one transaction is opened.
        wanted: kind, least level and definition of each route, by name.
    """
    with conn.transaction():
        changed, gone = _differing(conn, wanted)
        for name in changed:
            conn.execute(
                "INSERT INTO refold.routes (name, kind, least, definition) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, least = excluded.least,"
                " definition = excluded.definition, failures = 0, retry_at = NULL, error = NULL",
                (name, *wanted[name]),
            )
        # In the order in which `refold.write_notices` locks them.
        conn.execute("SELECT FROM refold.routes WHERE name = ANY (%s) ORDER BY name FOR UPDATE", (gone,))
        conn.execute("DELETE FROM refold.routes WHERE name = ANY (%s)", (gone,))
    return changed + gone


def due(conn: psycopg.Connection, route: str, limit: int) -> list[Notice]:
    """Return what is to be sent over a route now, oldest first."""
    with conn.cursor(row_factory=class_row(Notice)) as cursor:
        return cursor.execute(
            (
                _NOTICES.format(error="n.error") + "WHERE n.route = %s AND n.sent_at IS NULL"
                # What was tried once is due, and no rule delays a notice for an hour: clocks step.
                " AND (n.attempts > 0 OR n.due_at <= clock_timestamp()"
                "      OR n.due_at > clock_timestamp() + interval '1 hour')"
                " ORDER BY n.notice_id LIMIT %s"
            ).encode(),
            (route, limit),
        ).fetchall()


def latest(conn: psycopg.Connection, limit: int, *, errors: bool = True) -> list[Notice]:
    """Return the latest notices, newest first; an observer may not read errors."""
    with conn.cursor(row_factory=class_row(Notice)) as cursor:
        return cursor.execute(
            (_NOTICES.format(error="n.error" if errors else "NULL") + "ORDER BY n.notice_id DESC LIMIT %s").encode(),
            (limit,),
        ).fetchall()


def still_open(conn: psycopg.Connection, route: str) -> list[Notice]:
    """Return, for each open incident that a route has been told of, what it was told last."""
    with conn.cursor(row_factory=class_row(Notice)) as cursor:
        return cursor.execute(
            (
                "SELECT DISTINCT ON (told.incident_id) told.* FROM ("
                + _NOTICES.format(error="n.error")
                + "WHERE n.route = %s AND n.sent_at IS NOT NULL AND NOT n.left_out AND i.resolved_at IS NULL"
                ") AS told ORDER BY told.incident_id, told.notice_id DESC"
            ).encode(),
            (route,),
        ).fetchall()


def take(conn: psycopg.Connection, notices: Sequence[Notice]) -> list[Notice]:
    """Record that notices are about to be sent; return those that may be, because their incident has not ended first.

    From then on the end of the incident is told, too, whatever a clock says.
    """
    taken = conn.execute(
        "UPDATE refold.notices SET attempts = attempts + 1 WHERE notice_id = ANY (%s) AND sent_at IS NULL"
        " RETURNING notice_id",
        ([one.notice_id for one in notices],),
    ).fetchall()
    numbers = {number for (number,) in taken}
    return [one for one in notices if one.notice_id in numbers]


def sent(conn: psycopg.Connection, notices: Sequence[Notice]) -> None:
    """Record that a receiver has confirmed notices."""
    conn.execute(
        "UPDATE refold.notices SET sent_at = clock_timestamp(), error = NULL WHERE notice_id = ANY (%s)",
        ([one.notice_id for one in notices],),
    )


def refused(conn: psycopg.Connection, notices: Sequence[Notice], error: str) -> None:
    """Record that a receiver refuses notices: they are left out."""
    conn.execute(
        "UPDATE refold.notices SET sent_at = clock_timestamp(), left_out = true, error = %s WHERE notice_id = ANY (%s)",
        (error, [one.notice_id for one in notices]),
    )


def failed(conn: psycopg.Connection, route: str, notices: Sequence[Notice], error: str, pause_s: float) -> None:
    """Record that an attempt has failed: the route rests for some seconds."""
    with conn.transaction():
        conn.execute(
            "UPDATE refold.notices SET error = %s WHERE notice_id = ANY (%s)",
            (error, [one.notice_id for one in notices]),
        )
        conn.execute(
            "UPDATE refold.routes SET failures = failures + 1, error = %s,"
            " retry_at = clock_timestamp() + make_interval(secs => %s) WHERE name = %s",
            (error, pause_s, route),
        )


def worked(conn: psycopg.Connection, route: str) -> None:
    """Record that a route works."""
    conn.execute(
        "UPDATE refold.routes SET failures = 0, retry_at = NULL, error = NULL"
        " WHERE name = %s AND (failures > 0 OR error IS NOT NULL)",
        (route,),
    )
