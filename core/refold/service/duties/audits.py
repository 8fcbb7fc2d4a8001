"""The audits and the sealing that workers run as duties, over a connection in autocommit mode.

Quick audits are for every minute, steps of the deep audit for as often as there is one due, and sealing for as often
as segments fill up.
"""

from __future__ import annotations

import psycopg

from refold.engine.reconcile import rolling
from refold.engine.reconcile.reconcile import reconcile
from refold.errors import BuildError
from refold.store.builds.compiled import Compiler
from refold.store.log.seal import seal

QUICK = "quick audit"
DEEP = "rolling deep audit"
SEALING = "sealing"


def quick_audit(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Compare all live tables with their stored checksums, and heal the slices that differ.

    Reads all rows of the tables, and of the log only what belongs to those slices. Of a table that takes longer than
    a duty's statement may, it reads a portion at a time. Leaves incidents.

    Raises:
        BuildError: some tables could not be audited; all others were.
    """
    report = reconcile(conn, compiler, depth="slice", by=QUICK, in_portions=True)
    if report.failed:
        reasons = dict(report.skipped)
        raise BuildError("not audited: " + "; ".join(f"{name}: {reasons[name]}" for name in report.failed))


def deep_step(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Recompute the next portion of history when it is due, heal it, and open incidents.

    What was kept while the log was damaged comes first.
    """
    rolling.prove_suspects(conn, compiler, by=DEEP)
    rolling.step(conn, compiler, by=DEEP)


def seal_segments(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Seal the slices that can receive no more events: store their checksums."""
    seal(conn)
