"""What has to be done about the coordinates after a restore. Pure.

Every way ends in the same two facts, and from these the law follows, whatever was restored:

1. The audit has shown that each table equals its query over the events that its cursor calls applied.
2. Every cursor's bound (`xmax` of done and target) is at most the oldest transaction that was open when the cursors
   stood still. What commits afterwards has a greater txid, so no cursor calls it done: it is unread until it is read.

`adopt` finds the second as it is, `rewrite` makes it so. Neither trusts where an event came from: one that a producer
appended between the restore and the recovery, under a txid that an old cursor calls done, differs in the audit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from refold.store.builds.build import Build
from refold.store.schema.cluster import REWRITE_IN_PROGRESS, ClusterState

Strategy = Literal["prove", "adopt", "rewrite", "wait"]
"""prove: the coordinates are sound, only audit. adopt: they keep their meaning here. rewrite: transaction ids have
started again. wait: an old transaction of this cluster is still open, and may yet append under a txid that a cursor
calls done."""

BuildOutcome = Literal["audited", "loaded again", "lost", "dropped"]


@dataclass(frozen=True, slots=True)
class Decision:
    """Which way, and why, as a sentence."""

    strategy: Strategy
    because: str


def decide(found: ClusterState) -> Decision:
    """Which way leads from these cluster."""
    if found.recorded == REWRITE_IN_PROGRESS:
        return Decision("rewrite", "a recovery that rewrites the coordinates was begun and is completed")
    if found.future:
        return Decision(
            "rewrite",
            f"transaction ids started again: coordinates go up to {max(found.log, found.cursors - 1)}, this cluster "
            f"has come to {found.next}",
        )
    if not found.foreign:
        because = ", but kept hashes are those of other hash functions" if found.rehashed else ""
        return Decision("prove", f"the coordinates are this cluster's own{because}")
    if found.cursors > found.oldest:
        return Decision(
            "wait",
            f"transaction {found.oldest} of this cluster is open, and cursors go up to {found.cursors - 1}",
        )
    return Decision(
        "adopt",
        f"every transaction below {found.oldest} is over here, and no cursor goes beyond: the coordinates keep "
        "their meaning (as after pg_upgrade)",
    )


def outcomes(builds: Iterable[Build], tables: Collection[str], strategy: Strategy) -> dict[int, BuildOutcome]:
    """What becomes of each build that is not dropped already.

    Args:
        builds: the builds, at least all that are kept or retired, upstream first.
        tables: the names of the tables that there are in refold_builds.
        strategy: retired builds are nobody's to audit, so where cursors have lost their meaning or their cluster, there
            is no going back to them; and a first load is begun again.
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
