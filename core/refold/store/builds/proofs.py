"""Proofs: records that an audit has covered all slices of a build, and that what differed is healed.

A proof is as old as its oldest snapshot: a slice that was compared an hour ago says nothing about the minutes since. So
`began_at` counts, and not the end. `refold.proofs_now` says which proofs count.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import psycopg

from refold.store.builds.build import Build
from refold.store.builds.suspects import SUSPECT

Depth = Literal["quick", "deep"]
"""`quick`: rows and read events agree with the kept checksums. `deep`: rows agree with the query over the stream."""

_ADD = f"""
INSERT INTO refold.proofs (build_id, depth, began_at, ended_at, upstream_id, rows, slices, differed)
SELECT b.build_id, %(depth)s, t.began_at, greatest(t.began_at, clock_timestamp()), b.upstream_id,
       c.rows, greatest(c.slices, %(differed)s::integer), %(differed)s::integer
FROM refold.builds AS b
CROSS JOIN (SELECT coalesce(%(began)s::timestamptz, now()) AS began_at) AS t
CROSS JOIN LATERAL (
    SELECT greatest(coalesce(sum(k.rows), 0), 0)::bigint AS rows, count(DISTINCT k.slice)::integer AS slices
    FROM (
        SELECT slice, rows FROM refold.checksums WHERE build_id = b.build_id AND relation >= 0
        UNION ALL
        SELECT slice, rows FROM refold.checksum_changes WHERE build_id = b.build_id AND relation >= 0
    ) AS k
) AS c
WHERE b.build_id = %(build)s AND b.loaded AND b.state IN ('building', 'live')
  -- The audit has read this stream.
  AND b.upstream_id IS NOT DISTINCT FROM %(upstream)s::bigint
  -- A clock that was ahead when the audit began: nobody knows when that was.
  AND t.began_at <= clock_timestamp()
  AND NOT EXISTS (SELECT FROM refold.incidents AS i WHERE i.kind = 'log_damage' AND i.resolved_at IS NULL)
  -- Drift that this audit cannot have healed: found since it began, or by a deep audit and not for checksums to see.
  AND NOT EXISTS (
      SELECT FROM refold.incidents AS i
      WHERE i.kind = 'drift' AND i.subject = b.projection AND i.resolved_at IS NULL
        AND (i.detected_at >= t.began_at
             OR %(depth)s = 'quick' AND i.evidence @> '{{"depth": "deep"}}' AND i.detected_at >= b.created_at))
  -- Checksums of rows that were made from a damaged log agree with these rows.
  AND NOT (%(depth)s = 'quick' AND ({SUSPECT}))
ON CONFLICT (build_id, depth, began_at) DO NOTHING
"""


def add(conn: psycopg.Connection, build: Build, depth: Depth, *, began_at: datetime | None, differed: int) -> None:
    """Record a proof, unless something is known that it cannot have seen.

    Args:
        conn: acts as refold_worker: the transaction of the audit, or of the healing that was its last.
        build: the build as the audit saw it, with the stream that was read.
        depth: what was compared.
        began_at: an instant before the oldest snapshot of the audit; None: the start of this transaction.
        differed: slices that differed, all of which are healed in this transaction or before.
    """
    conn.execute(
        _ADD.encode(),
        {
            "build": build.build_id,
            "upstream": build.upstream_id,
            "depth": depth,
            "began": began_at,
            "differed": differed,
        },
    )


def forget(conn: psycopg.Connection, build_id: int) -> None:
    """Delete all proofs of a build, in the transaction that empties or drops its tables."""
    for table in ("proofs", "proof_hours"):
        conn.execute(f"DELETE FROM refold.{table} WHERE build_id = %s".encode(), (build_id,))


def forget_all(conn: psycopg.Connection) -> None:
    """Delete all proofs, and end all unfinished audits: after a restore they are of other tables than there are."""
    conn.execute("DELETE FROM refold.proofs")
    conn.execute("DELETE FROM refold.audits WHERE finished_at IS NULL")
    conn.execute("DELETE FROM refold.quick_audits")


def tidy(conn: psycopg.Connection, days: int) -> None:
    """Add proofs of past hours up to one row an hour, except the newest of each build and depth.

    Args:
        conn: acts as refold_worker.
        days: how long the hours are kept.
    """
    # Rows of a clock that was ahead count as proofs of this hour, or they would become claims when their time comes.
    # Only hours that are over are added up, so that no row of an hour is changed again and again.
    conn.execute(
        """
        WITH newest AS (
            SELECT build_id, depth, max(began_at) AS began_at FROM refold.proofs
            WHERE began_at <= clock_timestamp() GROUP BY build_id, depth
        ), gone AS (
            DELETE FROM refold.proofs AS p
            WHERE p.ended_at > clock_timestamp() + interval '1 minute'
               OR p.ended_at < date_trunc('hour', clock_timestamp(), 'UTC') AND NOT EXISTS (
                   SELECT FROM newest AS n
                   WHERE (n.build_id, n.depth, n.began_at) = (p.build_id, p.depth, p.began_at))
            RETURNING build_id, depth, ended_at, differed
        )
        INSERT INTO refold.proof_hours AS h (build_id, depth, hour, proofs, differed)
        SELECT build_id, depth, date_trunc('hour', least(ended_at, clock_timestamp()), 'UTC'), count(*), sum(differed)
        FROM gone GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        ON CONFLICT (build_id, depth, hour) DO UPDATE SET
            proofs = h.proofs + excluded.proofs, differed = h.differed + excluded.differed
        """
    )
    conn.execute("DELETE FROM refold.proof_hours WHERE hour < clock_timestamp() - make_interval(days => %s)", (days,))


def begin_again(conn: psycopg.Connection, build_id: int) -> None:
    """End the unfinished audits of a build, in the transaction that gives it another stream.

    The slices before their marks were compared with the former stream, so that the round would prove nothing.
    """
    conn.execute("DELETE FROM refold.audits WHERE build_id = %s AND finished_at IS NULL", (build_id,))
    conn.execute(
        "UPDATE refold.quick_audits SET upto_slice = NULL, began_at = NULL, clean = true WHERE build_id = %s",
        (build_id,),
    )
