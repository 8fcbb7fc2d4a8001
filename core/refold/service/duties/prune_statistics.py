"""The duty that aggregates the statistics of `refold report` and deletes old ones."""

from __future__ import annotations

import psycopg

from refold.store.builds.compiled import Compiler
from refold.store.schema.settings import read_settings

NAME = "prune statistics"


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Aggregate the duplicates of past minutes; delete statistics older than `latency_days`.

    Of the large batches of the last week each stays after which no larger one has come.
    """
    days = read_settings(conn).latency_days
    with conn.transaction():
        # Producers only ever insert: none of them waits for this.
        conn.execute(
            """
            WITH gone AS (
                DELETE FROM refold.duplicates
                WHERE (NOT folded AND at < date_trunc('minute', clock_timestamp()))
                   OR at > clock_timestamp() + interval '1 minute'
                RETURNING at, events
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
        for table, column in (("latencies", "minute"), ("duplicates", "at")):
            conn.execute(
                f"DELETE FROM refold.{table} WHERE {column} < clock_timestamp() - make_interval(days => %s)".encode(),
                (days,),
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
