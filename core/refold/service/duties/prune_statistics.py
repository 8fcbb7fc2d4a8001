"""The duty that aggregates the statistics of `refold report`, and proofs, and deletes old ones and old traces."""

from __future__ import annotations

import psycopg

from refold.store import contracts, totals
from refold.store.builds import proofs
from refold.store.builds.compiled import Compiler
from refold.store.schema.settings import read_settings

NAME = "prune statistics"


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Aggregate duplicates, violations of contracts and proofs, and delete old ones.

    Violations are kept for `rejected_days`, traces for `trace_days`, the others for `latency_days`.

    What is deleted was added to `refold.totals` before, so that counters do not fall.

    Of the large batches of the last week each stays after which no larger one has come.
    """
    settings = read_settings(conn)
    days = settings.latency_days
    with conn.transaction():
        # Producers only ever insert: none of them waits for this.
        conn.execute(
            """
            WITH gone AS (
                DELETE FROM refold.duplicates
                WHERE (NOT folded AND at < date_trunc('minute', clock_timestamp()))
                   OR at > clock_timestamp() + interval '1 minute'
                RETURNING at, events, folded
            ), counted AS (
                INSERT INTO refold.totals AS t (what, projection, kind, number)
                SELECT 'duplicates', '', '', sum(events) FROM gone WHERE NOT folded HAVING sum(events) > 0
                ON CONFLICT (what, projection, kind) DO UPDATE SET number = t.number + excluded.number
            )
            INSERT INTO refold.duplicates (at, events, folded)
            SELECT date_trunc('minute', least(at, clock_timestamp())), sum(events), true FROM gone GROUP BY 1
            """
        )
        # What a clock that was ahead has counted belongs to no later day: it came before now.
        conn.execute(
            """
            WITH gone AS (
                DELETE FROM refold.latencies WHERE minute > clock_timestamp() + interval '1 minute' RETURNING *
            )
            INSERT INTO refold.latencies AS l (minute, build_id, stage, bucket, events)
            SELECT date_trunc('minute', clock_timestamp()), build_id, stage, bucket, sum(events)
            FROM gone GROUP BY build_id, stage, bucket ORDER BY build_id, stage, bucket
            ON CONFLICT (minute, build_id, stage, bucket) DO UPDATE SET events = l.events + excluded.events
            """
        )
        totals.add_latencies(conn)
        for table, column in (("latencies", "minute"), ("duplicates", "at")):
            conn.execute(
                f"DELETE FROM refold.{table} WHERE {column} < clock_timestamp() - make_interval(days => %s)".encode(),
                (days,),
            )
        contracts.fold_violations(conn, settings.rejected_days)
        proofs.tidy(conn, days)
        # A clock that was ahead has noted a trace as of a later time: it is as old as it is far.
        conn.execute(
            "DELETE FROM refold.traces WHERE recorded_at < clock_timestamp() - make_interval(days => %(days)s)"
            " OR recorded_at > clock_timestamp() + make_interval(days => %(days)s)",
            {"days": settings.trace_days},
        )
        # What a clock that was ahead has noted would stay the newest.
        conn.execute(
            "DELETE FROM refold.batches WHERE at < clock_timestamp() - interval '7 days'"
            " OR at > clock_timestamp() + interval '1 minute'"
        )
        conn.execute(
            """
            DELETE FROM refold.batches AS b
            USING (
                SELECT ctid AS place, max(events) OVER (
                    ORDER BY at DESC, ctid DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS later
                FROM refold.batches
            ) AS l
            WHERE b.ctid = l.place AND l.later >= b.events
              -- When room was short last, `refold doctor` tells.
              AND (b.stored OR b.at < (SELECT max(at) FROM refold.batches WHERE NOT stored))
            """
        )
