"""The health of all metrics at one moment: one statement for all builds, which every page of the dashboard shares.

An observer may read all of it: no key, no event, no text of an error.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from refold.inspect.verdict import WORDS, Headline, Known, Word, headline, verdict
from refold.postgres.rows import one_row
from refold.postgres.session import plan_by_index
from refold.postgres.snapshot import snapshot
from refold.store.canaries import SHOWN_NOW


@dataclass(frozen=True, slots=True)
class BuildHealth:
    """One build that is kept up to date.

    Args:
        metric: name of the projection.
        state: `building` or `live`.
        upkeep: kind of upkeep.
        reads: stream that it reads: `events` or a projection.
        loaded: whether its first load is complete.
        load_step: steps of it that are done.
        load_steps: number of steps, if known.
        unread: events of the log that it has not applied; an estimate beyond a hundred; None during the first load.
        unread_exact: whether they were counted.
        lag_s: age of the oldest of them, seconds; None during the first load.
        events_applied: events applied since it was created.
        applied_at: when it applied events last, UTC.
        waiting_letters: events that wait as dead letters.
        left_out: events that it leaves out: dead letters that wait or were dropped.
        failing: class of the error that stops it; None without an error.
        proved_at: latest instant at which it, with all that it reads, was as it must be, UTC; None: not proved.
        proved_s: age of that instant, seconds.
        deep_proved_at: the same by deep audits alone, UTC.
        right_since: when its rows were last healed, or since it was built, UTC.
        drift: rows that differ are known, and are not healed.
        hidden: analysts read something else under its name.
        damaged: the log is damaged, or the cursors belong to another cluster.
        promotes: whether it goes live automatically when it has caught up.
        refused: whether its deployment was given up.
        canary: percent of readers who see the candidate of the metric, of a canary that runs; of builds that are not
            live, None but for the candidate.
        lag_limit_s: seconds that a live metric may be behind.
    """

    build_id: int
    metric: str
    table: str
    state: str
    upkeep: str
    reads: str
    loaded: bool
    load_step: int
    load_steps: int | None
    unread: int | None
    unread_exact: bool | None
    lag_s: float | None
    events_applied: int
    applied_at: datetime | None
    waiting_letters: int
    left_out: int
    failing: str | None
    proved_at: datetime | None
    proved_s: float | None
    deep_proved_at: datetime | None
    right_since: datetime
    drift: bool
    hidden: bool
    damaged: bool
    promotes: bool
    refused: bool
    canary: int | None
    lag_limit_s: float

    @property
    def waits(self) -> bool:
        """Return whether it is complete, and does not go live by itself."""
        return self.state == "building" and self.loaded and self.failing is None and not self.promotes

    @property
    def word(self) -> Word:
        """Return the verdict."""
        return verdict(
            Known(
                damaged=self.damaged,
                drift=self.drift,
                hidden=self.hidden,
                proved_s=self.proved_s,
                left_out=self.left_out,
                lag_s=self.lag_s,
                lag_limit_s=self.lag_limit_s,
            )
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the health as a dict for JSON."""
        return asdict(self) | {"verdict": self.word}


@dataclass(frozen=True, slots=True)
class Health:
    """The database at one moment.

    Args:
        at: time of the database, UTC.
        database: its name.
        builds: builds that are kept up to date, by metric.
        events: number of events in the log; beyond a few thousand an estimate.
        last_minute: events of the last minute.
        duplicates: duplicates that were refused within 24 hours.
        rejected: records that were rejected within 24 hours, at most 10,000.
        workers: sessions of workers.
        duties_s: seconds since a worker last started a duty; None: none ever did.
        pressure: level of back-pressure: 0 fine, 1 bulk waits, 2 producers are refused.
        open_incidents: incidents that are open.
        troubled_sinks: sinks that are paused or stopped, or whose receiver fails.
    """

    at: datetime
    database: str
    events: int
    last_minute: int
    duplicates: int
    rejected: int
    workers: int
    duties_s: float | None
    pressure: int
    open_incidents: int
    troubled_sinks: int
    builds: tuple[BuildHealth, ...] = ()

    @property
    def live(self) -> list[BuildHealth]:
        """Return the builds that analysts read, worst first."""
        live = [one for one in self.builds if one.state == "live"]
        return sorted(live, key=lambda one: (WORDS.index(one.word), one.metric))

    @property
    def building(self) -> list[BuildHealth]:
        """Return the builds that are on their way to be live."""
        return [one for one in self.builds if one.state == "building"]

    @property
    def waiting_letters(self) -> int:
        """Return the number of events that wait as dead letters."""
        return sum(one.waiting_letters for one in self.builds)

    @property
    def headline(self) -> Headline:
        """Return what may be said of all metrics."""
        live = [one for one in self.builds if one.state == "live"]
        return headline([one.word for one in live], sum(one.left_out for one in live))

    def metric(self, name: str) -> BuildHealth | None:
        """Return the live build of a metric."""
        return next((one for one in self.builds if one.metric == name and one.state == "live"), None)


_BUILDS = f"""
WITH canary AS MATERIALIZED ({SHOWN_NOW}), open AS MATERIALIZED (
    SELECT kind, subject FROM refold.incidents
    WHERE kind IN ('drift', 'hidden', 'log_damage', 'foreign_cluster') AND resolved_at IS NULL
), damage AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM open WHERE kind IN ('log_damage', 'foreign_cluster')) AS damaged
)
SELECT b.build_id, b.projection AS metric, b.table_name AS table, b.state, b.upkeep,
       coalesce(u.projection, 'events') AS reads, b.loaded, b.load_step, b.load_steps, unread.events AS unread,
       unread.exact AS unread_exact,
       CASE WHEN b.loaded THEN
           greatest(coalesce(extract(epoch FROM clock_timestamp() - least(unread.oldest, r.at)), 0), 0)::float8
       END AS lag_s,
       b.events_applied, b.applied_at, b.waiting_letters, b.dead_letters AS left_out, b.failing, proof.proved_at,
       -- greatest() of NULL and 0 is 0: who is not proved would be proved just now.
       CASE WHEN proof.proved_at IS NOT NULL THEN
           greatest(extract(epoch FROM clock_timestamp() - proof.proved_at), 0)::float8
       END AS proved_s,
       proof.deep_proved_at,
       greatest(b.created_at, h.at) AS right_since,
       EXISTS (SELECT FROM open AS o WHERE o.kind = 'drift' AND o.subject = b.projection) AS drift,
       b.state = 'live' AND EXISTS (SELECT FROM open AS o WHERE o.kind = 'hidden' AND o.subject = b.projection)
           AS hidden,
       damage.damaged, d.promote AND d.given_up_at IS NULL AS promotes, d.given_up_at IS NOT NULL AS refused,
       canary.percent AS canary, s.lag_limit::float8 AS lag_limit_s
FROM refold.builds_now AS b
JOIN refold.deployments AS d USING (deployment)
CROSS JOIN refold.settings AS s
CROSS JOIN damage
CROSS JOIN (SELECT refold.replayed_at() AS at) AS r
LEFT JOIN refold.builds AS u ON u.build_id = b.upstream_id
LEFT JOIN canary ON canary.projection = b.projection AND (b.state = 'live' OR canary.build_id = b.build_id)
LEFT JOIN refold.unread_now() AS unread ON unread.build_id = b.build_id
LEFT JOIN refold.proofs_now AS proof ON proof.build_id = b.build_id
LEFT JOIN LATERAL (
    SELECT max(n.repaired_at) AS at FROM refold.repairs AS n WHERE n.build_id = b.build_id
) AS h ON true
WHERE b.state IN ('building', 'live')
ORDER BY b.projection, b.build_id
"""

# A duty's start in the future was written by a clock that was ahead: it says nothing.
_REST = """
SELECT clock_timestamp() AS at, current_database()::text AS database,
       (SELECT l.events FROM refold.log_size(5000) AS l) AS events,
       (SELECT n.events FROM refold.recorded_since(clock_timestamp() - interval '1 minute') AS n) AS last_minute,
       (SELECT coalesce(sum(d.events), 0)::bigint FROM refold.duplicates AS d
        WHERE d.at >= clock_timestamp() - interval '24 hours') AS duplicates,
       (SELECT count(*) FROM (SELECT FROM unnest('{conflict,invalid}'::text[]) AS a (answer)
            CROSS JOIN LATERAL (SELECT FROM refold.rejected AS r WHERE r.answer = a.answer
                AND r.last_seen >= clock_timestamp() - interval '24 hours' LIMIT 10000) AS n LIMIT 10000) AS c)
           AS rejected,
       (SELECT count(*)::integer FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'refold worker') AS workers,
       (SELECT extract(epoch FROM clock_timestamp() - max(d.started_at))::float8 FROM refold.duties AS d
        WHERE d.started_at <= clock_timestamp()) AS duties_s,
       (SELECT coalesce(max(level), 0)::integer FROM refold.pressure) AS pressure,
       (SELECT count(*)::integer FROM refold.incidents WHERE resolved_at IS NULL) AS open_incidents,
       (SELECT count(*)::integer FROM refold.sinks_now WHERE condition <> 'active' OR failures > 0) AS troubled_sinks
"""


def read(conn: psycopg.Connection) -> Health:
    """Read the health of the database in one snapshot, without a lock that blocks another session.

    Args:
        conn: may act as refold_observer, in autocommit mode.
    """
    with snapshot(conn):
        plan_by_index(conn)
        with conn.cursor(row_factory=class_row(BuildHealth)) as cursor:
            builds = tuple(cursor.execute(_BUILDS.encode()).fetchall())
        rest = one_row(conn, _REST.encode(), row=class_row(Health))
    return replace(rest, builds=builds)
