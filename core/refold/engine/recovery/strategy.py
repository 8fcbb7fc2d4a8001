"""The strategy of a recovery: what it does about the coordinates after a restore. Pure.

Each strategy establishes the same two facts, from which the one law follows:

1. The audit has shown that each table equals its query over the events that its cursor calls applied.
2. Every cursor's bound (`xmax` of done and target) is at most the oldest transaction that was open while the cursors
   did not move. A transaction that commits later has a greater txid, so no cursor calls its events done.

`adopt` finds the second fact as it is, and `rewrite` establishes it. Neither depends on the origin of an event: a
producer may have appended one after the restore, under a txid that an old cursor calls done. The audit finds it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from refold.store.builds.build import Build
from refold.store.schema.cluster import REWRITE_IN_PROGRESS, ClusterState

Strategy = Literal["prove", "adopt", "rewrite", "wait"]
"""prove: the coordinates are valid, only audit. adopt: they stay valid in this cluster. rewrite: transaction ids have
started again. wait: an old transaction of this cluster is still open, and could append under a txid that a cursor
calls done."""

BuildOutcome = Literal["audited", "loaded again", "lost", "dropped"]


@dataclass(frozen=True, slots=True)
class Decision:
    """The strategy of a recovery, with the reason in words."""

    strategy: Strategy
    because: str


def decide(found: ClusterState) -> Decision:
    """Return the strategy for the state of a cluster."""
    if found.recorded == REWRITE_IN_PROGRESS:
        return Decision(
            "rewrite", "an earlier recovery has begun to rewrite the coordinates, and this one completes it"
        )
    if found.future:
        return Decision(
            "rewrite",
            f"transaction ids started again: coordinates go up to {max(found.log, found.cursors - 1)}, but this "
            f"cluster has only reached {found.next}",
        )
    if not found.foreign:
        because = ", but stored hashes are those of other hash functions" if found.rehashed else ""
        return Decision("prove", f"the coordinates belong to this cluster{because}")
    if found.cursors > found.oldest:
        return Decision(
            "wait",
            f"transaction {found.oldest} of this cluster is open, and cursors go up to {found.cursors - 1}",
        )
    return Decision(
        "adopt",
        f"every transaction below {found.oldest} has ended in this cluster, and no cursor goes beyond: the coordinates "
        "stay valid (as after pg_upgrade)",
    )


def outcomes(builds: Iterable[Build], tables: Collection[str], strategy: Strategy) -> dict[int, BuildOutcome]:
    """Return the outcome of a recovery for each build that is not dropped, by id.

    Args:
        builds: the builds, at least all that are kept or retired, upstream first.
        tables: the names of the tables in refold_builds.
        strategy: retired builds are not audited, so every strategy but `prove` drops them.
    """
    found: dict[int, BuildOutcome] = {}
    for build in builds:
        if build.state == "retired":
            if strategy != "prove":
                found[build.build_id] = "dropped"
        elif build.state != "dropped":
            orphaned = build.upstream_id is not None and found.get(build.upstream_id, "dropped") in ("lost", "dropped")
            if build.table_name not in tables or orphaned:
                found[build.build_id] = "lost"
            elif not build.loaded:
                found[build.build_id] = "loaded again"
            else:
                found[build.build_id] = "audited"
    return found
