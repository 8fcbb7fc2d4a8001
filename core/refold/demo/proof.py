"""Comparison of the metrics with the shop's own count, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from refold.demo.tally import Count, Row, Tally
from refold.postgres.rows import one_row

SHOWN = 3
"""Most differences of a metric that are printed."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """A metric that the shop has counted too.

    Args:
        query: reads the metric.
        shape: turns a row into a key and a value.
        expected: returns the same from the shop's count.
    """

    query: str
    shape: Callable[[Sequence[Any]], tuple[Any, Any]]
    expected: Callable[[Tally], Mapping[Any, Any]]


def _pair(row: Sequence[Any]) -> tuple[Any, Any]:
    return row[0], row[1]


_COUNTED = {
    "active_users": _Counted("SELECT day, users FROM metrics.active_users", _pair, lambda tally: tally.active),
    "enriched_events": _Counted(
        "SELECT event_id, user_id, action, ts FROM metrics.enriched_events",
        lambda row: (row[0], Row(*row[1:])),
        lambda tally: tally.rows,
    ),
    # A user has one segment, so users of different segments are different users.
    "event_counts": _Counted(
        "SELECT day, action, sum(events)::bigint, sum(users)::bigint FROM metrics.event_counts GROUP BY 1, 2",
        lambda row: ((row[0], row[1]), Count(*row[2:])),
        lambda tally: tally.counts,
    ),
    "funnel_stages": _Counted("SELECT user_id, level FROM metrics.funnel_stages", _pair, lambda tally: tally.levels),
    "monthly_active_users": _Counted(
        "SELECT month, users FROM metrics.monthly_active_users", _pair, lambda tally: tally.monthly
    ),
    "user_cohorts": _Counted(
        "SELECT user_id, first_day FROM metrics.user_cohorts", _pair, lambda tally: tally.first_seen
    ),
    "user_weeks": _Counted(
        "SELECT user_id, week FROM metrics.user_weeks",
        lambda row: ((row[0], row[1]), True),
        lambda tally: dict.fromkeys(tally.weeks, True),
    ),
    "weekly_active_users": _Counted(
        "SELECT week, users FROM metrics.weekly_active_users", _pair, lambda tally: tally.weekly
    ),
}


def rows_of(conn: psycopg.Connection, metric: str) -> int:
    """Return the number of rows of a metric."""
    return int(one_row(conn, f"SELECT count(*) FROM metrics.{metric}".encode())[0])


def against_shop(conn: psycopg.Connection, metric: str, tally: Tally) -> list[str]:
    """Return the differences between a metric and the shop's own count, in words.

    Args:
        conn: an analyst's connection.
        metric: one of the starter projections.
        tally: the shop's count.
    """
    counted = _COUNTED[metric]
    found = dict(map(counted.shape, conn.execute(counted.query.encode()).fetchall()))
    expected = counted.expected(tally)
    differing = [key for key in {**expected, **found} if found.get(key) != expected.get(key)]
    told = [f"{metric} {key}: {found.get(key)}, the shop counted {expected.get(key)}" for key in differing[:SHOWN]]
    if len(differing) > SHOWN:
        told.append(f"{metric}: {len(differing) - SHOWN:,} more rows differ")
    return told


def sums(conn: psycopg.Connection) -> tuple[int, int, int]:
    """Return the number of events in the log, in `enriched_events`, and in the sums of `event_counts`.

    Args:
        conn: may read the log and the metrics.
    """
    row = one_row(
        conn,
        """
        SELECT (SELECT count(*) FROM refold.events), (SELECT count(*) FROM metrics.enriched_events),
               (SELECT coalesce(sum(events), 0)::bigint FROM metrics.event_counts)
        """,
    )
    return (int(row[0]), int(row[1]), int(row[2]))


def sums_differ(found: tuple[int, int, int], stored: int) -> list[str]:
    """Return the sums that differ from the number of accepted events, in words."""
    names = ("events in the log", "rows of enriched_events", "events in event_counts")
    return [
        f"{count:,} {name}, but {stored:,} events were accepted"
        for name, count in zip(names, found, strict=True)
        if count != stored
    ]


def rejected_differ(conn: psycopg.Connection, rejected: int) -> list[str]:
    """Return a difference in words if not all conflicts and invalid events are kept.

    Args:
        conn: acts as refold_worker.
        rejected: number of messages that were rejected.
    """
    row = one_row(conn, "SELECT coalesce(sum(times), 0)::bigint FROM refold.rejected")
    return [] if row[0] == rejected else [f"{row[0]:,} messages in refold.rejected, but {rejected:,} were rejected"]
