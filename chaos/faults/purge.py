"""The log lets segments go while it grows: killed at every point, and with a file of which nothing was proved."""

from __future__ import annotations

from typing import Any

from chaos import archived
from chaos.faults.archive import insist, make_due, run_archive
from chaos.faults.injection import Injected, operate, watch
from chaos.stage import Stage

TRIES = 6
"""Times that a purge is asked for before it is given up: it waits for builds that are loaded, and for sinks."""
WAITS_S = 5.0
"""Seconds between two of them."""


def purged(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """The lowest segment leaves the log; then a definition changes, and reads it from the archive.

    Before, the store lies about its file: while nothing is proved, no purge may let it go.
    """
    lowest = _lowest(stage)
    if lowest is None:
        done.note = "nothing is sealed"
        return
    floor, sealed_at = lowest
    make_due(stage, done, damage=how["damage"], lowest=True)
    run_archive(stage, done, lie=how["lie"])
    unproved = _purge(stage, done, sealed_at)
    insist(stage, done, "purged while nothing was proved")
    run_archive(stage, done)
    points = []
    for point in how["at"].split(",") if stage.breaking is None else ():
        if stage.hurries or _gone(stage, floor):
            break
        points.append(point)
        _purge(stage, done, sealed_at, at=point)
        insist(stage, done, f"killed at {point}")
    for _ in range(TRIES):
        if stage.hurries or _gone(stage, floor):
            break
        _purge(stage, done, sealed_at)
        watch(stage, WAITS_S, lambda _: stage.hurries or _gone(stage, floor))
    insist(stage, done, "after the last purge")
    gone = _gone(stage, floor)
    told = f"unproved → {unproved}, killed at {', '.join(points) or 'no point'}, gone: {gone}"
    if gone and not stage.over.is_set():
        # Not the one that is live: it has to read what has left the log.
        shown = stage.ask(lambda conn: conn.execute("SELECT * FROM metrics.changing LIMIT 0").description) or ()
        stage.set_variant("by_action" if "month" in {column.name for column in shown} else "by_month")
        operate(stage, done, "deploy", at=how["thaw_at"])
        told += f", deploy → {operate(stage, done, 'deploy').status}"
    done.note = told


def _purge(stage: Stage, done: Injected, before: str, at: str = "") -> int | None:
    """`refold archive purge`, unless a file was damaged of which nobody has noticed it yet; answers its status."""
    with stage.filing:
        if any(one.location in stage.damaged for one in stage.ask(archived.verified)):
            return None
        options = ("--drop-retired", "--yes", "--json", "--before", before)
        return operate(stage, done, "archive", "purge", *options, at=at).status


def _lowest(stage: Stage) -> tuple[int, str] | None:
    """First position of the lowest segment, and the instant before which nothing else was sealed; None: it is not."""
    row = stage.ask(
        lambda conn: conn.execute(
            """
            SELECT g.lower_position AS lower, max(n.sealed_at) + interval '1 us' AS before
            FROM refold.segments AS g
            JOIN refold.sealed_slices AS n
                ON n.slice BETWEEN g.lower_position >> 14 AND (g.upper_position - 1) >> 14
            WHERE g.lower_position = refold.log_floor()
            GROUP BY g.lower_position HAVING bool_and(n.sealed_at IS NOT NULL)
            """
        ).fetchone()
    )
    return None if row is None else (int(row[0]), row[1].isoformat())


def _gone(stage: Stage, floor: int) -> bool:
    return stage.ask(lambda conn: conn.execute("SELECT refold.log_floor() > %s", (floor,)).fetchone()) == (True,)
