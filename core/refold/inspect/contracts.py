"""Contracts beside what came: the events of the log that have none, their fields, and what broke them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg.rows import class_row

from refold.model.contract.draft import MOST_VALUES, FieldSeen, Seen
from refold.store.contracts import Registered

EVENTS = 200_000
"""Newest events that are looked at, unless the reader says otherwise."""
LONGEST_VALUE = 40
"""Most characters of a string that may be one of a few values."""

# One pass over the newest positions. A value that is long is not one of a few: its place is taken by its hash.
_SEEN = """
WITH newest AS MATERIALIZED (
    SELECT action, version, metadata, recorded_at FROM refold.events
    WHERE position > (SELECT coalesce(last_value, 0) FROM refold.events_position) - %(events)s
      AND (%(action)s::text IS NULL OR action = %(action)s)
      AND (%(since)s::interval IS NULL OR recorded_at >= now() - %(since)s::interval)
),
valued AS (
    SELECT n.action, n.version, f.name, jsonb_typeof(f.value) AS type,
           CASE WHEN jsonb_typeof(f.value) = 'string' THEN
               CASE WHEN char_length(f.value #>> '{}') <= %(longest)s THEN 'v' || (f.value #>> '{}')
                    ELSE 'h' || hashtextextended(f.value #>> '{}', 0)::text END
           END AS value,
           count(*) AS events,
           bool_and(CASE WHEN jsonb_typeof(f.value) = 'number'
                         THEN f.value::numeric %% 1 = 0 ELSE true END) AS whole
    FROM newest AS n CROSS JOIN LATERAL jsonb_each(n.metadata) AS f (name, value)
    GROUP BY 1, 2, 3, 4, 5
),
fields AS (
    SELECT action, version, name, type, sum(events)::bigint AS events, bool_and(whole) AS whole, count(*) AS distinct,
           CASE WHEN count(*) <= %(values)s
                THEN coalesce(array_agg(substr(value, 2)) FILTER (WHERE starts_with(value, 'v')), '{}')
                ELSE '{}' END AS values
    FROM valued GROUP BY 1, 2, 3, 4
)
SELECT t.action, t.version, t.events, t.first, t.last,
       (SELECT coalesce(jsonb_agg(to_jsonb(f) - 'action' - 'version' ORDER BY f.name, f.type), '[]')
        FROM fields AS f WHERE (f.action, f.version) = (t.action, t.version))
FROM (SELECT action, version, count(*) AS events, min(recorded_at) AS first, max(recorded_at) AS last
      FROM newest GROUP BY 1, 2) AS t
ORDER BY 1, 2
"""


def seen(
    conn: psycopg.Connection, *, action: str | None = None, since: timedelta | None = None, events: int = EVENTS
) -> list[Seen]:
    """Return the fields of the newest events, by action and version, in one pass.

    Args:
        conn: acts as a worker or an inspector.
        action: only this one.
        since: only events that were recorded within this time.
        events: how many of the newest positions are looked at.
    """
    rows = conn.execute(
        _SEEN, {"events": events, "action": action, "since": since, "longest": LONGEST_VALUE, "values": MOST_VALUES}
    ).fetchall()
    return [
        Seen(name, version, number, first, last, [FieldSeen(**field) for field in fields])
        for name, version, number, first, last, fields in rows
    ]


@dataclass(frozen=True, slots=True)
class Violation:
    """How often a rule was the first that an event broke.

    Args:
        action: the action of the events.
        version: their version.
        rule: the first rule of the contract that they break.
        refused: whether they were refused.
        events: how many; those of rejected calls that came again count again.
        event_id: one of them.
        first_at: when the first came.
        last_at: when the last came.
    """

    action: str
    version: int
    rule: str
    refused: bool
    events: int
    event_id: str
    first_at: datetime
    last_at: datetime


def violations(
    conn: psycopg.Connection, *, action: str | None = None, since: timedelta | None = None
) -> list[Violation]:
    """Return what broke contracts, the most frequent first.

    Args:
        conn: acts as a worker or an inspector.
        action: only of this one.
        since: only within this time, by whole hours.
    """
    with conn.cursor(row_factory=class_row(Violation)) as cursor:
        return cursor.execute(
            """
            SELECT action, version, rule, refused, sum(events)::bigint AS events, min(event_id) AS event_id,
                   min(first_at) AS first_at, max(last_at) AS last_at
            FROM refold.violations
            WHERE (%(action)s::text IS NULL OR action = %(action)s)
              AND (%(since)s::interval IS NULL OR hour >= date_trunc('hour', now() - %(since)s::interval))
            GROUP BY action, version, rule, refused
            ORDER BY 5 DESC, 1, 2, 3
            """,
            {"action": action, "since": since},
        ).fetchall()


def uncovered(one: Seen, contract: Registered) -> list[str]:
    """Return the fields of events that their contract does not name. Pure."""
    named = contract.schema.get("properties", {})
    return [name for name in one.names if name not in named]
