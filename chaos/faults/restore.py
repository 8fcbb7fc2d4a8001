"""A segment of the log is lost, and comes back from the archive while the log grows and lets others go."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg import sql

from chaos import archived
from chaos.faults.archive import insist
from chaos.faults.injection import DUTY_S, Injected, is_open, operate, watch
from chaos.faults.purge import archive_if_due, gone, lowest_of, purge
from chaos.stage import Finished, Stage

TRIES = 8
"""Times that the command is run to its end."""
LOSSES = {
    "table": "DROP TABLE IF EXISTS {segment}",
    "events": "DELETE FROM {segment}",
    "some": "DELETE FROM {segment} WHERE position % 3 = 0",
    "changed": "UPDATE {segment} SET action = 'forged' WHERE position % 50 = 0",
}
"""What somebody does to it."""


def restored(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """The lowest segment is lost, no purge passes it, and `refold archive restore` is killed while it brings it back.

    It must be then what it was, by a count that refold has no part in. One that was purged is not brought back.
    """
    stage.seal()
    _refuse_purged(stage, done)
    # Whoever purges, or damages a file, would take what nothing else has.
    with stage.filing:
        if (found := lowest_of(stage)) is not None:
            archive_if_due(stage, done, found[0])
        files = [one for one in stage.ask(archived.verified) if found is not None and one.lower == found[0]]
        if found is None or not files or files[0].location in stage.damaged:
            done.note = "no segment has a file"
            return
        name = stage.ask(lambda conn: _name(conn, files[0].lower))
        before = stage.ask(lambda conn: _content(conn, files[0].lower, files[0].upper))
        killed: list[str] = []
        restore = ("archive", "restore", name, "--json")
        try:
            if not watch(stage, DUTY_S, lambda conn: _lose(conn, how["loss"], name)):
                raise RuntimeError(f"{name} could not be lost")
            # Another fault may take the server away from it.
            looked = operate(stage, done, "scrub").status in (0, 1)
            if looked and not stage.ask(lambda conn: is_open(conn, "log_damage", name)):
                done.wrong.append(("I8", f"{name} is lost ({how['loss']}), and refold scrub does not tell"))
            purge(stage, done, found[1])
            if gone(stage, found[0]):
                done.wrong.append(("I15", f"{name} was purged while it was lost"))
            for point in how["at"].split(",") if stage.breaking is None else ():
                killed.append(point)
                operate(stage, done, *restore, at=point)
                insist(stage, done, f"killed at {point}")
        finally:
            # What came in between must not leave it lost.
            ran = _to_the_end(stage, done, restore)
        after = stage.ask(lambda conn: _content(conn, files[0].lower, files[0].upper))
    # An erasure may have changed it meanwhile.
    if after != before and not stage.asked:
        done.wrong.append(("I11", f"{name} was restored ({ran.status}) with {after}, and had {before}"))
    within = DUTY_S if stage.breaking is None else 0.1
    if not watch(stage, within, lambda conn: not is_open(conn, "log_damage", name)):
        done.wrong.append(("I8", f"the incident of {name} is open, though it was restored {within:.0f} s ago"))
    stage.restored += ran.status == 0
    operate(stage, done, "reconcile", "--json")
    told = "not asked"
    if not stage.hurries:
        last = purge(stage, done, found[1])
        told = "busy" if last is None else str(last.status)
    insist(stage, done, "restored, and purged again")
    done.note = (
        f"{name} ({how['loss']}), killed at {', '.join(killed) or 'no point'}; then {ran.status};"
        f" purged again → {told}, gone: {gone(stage, found[0])}"
    )


def _to_the_end(stage: Stage, done: Injected, restore: tuple[str, ...]) -> Finished:
    """Runs the command until it says that it is done."""
    ran = Finished(-1, "", "")
    for _ in range(TRIES):
        try:
            ran = operate(stage, done, *restore)
        except psycopg.Error as error:
            ran = Finished(-1, "", str(error))
        if ran.status == 0:
            return ran
        time.sleep(1)
    done.wrong.append(("I11", f"refold {' '.join(restore)} ended with {ran.status} in the end: {ran.err[-300:]}"))
    return ran


def _refuse_purged(stage: Stage, done: Injected) -> None:
    """What has left the log by a purge is not missing from it."""
    floor = stage.ask(lambda conn: archived.counting(conn, "purged"))
    if not floor:
        return
    name = stage.ask(lambda conn: _name(conn, floor[-1].lower))
    ran = operate(stage, done, "archive", "restore", name)
    if ran.status == 0:
        done.wrong.append(("I15", f"refold archive restore of {name}, which was purged, ended with {ran.status}"))


def _lose(conn: psycopg.Connection, loss: str, name: str) -> bool:
    segment = sql.Identifier(*name.split("."))
    with conn.transaction():
        conn.execute("SET LOCAL lock_timeout = '2s'")
        # The door of whoever restores: nobody checks what is taken out by it.
        conn.execute("SET LOCAL refold.restoring = on")
        conn.execute(sql.SQL(LOSSES[loss]).format(segment=segment))
    return True


def _name(conn: psycopg.Connection, lower: int) -> str:
    """The name of a segment, as the manifest knows it, whether it is in the log or not."""
    row = conn.execute("SELECT format('refold.events_%%s', lpad(%s::text, 15, '0'))", (lower,)).fetchone()
    assert row is not None
    return str(row[0])


def _content(conn: psycopg.Connection, lower: int, upper: int) -> tuple[int, str]:
    """How many events stand in a segment, and a digest of them."""
    row = conn.execute(
        "SELECT count(*), md5(string_agg(e::text, E'\\n' ORDER BY position, event_id)) FROM refold.events AS e"
        " WHERE position >= %s AND position < %s",
        (lower, upper),
    ).fetchone()
    assert row is not None
    return int(row[0]), str(row[1])
