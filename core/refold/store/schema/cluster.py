"""The cluster that the log's and cursors' transaction ids belong to, and whether it is this one.

Transaction ids are a cluster's own. After a restore into another one they have started again, and a cursor that is
taken at its word skips every event whose transaction gets a number that it calls done.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

REWRITE_IN_PROGRESS = 0
"""System identifier in the settings while a recovery rewrites transaction ids; no cluster has it."""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The stored transaction ids beside those of this cluster, all at one instant.

    Args:
        recorded: system identifier of the cluster that the stored transaction ids belong to.
        actual: system identifier of this cluster.
        oldest: every transaction below it has ended.
        next: every transaction from it on has not ended.
        log: greatest txid in the log; 0 if the log is empty.
        cursors: upper bound of all txids that a cursor calls done or targets; 0 without cursors.
        rehashed: whether this server's hash functions differ from those of the stored hashes.
    """

    recorded: int
    actual: int
    oldest: int
    next: int
    log: int
    cursors: int
    rehashed: bool

    @property
    def foreign(self) -> bool:
        """Return whether the transaction ids belong to another cluster, or are being rewritten."""
        return self.recorded != self.actual

    @property
    def future(self) -> bool:
        """Return whether log or cursors name transactions that this cluster has not had.

        Never in the cluster that made them: a committed row's txid is below the end of any snapshot that shows the
        row, and a cursor goes no further than its own transaction's id (see `Snapshot.capped`).
        """
        return self.log >= self.next or self.cursors > self.next

    def why(self) -> str | None:
        """Return why the cursors cannot be used here, as a sentence; None if they can."""
        if self.recorded == REWRITE_IN_PROGRESS:
            return "a `refold recover` of this database was started but not completed"
        if self.foreign:
            return (
                f"this database was restored from another cluster (cursors belong to {self.recorded}, this cluster is "
                f"{self.actual}). Applying events now could skip some"
            )
        if self.future:
            what = "the log has events" if self.log >= self.next else "cursors include transaction ids"
            of = "of transactions " if self.log >= self.next else ""
            return (
                f"{what} {of}up to {max(self.log, self.cursors - 1)}, but this cluster has only reached {self.next} "
                "(a partial restore, or pg_resetwal). Applying events now could skip some"
            )
        if self.rehashed:
            return (
                "this server's hash functions differ from those of the stored hashes: every duplicate event would be a "
                "conflict, and every slice would differ"
            )
        return None


_LOOK = """
SELECT s.system_identifier AS recorded,
       c.system_identifier AS actual,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next,
       coalesce(refold.last_txid()::text::bigint, 0) AS log,
       coalesce((
           SELECT max(greatest(pg_snapshot_xmax(done), pg_snapshot_xmax(target))::text::bigint)
           FROM refold.builds_now WHERE state <> 'dropped'
       ), 0) AS cursors,
       coalesce(s.hash_probe <> refold.hash_probe(), false) AS rehashed
FROM refold.settings AS s, pg_control_system() AS c
"""


def inspect_cluster(conn: psycopg.Connection) -> ClusterState | None:
    """Read the state of the cluster; None if refold's settings are missing.

    Args:
        conn: acts as refold_worker or refold_owner.
    """
    with conn.cursor(row_factory=class_row(ClusterState)) as cursor:
        return cursor.execute(_LOOK).fetchone()
