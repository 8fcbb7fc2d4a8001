"""Watched series in the database: which there are, and their values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from refold.errors import InputError
from refold.model.stream.cursor import Cursor, Snapshot
from refold.postgres.rows import one_row
from refold.postgres.session import plan_by_index
from refold.store.schema.installed import insist_on
from refold.suggest import did_you_mean

Kind = Literal["all", "old", "action", "source", "metric"]
MOST = 200
"""Series that are kept at most."""
KEPT = timedelta(days=90)
"""Time for which values are kept."""
Values = Mapping[int, Mapping[datetime, tuple[float, Mapping[str, int] | None]]]
"""Values, and of sources delays, by series and hour. Hours without an event are missing."""
LEARNS = timedelta(days=28)
"""Time for which a series only collects."""
FORGOTTEN = timedelta(days=42)
"""Time after which a series without any event is no longer kept."""


@dataclass(frozen=True, slots=True)
class Series:
    """A row of `refold.series`.

    Args:
        series_id: its number.
        kind: `all` events, `old` ones (which happened long before they were recorded), the events of an `action` or of
            a `source`, or a column of a `metric`.
        name: the action, the source, or the column and value of a metric; empty for `all` and `old`.
        began_on: its first day (UTC).
        judged_on: the last day (UTC) that was judged.
        muted_until: until then it opens no incident.
    """

    series_id: int
    kind: Kind
    name: str
    began_on: date
    judged_on: date | None
    muted_until: datetime | None

    @property
    def title(self) -> str:
        """Return kind and name, by which commands know it."""
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @property
    def learns_until(self) -> date:
        """Return the day before which nothing is judged."""
        return self.began_on + LEARNS


@dataclass(frozen=True, slots=True)
class Watch:
    """How far the log has been read.

    Args:
        cursor: the events that are counted.
        began_at: when the watch began.
        read_at: all events recorded until then are counted, but for those of transactions that were open.
    """

    cursor: Cursor
    began_at: datetime
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class Marks:
    """Up to when the series have been counted and judged.

    Args:
        read_at: all events recorded until then are counted, but for those of transactions that were open.
        day: the last day (UTC) that was judged; None: none yet.
        hour: end of the last hour that was judged for silence; None: none yet.
    """

    read_at: datetime | None
    day: date | None
    hour: datetime | None


def every(conn: psycopg.Connection, *, named: bool = True) -> list[Series]:
    """Return all series; without their names for an observer."""
    name = "name" if named else "'' AS name"
    with conn.cursor(row_factory=class_row(Series)) as cursor:
        return cursor.execute(
            f"SELECT series_id, kind, {name}, began_on, judged_on, muted_until FROM refold.series"
            " ORDER BY series_id".encode()
        ).fetchall()


def insist_on_tables(conn: psycopg.Connection) -> None:
    """Raise NotInstalled if the database is of a version without series."""
    insist_on(conn, "refold.series")


def known(conn: psycopg.Connection, title: str) -> Series:
    """Return a series by its title or number; raise InputError with a suggestion if there is none."""
    found = {one.title: one for one in every(conn)}
    found |= {str(one.series_id): one for one in found.values()}
    if title not in found:
        raise InputError(
            f"no series is called {title}.{did_you_mean(title, found)}", remedy="`refold anomalies` lists them."
        )
    return found[title]


def number_of(subject: str) -> int:
    """Return the number of the series that an incident is about."""
    return int(subject.rpartition(" ")[2])


def mute(conn: psycopg.Connection, series_id: int, until: datetime | None) -> None:
    """Mute a series until a time, or let it open incidents again."""
    conn.execute("UPDATE refold.series SET muted_until = %s WHERE series_id = %s", (until, series_id))


def add(
    conn: psycopg.Connection, wanted: Iterable[tuple[Kind, str]], began_on: date, *, day: date
) -> dict[tuple[Kind, str], int]:
    """Add the series that are missing, as long as there is room; return all of them by kind and name.

    Args:
        conn: the caller's transaction.
        wanted: kinds and names, those first that need room most.
        began_on: first day of the new ones.
        day: today; what had no event for long makes room.
    """
    known = {(one.kind, one.name): one.series_id for one in every(conn)}
    new = [one for one in dict.fromkeys(wanted) if one not in known]
    if new and len(known) + len(new) > MOST:
        conn.execute(
            "DELETE FROM refold.series AS s WHERE s.kind IN ('action', 'source', 'metric') AND s.began_on < %(since)s"
            " AND NOT EXISTS (SELECT FROM refold.series_values AS v WHERE v.series_id = s.series_id"
            "                 AND v.at >= %(since)s AND v.value > 0)",
            {"since": day - FORGOTTEN},
        )
        known = {(one.kind, one.name): one.series_id for one in every(conn)}
    for kind, name in new[: max(0, MOST - len(known))]:
        (known[kind, name],) = one_row(
            conn,
            "INSERT INTO refold.series (kind, name, began_on) VALUES (%s, %s, %s) RETURNING series_id",
            (kind, name, began_on),
        )
    return known


def count(
    conn: psycopg.Connection,
    counts: Mapping[tuple[int, datetime], float],
    delays: Mapping[tuple[int, datetime], Mapping[int, int]],
) -> None:
    """Add events to the values of hours.

    Args:
        conn: the caller's transaction, which holds the watch.
        counts: events by series and hour.
        delays: of sources, events by the bucket of their delay.
    """
    before: dict[tuple[int, datetime], dict[int, int]] = {}
    if delays:
        for series_id, at, known_ in conn.execute(
            "SELECT series_id, at, delays FROM refold.series_values"
            " WHERE (series_id, at) IN (SELECT * FROM unnest(%s::bigint[], %s::timestamptz[]))",
            ([one for one, _ in delays], [at for _, at in delays]),
        ).fetchall():
            before[series_id, at] = {int(bucket): events for bucket, events in (known_ or {}).items()}
    rows = []
    for key, value in counts.items():
        merged = defaultdict(int, before.get(key, {}))
        for bucket, events in delays.get(key, {}).items():
            merged[bucket] += events
        rows.append((*key, value, Jsonb({str(one): merged[one] for one in sorted(merged)}) if merged else None))
    with conn.cursor() as cursor:
        cursor.executemany(
            """
            INSERT INTO refold.series_values AS v (series_id, at, value, delays) VALUES (%s, %s, %s, %s)
            ON CONFLICT ON CONSTRAINT series_values_pkey DO UPDATE SET
                value = v.value + excluded.value, delays = coalesce(excluded.delays, v.delays)
            """,
            rows,
        )


def set_days(conn: psycopg.Connection, values: Iterable[tuple[int, date, float]]) -> None:
    """Set the values of days of a metric; a day that has one keeps it."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO refold.series_values (series_id, at, value) VALUES (%s, %s, %s)"
            " ON CONFLICT ON CONSTRAINT series_values_pkey DO NOTHING",
            [(series_id, midnight(day), value) for series_id, day, value in values],
        )


def hours(
    conn: psycopg.Connection, since: datetime, until: datetime, series_ids: Collection[int] | None = None
) -> Values:
    """Return values and delays of some hours, of some series or of all."""
    found: dict[int, dict[datetime, tuple[float, Mapping[str, int] | None]]] = defaultdict(dict)
    of = "" if series_ids is None else " AND series_id = ANY (%(ids)s)"
    for series_id, at, value, delays in conn.execute(
        f"""
        SELECT series_id, at, value, delays FROM refold.series_values
        WHERE at >= %(since)s AND at < %(until)s{of}
        """.encode(),
        {"since": since, "until": until, "ids": None if series_ids is None else list(series_ids)},
    ).fetchall():
        found[series_id][at] = value, delays
    return found


def last_hours(conn: psycopg.Connection, until: datetime) -> dict[int, datetime]:
    """Return the last hour before a time in which each series had an event; series without one are missing."""
    with conn.transaction():
        plan_by_index(conn)
        return dict(
            conn.execute(
                """
                SELECT s.series_id, v.at
                FROM refold.series AS s
                CROSS JOIN LATERAL (
                    SELECT at FROM refold.series_values
                    WHERE series_id = s.series_id AND at < %s AND value > 0 ORDER BY at DESC LIMIT 1
                ) AS v
                WHERE s.kind <> 'metric'
                """,
                (until,),
            ).fetchall()
        )


def marks(conn: psycopg.Connection) -> Marks | None:
    """Return up to when the series have been counted and judged; None if there are none yet."""
    with conn.cursor(row_factory=class_row(Marks)) as cursor:
        return cursor.execute(
            "SELECT w.read_at, s.judged_on AS day, w.judged_until AS hour"
            " FROM refold.watch AS w JOIN refold.series AS s ON (s.kind, s.name) = ('all', '')"
        ).fetchone()


def judged(conn: psycopg.Connection, day: date) -> None:
    """Record that a day has been judged, and delete values that are too old."""
    conn.execute("UPDATE refold.series SET judged_on = %s WHERE judged_on IS DISTINCT FROM %s", (day, day))
    conn.execute("DELETE FROM refold.series_values WHERE at < %s", (midnight(day) - KEPT,))


def judged_silence(conn: psycopg.Connection, until: datetime) -> None:
    """Record that the hours up to a time have been judged for silence."""
    conn.execute("UPDATE refold.watch SET judged_until = %s", (until,))


def watch(conn: psycopg.Connection) -> tuple[Watch, Cursor, datetime]:
    """Lock the watch, and return it with the log as this transaction may read it, and the time of that.

    The first call begins the watch: what the log had before is not read.

    Args:
        conn: the caller's transaction.
    """
    row = conn.execute(
        "SELECT done, target, progress_txid, progress_position, progress_ordinal, began_at, read_at"
        " FROM refold.watch FOR UPDATE"
    ).fetchone()
    # After the lock, in a statement of its own: an older snapshot would lack what the last holder has read.
    now, own, at = one_row(
        conn, "SELECT pg_current_snapshot()::text, pg_current_xact_id()::text::bigint, clock_timestamp()"
    )
    log = Cursor(Snapshot.parse(now).capped(own))
    if row is None:
        conn.execute("INSERT INTO refold.watch (done, began_at, read_at) VALUES (%s, %s, %s)", (str(log.done), at, at))
        return Watch(log, at, at), log, at
    return Watch(Cursor.parse(*row[:5]), row[5], row[6]), log, at


def move(conn: psycopg.Connection, cursor: Cursor, read_at: datetime | None) -> None:
    """Record how far the log has been read; with None, not to its end."""
    key = cursor.progress
    conn.execute(
        "UPDATE refold.watch SET done = %s, target = %s, progress_txid = %s, progress_position = %s,"
        " progress_ordinal = %s, read_at = coalesce(%s, read_at)",
        (
            str(cursor.done),
            None if cursor.target is None else str(cursor.target),
            *((None, None, None) if key is None else key),
            read_at,
        ),
    )


def midnight(day: date) -> datetime:
    """Return the begin of a day in UTC."""
    return datetime.combine(day, time(), UTC)


def backfills(conn: psycopg.Connection, since: datetime) -> Sequence[tuple[datetime, datetime]]:
    """Return begin and end of the backfills, of captures and from files, that ran at some time since.

    The backfill of a capture that runs ends now. One from files that has events of the last day begins when they
    happened: it changes days of metrics that are yet to be judged.
    """
    return [
        (begin, end)
        for begin, end in conn.execute(
            """
            SELECT started_at, coalesce(finished_at, clock_timestamp()) FROM refold.backfills
            WHERE finished_at IS NULL OR finished_at >= %(since)s
            UNION ALL
            SELECT CASE WHEN f.last_ts >= lower(span) - interval '1 day'
                        THEN least(lower(span), greatest(f.first_ts, lower(span) - interval '1 day'))
                        ELSE lower(span) END,
                   upper(span)
            FROM refold.file_backfills AS f CROSS JOIN LATERAL unnest(f.ran) AS span
            WHERE upper(span) >= %(since)s
            """,
            {"since": since},
        ).fetchall()
    ]


def forget(conn: psycopg.Connection, keep: Collection[int], kind: Kind) -> None:
    """Delete the series of a kind that are not among some numbers."""
    conn.execute("DELETE FROM refold.series WHERE kind = %s AND series_id <> ALL (%s)", (kind, list(keep)))
