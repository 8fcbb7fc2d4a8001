"""Proofs of builds over time: a strip of the last hours, and the newest of each depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import psycopg
from psycopg.rows import class_row

from refold.postgres.rows import one_row
from refold.postgres.session import plan_by_index

HOURS = 24
"""Hours of a strip of proofs."""

Cell = Literal["none", "equal", "healed"]


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour in the strip of a metric.

    Args:
        hour: its start, UTC.
        proofs: audits of all slices that ended in it.
        differed: slices that differed in them; all were healed.
    """

    hour: datetime
    proofs: int
    differed: int

    @property
    def cell(self) -> Cell:
        """Return what the hour says."""
        if not self.proofs:
            return "none"
        return "healed" if self.differed else "equal"


# A build at a time, by its index: the older hours of all builds are many rows.
_STRIPS = """
SELECT b.build_id, p.hour, p.proofs, p.differed
FROM unnest(%(builds)s::bigint[]) AS b (build_id)
CROSS JOIN LATERAL (
    SELECT q.hour, sum(q.proofs)::bigint AS proofs, sum(q.differed)::bigint AS differed
    FROM refold.proofs_by_hour AS q
    WHERE q.build_id = b.build_id AND q.hour >= %(since)s
    GROUP BY q.hour
) AS p
"""


def strips(conn: psycopg.Connection, build_ids: Sequence[int], hours: int = HOURS) -> dict[int, list[Hour]]:
    """Return the last hours of each build with its proofs, oldest first.

    Args:
        conn: may act as refold_observer.
        build_ids: the builds.
        hours: how many hours, with the present one.
    """
    with conn.transaction():
        plan_by_index(conn)
        (until,) = one_row(conn, "SELECT date_trunc('hour', clock_timestamp(), 'UTC')")
        since = until - timedelta(hours=hours - 1)
        rows = conn.execute(_STRIPS.encode(), {"builds": list(build_ids), "since": since}).fetchall()
    of = {(build_id, hour): (proofs, differed) for build_id, hour, proofs, differed in rows}
    every = [since + timedelta(hours=number) for number in range(hours)]
    return {one: [Hour(hour, *of.get((one, hour), (0, 0))) for hour in every] for one in build_ids}


@dataclass(frozen=True, slots=True)
class LastProof:
    """The newest proof of a build.

    Args:
        depth: `quick` or `deep`.
        began_at: instant of its oldest snapshot, UTC.
        seconds: how long it took.
        rows: rows of all its tables.
        slices: slices that were compared.
        differed: slices that differed; all were healed.
    """

    depth: str
    began_at: datetime
    seconds: float
    rows: int
    slices: int
    differed: int


def last_proofs(conn: psycopg.Connection, build_id: int) -> list[LastProof]:
    """Return the newest proof of a build in each depth."""
    with conn.cursor(row_factory=class_row(LastProof)) as cursor:
        return cursor.execute(
            """
            SELECT p.depth, p.began_at, extract(epoch FROM p.ended_at - p.began_at)::float8 AS seconds, p.rows,
                   p.slices, p.differed
            FROM unnest('{quick,deep}'::text[]) WITH ORDINALITY AS d (depth, place)
            CROSS JOIN LATERAL (
                SELECT n.depth, n.began_at, n.ended_at, n.rows, n.slices, n.differed FROM refold.proofs AS n
                WHERE n.build_id = %s AND n.depth = d.depth
                ORDER BY n.began_at DESC LIMIT 1
            ) AS p
            ORDER BY d.place
            """,
            (build_id,),
        ).fetchall()
