"""What `refold reconcile --sinks` does and says about receivers."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from refold.cli.output import line, note, table
from refold.errors import RefoldError
from refold.prose import counted

if TYPE_CHECKING:
    from refold.sinks.audit import SinkAudit


def sink_audits(
    conn: psycopg.Connection, projections: Path, metrics: Collection[str], *, dry_run: bool
) -> list[SinkAudit]:
    """Compare the receivers of some metrics with them, and deliver again what differs.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        projections: the folder of transforms.
        metrics: names of the metrics.
        dry_run: deliver nothing again.
    """
    from refold.sinks.audit import SinkAudit, audit
    from refold.sinks.deliver import Deliverer
    from refold.store import sinks
    from refold.store.builds.compiled import Compiler

    deliverer = Deliverer(conn, Compiler(projections), f"reconcile:{secrets.token_hex(4)}")
    found = []
    try:
        for sink in sinks.every(conn):
            if sink.projection not in metrics:
                continue
            try:
                outcome = audit(conn, deliverer, sink, dry_run=dry_run)
            except RefoldError as error:
                outcome = SinkAudit(sink.name, sink.projection, skipped=str(error))
            found.append(outcome)
            if outcome.wrong and not dry_run:
                while deliverer.turn(sink):
                    pass
    finally:
        deliverer.release()
    return found


def show_sink_audits(found: Sequence[SinkAudit], *, dry_run: bool) -> None:
    """Print the outcome of each audit."""
    for one in found:
        if one.skipped is not None:
            note(f"the receiver of {one.sink} was not compared: {one.skipped}")
        elif not one.wrong:
            left = f", {counted(one.waiting, 'slice')} still to be delivered" if one.waiting else ""
            line(f"{one.sink}: the receiver has what {one.projection} says ({counted(one.slices, 'slice')}{left})")
    wrong = [(one.sink, name, here, there) for one in found for name, here, there in one.wrong]
    if wrong:
        table(("SINK", "SLICE", "ROWS", "AT THE RECEIVER"), wrong, right=("ROWS", "AT THE RECEIVER"))
        line("not delivered again (--dry-run)" if dry_run else "delivered again")
