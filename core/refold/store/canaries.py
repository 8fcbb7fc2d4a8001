"""Canaries: candidates that some readers see before all do; rows of `refold.canaries` and `refold.canary_builds`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from refold.postgres.rows import one_row

State = Literal["running", "held", "promoted", "aborted", "superseded"]
Ended = Literal["promoted", "aborted", "superseded"]


@dataclass(frozen=True, slots=True)
class CanaryBuild:
    """A candidate of a canary.

    Args:
        projection: its metric.
        build_id: the candidate.
        exposed: whether `metrics.NAME` shows it to some readers; otherwise only `metrics_canary.NAME` does.
        shown: whether these views exist.
        dead_letters: events that it left out when the canary began.
        marks: events and milliseconds of candidate and live build at the last checks.
    """

    canary_id: int
    projection: str
    build_id: int
    exposed: bool
    shown: bool
    dead_letters: int
    marks: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Canary:
    """A row of `refold.canaries`, with its candidates.

    Args:
        steps: percent of readers, step by step.
        step: number of the step, from 1.
        soak: least time at each step.
        expect: which differences are expected.
        because: why it is held, waits, or has ended; None for an observer.
        stepped_at: when this step began.
        at_most: percent of readers that no step may exceed.
        limited_at: when this limit was set.
    """

    canary_id: int
    started_by: str
    started_at: datetime
    steps: list[int]
    step: int
    soak: timedelta
    expect: list[str]
    state: State
    because: str | None
    stepped_at: datetime
    checked_at: datetime | None
    ended_at: datetime | None
    at_most: int
    limited_at: datetime | None
    builds: tuple[CanaryBuild, ...] = ()

    @property
    def percent(self) -> int:
        """Return the percentage of readers who see the candidates that are exposed."""
        return min(self.steps[self.step - 1], self.at_most)

    @property
    def apart(self) -> list[str]:
        """Return the metrics whose candidates only `metrics_canary` shows."""
        return [one.projection for one in self.builds if not one.exposed]

    @property
    def exposed(self) -> bool:
        """Return whether `metrics.NAME` shows any of the candidates."""
        return any(one.exposed for one in self.builds)

    @property
    def readers(self) -> str:
        """Return in words which readers see the candidates that are exposed."""
        return f"{self.percent} % of readers" if self.exposed else "no reader"

    @property
    def since(self) -> datetime:
        """Return since when so many readers have seen them."""
        return self.stepped_at if self.limited_at is None else max(self.stepped_at, self.limited_at)

    @property
    def names(self) -> list[str]:
        """Return the metrics."""
        return [one.projection for one in self.builds]

    def as_dict(self) -> dict[str, Any]:
        """Return the canary as a dict for JSON."""
        return {
            "canary": self.canary_id,
            "metrics": [
                {"metric": one.projection, "build": one.build_id, "exposed": one.exposed} for one in self.builds
            ],
            "state": self.state,
            "because": self.because,
            "percent": self.percent,
            "step": self.step,
            "steps": self.steps,
            "at_most": self.at_most,
            "soak_s": self.soak.total_seconds(),
            "expect": self.expect,
            "started_by": self.started_by,
            "started_at": self.started_at,
            "stepped_at": self.stepped_at,
            "checked_at": self.checked_at,
            "ended_at": self.ended_at,
        }


SHOWN_NOW = """
SELECT s.projection, s.build_id, CASE WHEN s.exposed THEN least(c.steps[c.step], c.at_most) ELSE 0 END AS percent
FROM refold.canary_builds AS s
JOIN refold.canaries AS c USING (canary_id)
JOIN refold.builds AS o USING (build_id)
WHERE c.ended_at IS NULL AND o.state = 'building'
"""
"""The candidates of open canaries, with the percentage of readers who see each by `metrics.NAME`."""

_BUILD = "canary_id, projection, build_id, exposed, shown, dead_letters, marks"


def find(conn: psycopg.Connection, condition: str = "true", *parameters: object) -> list[Canary]:
    """Return the canaries that satisfy an SQL condition over `c` (a row of refold.canaries), oldest first."""
    # A reason that a person gave may name an event or a user, which an observer must not see.
    (told,) = one_row(conn, "SELECT has_column_privilege('refold.canaries', 'because', 'SELECT')")
    because = "because" if told else "NULL AS because"
    with conn.cursor(row_factory=class_row(Canary)) as cursor:
        found = cursor.execute(
            f"SELECT canary_id, started_by, started_at, steps, step, soak, expect, state, {because}, stepped_at,"
            f" checked_at, ended_at, at_most, limited_at FROM refold.canaries AS c WHERE {condition}"
            " ORDER BY canary_id".encode(),
            parameters,
        ).fetchall()
    with conn.cursor(row_factory=class_row(CanaryBuild)) as builds:
        rows = builds.execute(
            f"SELECT {_BUILD} FROM refold.canary_builds WHERE canary_id = ANY (%s) ORDER BY build_id".encode(),
            ([one.canary_id for one in found],),
        ).fetchall()
    return [replace(one, builds=tuple(row for row in rows if row.canary_id == one.canary_id)) for one in found]


def off(conn: psycopg.Connection) -> None:
    """Let this transaction read the live builds, whoever asks and whatever the session has set."""
    conn.execute("SET LOCAL refold.canary = 'off'")


def open_canaries(conn: psycopg.Connection) -> list[Canary]:
    """Return the canaries that have not ended."""
    return find(conn, "c.ended_at IS NULL")


def of(conn: psycopg.Connection, projection: str) -> Canary | None:
    """Return the open canary of a metric, if there is one."""
    return next((one for one in open_canaries(conn) if projection in one.names), None)


def latest(conn: psycopg.Connection, limit: int) -> list[Canary]:
    """Return the open canaries, and the last ones that ended."""
    return find(
        conn,
        "c.ended_at IS NULL OR c.canary_id IN"
        " (SELECT canary_id FROM refold.canaries WHERE ended_at IS NOT NULL ORDER BY canary_id DESC LIMIT %s)",
        limit,
    )


def add(conn: psycopg.Connection, steps: Sequence[int], soak: timedelta, expect: Sequence[str]) -> int:
    """Insert a canary and return its number."""
    row = one_row(
        conn,
        "INSERT INTO refold.canaries (steps, soak, expect) VALUES (%s, %s, %s) RETURNING canary_id",
        (list(steps), soak, list(expect)),
    )
    return int(row[0])


def add_build(
    conn: psycopg.Connection, canary_id: int, projection: str, build_id: int, *, exposed: bool, dead_letters: int
) -> None:
    """Add a candidate to a canary, in the transaction that makes its views."""
    conn.execute(
        "INSERT INTO refold.canary_builds (canary_id, projection, build_id, exposed, dead_letters)"
        " VALUES (%s, %s, %s, %s, %s)",
        (canary_id, projection, build_id, exposed, dead_letters),
    )


def shown(conn: psycopg.Connection, projection: str | None = None) -> list[CanaryBuild]:
    """Return the candidates that have views, of one metric or of all."""
    with conn.cursor(row_factory=class_row(CanaryBuild)) as cursor:
        return cursor.execute(
            f"SELECT {_BUILD} FROM refold.canary_builds"
            " WHERE shown AND (%(name)s::text IS NULL OR projection = %(name)s) ORDER BY build_id".encode(),
            {"name": projection},
        ).fetchall()


def hidden(conn: psycopg.Connection, projection: str) -> None:
    """Record that a candidate has no views any more, in the transaction that drops them."""
    conn.execute("UPDATE refold.canary_builds SET shown = false WHERE projection = %s AND shown", (projection,))


def take_step(conn: psycopg.Connection, canary: Canary) -> None:
    """Move a running canary to its next step."""
    conn.execute(
        "UPDATE refold.canaries SET step = step + 1, stepped_at = clock_timestamp(), because = NULL"
        " WHERE canary_id = %s AND step = %s AND state = 'running'",
        (canary.canary_id, canary.step),
    )


def hold(conn: psycopg.Connection, canary: Canary, because: str) -> None:
    """Keep a canary at its step."""
    conn.execute(
        "UPDATE refold.canaries SET state = 'held', because = %s WHERE canary_id = %s AND ended_at IS NULL",
        (because, canary.canary_id),
    )


def limit(conn: psycopg.Connection, canary: Canary, at_most: int) -> None:
    """Let no more than this percentage of readers see an open canary, from now on and at any step."""
    conn.execute(
        "UPDATE refold.canaries SET at_most = %(at_most)s, limited_at = clock_timestamp()"
        " WHERE canary_id = %(canary)s AND ended_at IS NULL AND at_most <> %(at_most)s",
        {"canary": canary.canary_id, "at_most": at_most},
    )


def resume(conn: psycopg.Connection, canary: Canary) -> None:
    """Let a held canary go on; its step begins again."""
    conn.execute(
        "UPDATE refold.canaries SET state = 'running', because = NULL, stepped_at = clock_timestamp()"
        " WHERE canary_id = %s AND state = 'held'",
        (canary.canary_id,),
    )


def check(
    conn: psycopg.Connection,
    canary: Canary,
    because: str | None,
    verdicts: Mapping[str, Any],
    marks: Mapping[str, list[dict[str, Any]]],
) -> None:
    """Record what a check of the rules found.

    Args:
        conn: acts as refold_worker.
        canary: the canary.
        because: why it waits.
        verdicts: the findings by metric.
        marks: events and milliseconds at the last checks, by metric.
    """
    conn.execute(
        "UPDATE refold.canaries SET checked_at = clock_timestamp(),"
        " because = CASE WHEN state = 'running' THEN %s ELSE because END"
        " WHERE canary_id = %s AND ended_at IS NULL",
        (because, canary.canary_id),
    )
    for name, verdict in verdicts.items():
        conn.execute(
            "UPDATE refold.canary_builds SET verdict = %s, marks = %s WHERE canary_id = %s AND projection = %s",
            (Jsonb(verdict), Jsonb(marks.get(name, [])), canary.canary_id, name),
        )


def end(conn: psycopg.Connection, canary_id: int, state: Ended, because: str | None = None) -> bool:
    """End an open canary: from then on every reader sees the live builds; return whether it was open."""
    return (
        conn.execute(
            "UPDATE refold.canaries SET state = %s, because = %s, ended_at = clock_timestamp()"
            " WHERE canary_id = %s AND ended_at IS NULL",
            (state, because, canary_id),
        ).rowcount
        == 1
    )


def rename(conn: psycopg.Connection, old: str, new: str) -> None:
    """Let the canaries of a metric have its new name."""
    conn.execute("UPDATE refold.canary_builds SET projection = %s WHERE projection = %s", (new, old))


def verdicts(conn: psycopg.Connection, canary_id: int) -> dict[str, Any]:
    """Return what the last check found, by metric.

    Args:
        conn: acts as one of `EVIDENCE`.
        canary_id: the canary.
    """
    rows = conn.execute(
        "SELECT projection, verdict FROM refold.canary_builds WHERE canary_id = %s", (canary_id,)
    ).fetchall()
    return {str(name): verdict for name, verdict in rows}
