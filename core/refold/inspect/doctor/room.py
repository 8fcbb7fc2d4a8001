"""Checks of space: segments of the log, positions, disk, and dead rows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import psycopg

from refold.inspect.doctor.check import Check, graded, looking
from refold.postgres.rows import one_row

DISK = 0.9, 0.97
"""Share of the disk that may be used."""
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
DEAD = 0.5, 2.0
"""Dead rows for each live one."""
DEAD_AT_LEAST = 100_000
"""Dead rows below which the check is `ok`."""
VACUUM_S = 600
"""Seconds that autovacuum has for new dead rows: it comes once a minute, and has other tables too."""
SEGMENTS = 2_000, 10_000
"""Segments of the log: each query plan checks all of them."""
_LAST = 2**63 - 1
SHORT_S = 3600.0
"""Seconds for which the check reports a statement that found too little space."""
ASK = "Before a COPY or INSERT with more events: SELECT refold.ensure_room(number of its events);"
"""Remedy for a producer whose statement exceeds the prepared space."""


def segments(conn: psycopg.Connection) -> list[Check]:
    """Check prepared segments and free positions."""
    with looking(conn):
        row = one_row(
            conn,
            """
            SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = 'refold.events'::regclass),
                   refold.log_end(), s.segment_size, s.segments_ahead,
                   CASE WHEN p.is_called THEN p.last_value ELSE 0 END, w.largest, w.rate,
                   (SELECT extract(epoch FROM clock_timestamp() - max(b.at))
                    FROM refold.batches AS b WHERE NOT b.stored)
            FROM refold.settings AS s, refold.events_position AS p, refold.room_wanted() AS w
            """,
        )
    return headroom(*row)


def headroom(
    number: int,
    upper: int,
    size: int,
    ahead: int,
    newest: int,
    largest: int = 0,
    rate: float = 0.0,
    short: float | None = None,
) -> list[Check]:
    """Return the verdict on the log's space. Pure.

    Args:
        number: number of segments.
        upper: first position behind the last segment.
        size: positions of each segment.
        ahead: segments to prepare in advance.
        newest: position that was drawn last.
        largest: events of the largest statement of the last seven days.
        rate: recent events per second.
        short: seconds since a statement last found too little space, if one did.
    """
    spare = max(0, upper - 1 - newest)
    verdict = graded(-spare, -max(size * ahead / 4, float(largest)), -size / 10)
    told = f"{number}, with space for {spare:,} more events"
    if rate:
        told += f", {spare / rate / 60:,.0f} minutes at {rate:,.0f} events per second"
    remedy = "" if verdict == "ok" else f"Start a worker, which creates segments in advance (`refold worker`). {ASK}"
    if short is not None and short < SHORT_S:
        verdict = "fail" if verdict == "fail" else "warn"
        told += "; in the last hour a statement failed for lack of space"
        remedy = remedy or f"refold's clients have sent its events again; whoever writes SQL must. {ASK}"
    checks = [Check("segments", verdict, told, remedy)]
    many = graded(number, *SEGMENTS)
    if many != "ok":
        told = f"{number} of {size:,} positions"
        checks.append(Check("segments", many, told, "Raise refold.settings.segment_size for new segments."))
    used = newest / _LAST
    checks.append(Check("positions", graded(used, 0.5, 0.9), f"{used:.1%} of 2^63 used"))
    return checks


def disk(conn: psycopg.Connection) -> list[Check]:
    """Check the size of the database, and the free disk space if the server runs on this machine."""
    row = one_row(conn, "SELECT pg_size_pretty(pg_database_size(current_database()))")
    checks = [Check("database size", "ok", str(row[0]))]
    found = conn.execute("SELECT setting FROM pg_settings WHERE name = 'data_directory'").fetchone()
    if found is None or not found[0]:
        told = f"{conn.info.user} may not see the data directory"
        return [*checks, Check("disk", "unseen", told, f'GRANT pg_read_all_settings TO "{conn.info.user}";')]
    directory = Path(found[0])
    here = conn.info.host.startswith("/") or conn.info.host in _THIS_MACHINE
    if not here or not directory.exists():
        told = f"{directory} is on another machine"
        return [*checks, Check("disk", "unseen", told, f"On the server: df -h {directory}")]
    usage = shutil.disk_usage(directory)
    return [*checks, filled(str(directory), usage.used, usage.used + usage.free)]


def filled(directory: str, used: int, total: int) -> Check:
    """Return the verdict on a disk, bytes. Pure."""
    share = used / total
    verdict = graded(share, *DISK)
    remedy = "" if verdict == "ok" else "Free disk space: when the disk is full, appends fail."
    return Check("disk", verdict, f"{share:.0%} used below {directory}, {(total - used) / 2**30:,.1f} GiB free", remedy)


def vacuum(conn: psycopg.Connection) -> list[Check]:
    """Check for dead rows in refold's tables, and for tables with autovacuum switched off."""
    with looking(conn):
        rows = conn.execute(_DEAD_ROWS, {"seconds": VACUUM_S}).fetchall()
    return swept(rows)


# Rows of the log and of the ledger die when a transaction fails, so those in newer segments may have died just now.
# What autovacuum has just left, or is at, is no sign that it is starved either.
_DEAD_ROWS = """
WITH tables AS (
    SELECT s.schemaname || '.' || s.relname AS name, s.n_live_tup AS live, s.n_dead_tup AS dead,
           coalesce('autovacuum_enabled=false' = ANY (c.reloptions), false) AS off,
           coalesce(greatest(s.last_vacuum, s.last_autovacuum) > clock_timestamp() - make_interval(secs => %(seconds)s),
                    false)
           OR EXISTS (SELECT FROM pg_stat_progress_vacuum AS v WHERE v.relid = s.relid) AS vacuumed,
           s.relid IN (SELECT g.segment FROM refold.segments AS g WHERE g.upper_position > old.position) AS fresh
    FROM pg_stat_user_tables AS s
    JOIN pg_class AS c ON c.oid = s.relid
    CROSS JOIN (
        SELECT coalesce((
            SELECT (n.slice + 1)::bigint << 14 FROM refold.sealed_slices AS n
            WHERE n.sealed_at <= clock_timestamp() - make_interval(secs => %(seconds)s)
            ORDER BY n.sealed_at DESC, n.slice DESC LIMIT 1), 0) AS position
    ) AS old
    WHERE s.schemaname IN ('refold', 'refold_builds')
)
SELECT t.name, t.live,
       CASE WHEN t.vacuumed OR t.fresh THEN 0
            WHEN t.name = 'refold.event_ids'
            THEN greatest(0, t.dead - (SELECT coalesce(sum(f.dead), 0)::bigint FROM tables AS f WHERE f.fresh))
            ELSE t.dead END,
       t.off
FROM tables AS t
"""


def swept(tables: Sequence[tuple[str, int, int, bool]]) -> list[Check]:
    """Return the verdict on (table, live rows, dead rows, whether autovacuum is off). Pure.

    Args:
        tables: of the dead rows, only those count which autovacuum should have removed by now.
    """
    checks = [
        Check("autovacuum", "fail", f"off for {name}", f"ALTER TABLE {name} RESET (autovacuum_enabled);")
        for name, _, _, off in tables
        if off
    ]
    for name, live, dead, _ in tables:
        verdict = graded(dead / max(live, 1), *DEAD) if dead >= DEAD_AT_LEAST else "ok"
        if verdict != "ok":
            remedy = f"VACUUM {name}; and find what blocks autovacuum (old transactions, cost limits)."
            checks.append(Check("autovacuum", verdict, f"{name}: {dead:,} dead rows beside {live:,}", remedy))
    return checks or [Check("autovacuum", "ok", f"{len(tables)} tables, none with many dead rows")]
