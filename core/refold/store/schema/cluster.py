"""Which cluster the coordinates in a database speak of, and whether they mean anything here.

Transaction ids are a cluster's own. After a restore into another one they have started again, and a cursor that is
taken at its word skips every event whose transaction gets a number that it calls done.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

REWRITE_IN_PROGRESS = 0
"""What the settings have for a system identifier while coordinates are rewritten: no cluster's."""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """Where the coordinates stand beside the transactions of this cluster, all at one instant.

    Args:
        recorded: the system identifier that the coordinates belong to.
        actual: that of this cluster.
        oldest: every transaction below it is over.
        next: no transaction from it on has been seen to end.
        log: the greatest txid in the log; 0 when it is empty.
        cursors: below it are all the txids that any cursor calls done, or goes towards; 0 without cursors.
        rehashed: this server's hash functions are others than those of the hashes that are kept.
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
        """Whether the coordinates are another cluster's, or are being rewritten."""
        return self.recorded != self.actual

    @property
    def future(self) -> bool:
        """Whether they name transactions that this cluster has not had.

        Never in the cluster that made them: a committed row's txid is below the end of any snapshot that shows the
        row, and a cursor goes no further than its own transaction's id (see `Snapshot.capped`).
        """
        return self.log >= self.next or self.cursors > self.next

    def why(self) -> str | None:
        """What is wrong with them here, as a sentence; None when they can be believed."""
        if self.recorded == REWRITE_IN_PROGRESS:
            return "a `refold recover` of this database was begun and has not come to its end"
        if self.foreign:
            return (
                f"this database was restored from another cluster: its cursors speak of {self.recorded}, this is "
                f"{self.actual}, and a cursor of another cluster's transactions would skip events"
            )
        if self.future:
            what = "the log holds events" if self.log >= self.next else "cursors speak"
            return (
                f"{what} of transactions up to {max(self.log, self.cursors - 1)}, but this cluster has only come to "
                f"{self.next}: after a partial restore or pg_resetwal, a cursor would skip what comes in between"
            )
        if self.rehashed:
            return (
                "this server's hash functions are others than those of the hashes that are kept here: every repeated "
                "event would be a conflict, and every slice would differ"
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
    """Looks where the coordinates stand; None when refold's settings are missing.

    Args:
        conn: acts as refold_worker or refold_owner.
    """
    with conn.cursor(row_factory=class_row(ClusterState)) as cursor:
        return cursor.execute(_LOOK).fetchone()
