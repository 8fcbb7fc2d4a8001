"""The baselines: each metric kept by the best statement found for it by hand, without any cursor.

All read `plain.events` by a range of positions (parameters `after` and `upto`) and write to a table of schema
`hand`. Alternatives that were measured and were no faster are not shown.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ByHand:
    """A metric kept by hand.

    Args:
        tables: makes its tables from the events up to `upto`, with keys and indexes.
        page: applies the next range of events.
    """

    tables: tuple[str, ...]
    page: str


COUNTS = ByHand(
    tables=(
        """
        CREATE TABLE hand.counts AS
        SELECT (ts AT TIME ZONE 'UTC')::date AS day, action, count(*) AS events
        FROM plain.events WHERE position <= %(upto)s GROUP BY 1, 2
        """,
        "ALTER TABLE hand.counts ADD PRIMARY KEY (day, action)",
    ),
    page="""
        INSERT INTO hand.counts AS kept (day, action, events)
        SELECT (ts AT TIME ZONE 'UTC')::date, action, count(*)
        FROM plain.events WHERE position > %(after)s AND position <= %(upto)s GROUP BY 1, 2
        ON CONFLICT (day, action) DO UPDATE SET events = kept.events + excluded.events
    """,
)

VISITORS = ByHand(
    tables=(
        """
        CREATE TABLE hand.visitor AS
        SELECT DISTINCT (ts AT TIME ZONE 'UTC')::date AS day, action, user_id
        FROM plain.events WHERE position <= %(upto)s
        """,
        "ALTER TABLE hand.visitor ADD PRIMARY KEY (day, action, user_id)",
        """
        CREATE TABLE hand.visitors AS
        SELECT (ts AT TIME ZONE 'UTC')::date AS day, action, count(*) AS events, count(DISTINCT user_id) AS users
        FROM plain.events WHERE position <= %(upto)s GROUP BY 1, 2
        """,
        "ALTER TABLE hand.visitors ADD PRIMARY KEY (day, action)",
    ),
    page="""
        WITH page AS MATERIALIZED (
            SELECT (ts AT TIME ZONE 'UTC')::date AS day, action, user_id
            FROM plain.events WHERE position > %(after)s AND position <= %(upto)s
        ),
        fresh AS (
            INSERT INTO hand.visitor SELECT DISTINCT day, action, user_id FROM page WHERE user_id IS NOT NULL
            ON CONFLICT DO NOTHING RETURNING day, action
        )
        INSERT INTO hand.visitors AS kept (day, action, events, users)
        SELECT day, action, sum(events), sum(users)
        FROM (
            SELECT day, action, count(*) AS events, 0 AS users FROM page GROUP BY 1, 2
            UNION ALL
            SELECT day, action, 0, count(*) FROM fresh GROUP BY 1, 2
        ) AS arrived GROUP BY 1, 2
        ON CONFLICT (day, action)
        DO UPDATE SET events = kept.events + excluded.events, users = kept.users + excluded.users
    """,
)

AMOUNTS = ByHand(
    tables=(
        """
        CREATE TABLE hand.amounts AS
        SELECT position, event_id, user_id, action, ts, (metadata ->> 'amount')::bigint AS amount
        FROM plain.events WHERE position <= %(upto)s
        """,
        "ALTER TABLE hand.amounts ADD PRIMARY KEY (event_id)",
        "CREATE UNIQUE INDEX ON hand.amounts (position)",
    ),
    page="""
        INSERT INTO hand.amounts (position, event_id, user_id, action, ts, amount)
        SELECT position, event_id, user_id, action, ts, (metadata ->> 'amount')::bigint
        FROM plain.events WHERE position > %(after)s AND position <= %(upto)s
    """,
)

PATHS = ByHand(
    tables=(
        """
        CREATE TABLE hand.paths AS
        SELECT user_id, array_agg(action ORDER BY ts, event_id) AS path
        FROM plain.events WHERE position <= %(upto)s AND user_id IS NOT NULL GROUP BY 1
        """,
        "ALTER TABLE hand.paths ADD PRIMARY KEY (user_id)",
    ),
    # OFFSET 0 keeps it from becoming a hash join with all of the events, which is slower.
    page="""
        INSERT INTO hand.paths (user_id, path)
        SELECT user_id, array_agg(action ORDER BY ts, event_id)
        FROM (
            SELECT DISTINCT user_id AS touched FROM plain.events WHERE position > %(after)s AND position <= %(upto)s
        ) AS page
        CROSS JOIN LATERAL (
            SELECT user_id, action, ts, event_id FROM plain.events
            WHERE user_id = touched AND position <= %(upto)s OFFSET 0
        ) AS events
        GROUP BY 1
        ON CONFLICT (user_id) DO UPDATE SET path = excluded.path
    """,
)
