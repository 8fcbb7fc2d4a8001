"""The archive beside everything else: killed at its points, and with a store that lies, refuses, or is not there."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from chaos import archived
from chaos.faults.injection import Injected, operate
from chaos.faulty_store import LIES
from chaos.stage import Finished, Stage

PATIENCE_S = 5.0
"""Seconds for which another process may write the archive before its lease is taken away."""
BUSY = "another process writes the archive"
TRIES = 8


def archive_killed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """kill -9 of `refold archive run` at several of its points, one after another; then it runs to its end."""
    points = []
    for point in how["at"].split(","):
        if stage.over.is_set():
            break
        points.append(point)
        make_due(stage, done)
        run_archive(stage, done, at=point)
        insist(stage, done, f"killed at {point}")
    last = run_archive(stage, done)
    insist(stage, done, "after the last run")
    done.note = f"killed at {', '.join(points) or 'no point'}; then {last.status}"


def archive_lied_to(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A file is damaged in the store, which `refold archive verify` finds; the store lies about the next one."""
    make_due(stage, done, damage=how["damage"])
    lied = run_archive(stage, done, lie=how["lie"])
    insist(stage, done, f"the store lied: {how['lie']}")
    last = run_archive(stage, done)
    insist(stage, done, "the store lies no more")
    done.note = f"{how['damage']}, then {how['lie']} → {lied.status}, honest → {last.status}"


def archive_refused(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """The store is full, uncertain or away, or this host has no room: nothing counts, and nothing is forgotten."""
    make_due(stage, done)
    if how["kind"] == "away":
        away = stage.archive.with_name("away")
        before = stage.ask(archived.verified)
        # Nobody counts its files meanwhile.
        with stage.filing:
            stage.archive.rename(away)
            try:
                refused = operate(stage, done, "archive", "run", "--now")
                looked = operate(stage, done, "archive", "verify")
                time.sleep(how["seconds"])
            finally:
                away.rename(stage.archive)
        forgotten = {one.location for one in before} - {one.location for one in stage.ask(archived.verified)}
        if refused.status == 0 or looked.status == 0 or forgotten:
            done.wrong.append(
                (
                    "I11",
                    f"without its store, archive run and verify ended with {refused.status} and {looked.status}, and"
                    f" {len(forgotten)} files were forgotten",
                )
            )
    else:
        refused = run_archive(stage, done, lie=how["kind"])
    insist(stage, done, how["kind"])
    last = run_archive(stage, done)
    insist(stage, done, f"after {how['kind']}")
    done.note = f"{how['kind']} → {refused.status}, then {last.status}"


def take_lease(conn: psycopg.Connection) -> bool:
    """Lets the lease of the archive end now, whoever holds it: a process that was killed, or one that writes."""
    return bool(
        conn.execute(
            "UPDATE refold.archive_store SET leased_until = clock_timestamp() WHERE holder IS NOT NULL"
        ).rowcount
    )


def run_archive(stage: Stage, done: Injected, *, at: str = "", lie: str = "") -> Finished:
    """`refold archive run --now`, as soon as no other process writes."""
    since = time.monotonic()
    for _ in range(TRIES):
        ran = operate(stage, done, "archive", "run", "--now", at=at, lie=lie)
        if BUSY not in ran.err:
            break
        if time.monotonic() - since > PATIENCE_S:
            stage.ask(take_lease)
        time.sleep(1)
    if at:
        stage.ask(take_lease)
    return ran


def make_due(stage: Stage, done: Injected, damage: str = "lost", *, lowest: bool = False) -> None:
    """Sees that a sealed segment has no file; if all have one, the oldest is damaged, which is found.

    Args:
        stage: of the campaign.
        done: takes what is wrong.
        damage: what becomes of the file.
        lowest: whether it has to be the lowest segment of the log.
    """
    stage.seal()
    # Nothing is purged before the damage is noticed: it may be the only file that has its events then.
    with stage.filing:
        files, floor, sealed = stage.ask(_filed)
        if not files or (files[0].lower > floor if lowest else len(files) < sealed):
            return
        oldest = files[0]
        stage.damaged.add(oldest.location)
        LIES[damage](stage.archive / oldest.location)
        found = operate(stage, done, "archive", "verify")
        verified = any(one.location == oldest.location for one in stage.ask(archived.verified))
    if found.status == 0 or (found.status == 1 and verified):
        done.wrong.append(("I11", f"{oldest.location} is {damage}, and refold archive verify does not find it"))


def _filed(conn: psycopg.Connection) -> tuple[list[archived.Counting], int, int]:
    """The files that are called verified, where the log begins, and how many of its segments are sealed."""
    (floor,) = conn.execute("SELECT refold.log_floor()").fetchone() or (0,)
    sealed = conn.execute(
        "SELECT FROM refold.segments AS g WHERE (g.upper_position - 1) >> 14 <="
        " (SELECT max(slice) FROM refold.sealed_slices WHERE sealed_at IS NOT NULL)"
    ).rowcount
    return archived.verified(conn), int(floor), sealed


def insist(stage: Stage, done: Injected, when: str) -> None:
    """I11: whatever happens, a file that is called verified holds the events of its segment."""
    with stage.filing:
        wrong = stage.ask(lambda conn: archived.unlike(conn, stage.archive, stage.damaged))
    done.wrong += [("I11", f"{told} ({when})") for told in wrong]
