"""The log lets segments go while it grows: killed at every point, and with a file of which nothing was proved."""

from __future__ import annotations

import json
from typing import Any

from chaos import archived, skipped
from chaos.faults.archive import insist, make_due, run_archive
from chaos.faults.injection import Injected, operate, watch
from chaos.stage import PAUSED, Finished, Stage

TRIES = 6
"""Times that a purge is asked for before it is given up: it waits for builds that are loaded, and for sinks."""
WAITS_S = 5.0
"""Seconds between two of them."""


def purged(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """The lowest segment leaves the log, and a definition changes that reads it from the archive. Then the next one.

    No purge may let a segment go while a paused sink has not delivered it, until somebody lets go of its rows; nor
    while nothing is proved of its file, about which the store lies. The first segment of a campaign goes without
    hindrance, as the sink has delivered it, and without hurry, even if the load ends: what comes after it has to do
    with a log that does not begin at its beginning.
    """
    told = _first(stage, done, how["thaw_at"])
    if not stage.hurries:
        told += f"; {_second(stage, how, done)}"
    operate(stage, done, "sinks", "resume", PAUSED)
    done.note = told


def _first(stage: Stage, done: Injected, thaw_at: str) -> str:
    """Purges the lowest segment, and deploys what reads it again; answers what happened, in words."""
    lowest = lowest_of(stage)
    if lowest is None:
        return "nothing is sealed"
    let_go = _let_go(stage, done, lowest[0])
    told = let_go + _until_gone(stage, done, lowest)
    if not gone(stage, lowest[0]) or stage.over.is_set():
        return told
    # Not the one that is live: it has to read what has left the log.
    shown = stage.ask(lambda conn: conn.execute("SELECT * FROM metrics.changing LIMIT 0").description) or ()
    stage.set_variant("by_action" if "month" in {column.name for column in shown} else "by_month")
    operate(stage, done, "deploy", at=thaw_at)
    return f"{told}, deploy → {operate(stage, done, 'deploy').status}"


def _second(stage: Stage, how: dict[str, Any], done: Injected) -> str:
    """Purges the lowest segment, killed on the way, and not before its file is proved; answers what happened."""
    lowest = lowest_of(stage)
    if lowest is None:
        return "nothing else is sealed"
    points = how["at"].split(",") if stage.breaking is None else []
    killed = _killed(stage, done, lowest, points[:1])
    let_go = _let_go(stage, done, lowest[0], at=how["skip_at"])
    make_due(stage, done, damage=how["damage"], lowest=True)
    run_archive(stage, done, lie=how["lie"])
    ran = purge(stage, done, lowest[1])
    insist(stage, done, "purged while nothing was proved")
    run_archive(stage, done)
    killed += _killed(stage, done, lowest, points[1:])
    told = f"unproved → {'not asked' if ran is None else ran.status}, killed at {', '.join(killed) or 'no point'}, "
    return let_go + told + _until_gone(stage, done, lowest)


def _until_gone(stage: Stage, done: Injected, lowest: tuple[int, str]) -> str:
    """Asks for a purge until the lowest segment has left the log, or time is over; answers what happened, in words."""
    floor, sealed_at = lowest
    ran = None
    for _ in range(TRIES):
        if gone(stage, floor) or (stage.hurries and stage.purged):
            break
        archive_if_due(stage, done, floor)
        ran = purge(stage, done, sealed_at)
        watch(stage, WAITS_S, lambda _: gone(stage, floor))
    insist(stage, done, "after the last purge")
    if gone(stage, floor):
        stage.purged.append(not stage.over.is_set())
        return "gone under load" if stage.purged[-1] else "gone after the load"
    return "stays" if ran is None else f"stays ({_in_the_way(ran)})"


def archive_if_due(stage: Stage, done: Injected, floor: int) -> None:
    """Lets the lowest segment have a file, if it has none: somebody has damaged it, or erased a person."""
    if all(one.lower != floor for one in stage.ask(archived.verified)):
        run_archive(stage, done)


def purge(stage: Stage, done: Injected, before: str, at: str = "") -> Finished | None:
    """`refold archive purge`, unless a file was damaged of which nobody has noticed it yet; answers what it did."""
    with stage.filing:
        if any(one.location in stage.damaged for one in stage.ask(archived.verified)):
            return None
        options = ("--drop-retired", "--yes", "--json", "--before", before)
        return operate(stage, done, "archive", "purge", *options, at=at)


def _killed(stage: Stage, done: Injected, lowest: tuple[int, str], points: list[str]) -> list[str]:
    """Kills a purge at each of some points; answers at which it was."""
    killed: list[str] = []
    for point in points:
        if stage.hurries or gone(stage, lowest[0]):
            break
        killed.append(point)
        purge(stage, done, lowest[1], at=point)
        insist(stage, done, f"killed at {point}")
    return killed


def _let_go(stage: Stage, done: Injected, floor: int, at: str = "") -> str:
    """Lets go of the rows of the lowest segment that a paused sink has not delivered; answers what happened, in words.

    Nobody may have purged them before.
    """
    waits = stage.ask(lambda conn: skipped.waits(conn, PAUSED, floor))
    rows = set() if waits is None else skipped.undelivered(stage, floor)
    if waits is None or not rows:
        return ""
    if gone(stage, floor):
        done.wrong.append(("I9", f"the segment at {floor} was purged, and the sink {PAUSED} had not delivered it"))
    before = stage.ask(lambda conn: skipped.recorded(conn, PAUSED))
    because = ("--reason", "it keeps the log from a purge")
    options = ("sinks", "skip", PAUSED, "--to", str(waits), "--yes", "--json", *because)
    # From now on a receiver may lack these rows, and no others.
    stage.let_go |= rows
    if at and stage.breaking is None and not stage.hurries:
        operate(stage, done, *options, at=at)
    ran = Finished(-1, "", "")
    for _ in range(TRIES):
        ran = operate(stage, done, *options)
        if ran.status == 0:
            break
        watch(stage, 1.0, lambda _: False)
    told = stage.ask(lambda conn: skipped.recorded(conn, PAUSED)) - before
    # Who is erased with all events is not counted any more.
    fewer = any(one.mode == "delete" for one in stage.asked)
    if ran.status == 0 and (told > len(rows) or (told < len(rows) and not fewer)):
        done.wrong.append(("I9", f"refold sinks skip has recorded {told} rows, and {len(rows)} were not delivered"))
    if ran.status == 0 and (few := skipped.lacks(stage, PAUSED, waits)):
        done.wrong.append(("I9", f"refold sinks skip --to {waits} has let go of {few} rows behind it"))
    return f"skipped {told} of {len(rows)} rows → {ran.status}, "


def _in_the_way(ran: Finished) -> str:
    """What was in the way of a purge, in words."""
    try:
        stopped = json.loads(ran.out)["stopped_at"]
    except (ValueError, KeyError):
        return (ran.err or ran.out).strip()[-200:]
    return "nothing" if stopped is None else "; ".join(one["reason"] for one in stopped["obstacles"])


def lowest_of(stage: Stage) -> tuple[int, str] | None:
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


def gone(stage: Stage, floor: int) -> bool:
    """Whether the segment that began at a position has left the log."""
    return stage.ask(lambda conn: conn.execute("SELECT refold.log_floor() > %s", (floor,)).fetchone()) == (True,)
