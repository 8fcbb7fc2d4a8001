"""An erasure from its beginning to its proof, in steps that are resumed after a kill.

Each step commits what it did together with what is next. Until the last events of a person are changed, the log says
who the person is; the same transaction cleans all places that have to be searched by name. So nothing ever stores the
name, and whoever goes on later needs none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from refold.engine.archive import ownership
from refold.engine.archive.object_store import Store, open_store
from refold.engine.archive.write import NOT_SET, SET_IT, leased
from refold.engine.deployment.deploy import one_at_a_time
from refold.engine.erasure import places, purged, purged_files
from refold.engine.erasure.archive import KEPT, rewrite
from refold.engine.erasure.differences import taken_from_repairs, together
from refold.engine.erasure.log import change, token_of
from refold.engine.erasure.proof import count_in_builds, prove
from refold.engine.erasure.vacuum import vacuum
from refold.engine.publish.switch import drop_superseded
from refold.engine.reconcile.log_proof import LogProof
from refold.errors import BuildError, InputError
from refold.model.erasure import Person, without
from refold.postgres.failpoints import failpoint
from refold.postgres.locks import WAIT_S
from refold.postgres.retry import after_deadlocks
from refold.postgres.rows import one_row
from refold.store import archives, erasure_notices, erasures
from refold.store.builds.build import find
from refold.store.builds.compiled import Compiler
from refold.store.erasures import Erasure, Mode
from refold.store.log import integrity
from refold.store.log.damage import leave
from refold.store.log.guards import require_owner
from refold.store.log.integrity import LogDamaged
from refold.store.schema.settings import read_settings

Progress = Callable[[str], None]
"""Called with the name of every step."""
IN_THE_MIDDLE = ("token", "repairs", "left")
"""Evidence that an erasure needs until its part on the log is done."""
PORTION = 2_000
"""Most events that are changed in one transaction."""
HELD_S = 1.0
"""Seconds for which one may hold up the metrics, all of which are locked while it heals them."""


@dataclass(slots=True)
class Found:
    """Where a person is.

    Args:
        events: the person's events in the log.
        mentions: events of others that name the person.
        rows: rows that hold the person, by table; those of metrics in which a column is the user id. Events of purged
            segments, which the archive alone has, are a place of their own.
        waiting: rows that hold the person until a receiver was told, by table.
        retired: tables of retired builds, which are dropped: a rollback to them would bring the person back.
    """

    events: int
    mentions: int
    rows: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    retired: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether nobody is known who is called so."""
        return not (self.events or self.mentions or self.rows or self.waiting)


def look(conn: psycopg.Connection, person: Person) -> Found:
    """Return where a person is, and change nothing.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        person: the person.

    Raises:
        Unreadable: the archive does not have purged events as it was proved to.
    """
    require_owner(conn)
    cold = purged.search(conn, person)
    events, mentions = erasures.count(conn, person)
    return Found(
        events,
        mentions,
        places.count(conn, person) | count_in_builds(conn, person) | ({purged.PLACE: len(cold)} if cold else {}),
        places.waiting(conn, person),
        _retired(conn),
    )


def erase(
    conn: psycopg.Connection,
    projections: Path | None,
    person: Person,
    *,
    mode: Mode,
    keeps: Sequence[str],
    reason: str,
    progress: Progress = lambda step: None,
) -> Erasure:
    """Erase a person, or go on with an erasure of the person that was interrupted; return it as it is then.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        projections: the folder of transforms.
        person: the person.
        mode: whether events of the person stay, without the person.
        keeps: fields of the person's metadata that stay, besides those of the settings.
        reason: why.
        progress: called with the name of every step.

    Raises:
        DatabaseError: the login may not act as the owner.
        InputError: an interrupted erasure of the person was asked for in another way.
        BuildError: another session erases or deploys, or a build cannot be healed.
        LogDamaged: the log is not what was written.
        StoreFailed: the archive's store does not do what it was asked; a worker goes on later.
    """
    require_owner(conn)
    erasure = _begun(conn, person, mode, keeps, reason)
    return go_on(conn, Compiler(projections), erasure, person=person, progress=progress)


def go_on(
    conn: psycopg.Connection,
    compiler: Compiler,
    erasure: Erasure,
    *,
    person: Person | None = None,
    progress: Progress = lambda step: None,
) -> Erasure:
    """Do what is left of an erasure; return it as it is then. The arguments are those of its two parts."""
    if erasure.step == "log":
        progress("log and metrics")
        erasure = change_log(conn, compiler, erasure, person=person)
    return finish(conn, erasure, progress=progress)


def change_log(
    conn: psycopg.Connection,
    compiler: Compiler,
    erasure: Erasure,
    *,
    person: Person | None = None,
    seconds: float = WAIT_S,
) -> Erasure:
    """Do the part of an erasure that changes log, metrics and refold's own tables.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        compiler: makes the SQL of the builds, with the code of transforms.
        erasure: the erasure.
        person: the person; by default as the log says it.
        seconds: longest time to wait for a deploy, or another erasure.
    """
    with one_at_a_time(conn, "deploy or erase", seconds):
        drop_superseded(conn, keep=0)
        return _log(conn, compiler, erasures.by_id(conn, erasure.erasure_id), person)


def finish(conn: psycopg.Connection, erasure: Erasure, *, progress: Progress = lambda step: None) -> Erasure:
    """Do the part of an erasure that needs neither the person nor the code of transforms, up to the proof.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        erasure: the erasure, after `change_log`.
        progress: called with the name of every step.
    """
    if erasure.step == "archive":
        progress("archive")
        done = rewrite(conn, erasure)
        failpoint("erasure_archived")
        told: dict[str, Any] = {
            "archive": done.files,
            "not_provable": [*erasure.evidence.get("not_provable", ()), *done.not_provable],
        }
        if done.kept:
            told["after"] = {**erasure.evidence.get("after", {}), KEPT: done.kept}
        erasure = erasures.move(conn, erasure, "vacuum", {**erasure.evidence, **told})
    if erasure.step == "vacuum":
        progress("vacuum")
        vacuumed = vacuum(conn, erasure)
        failpoint("erasure_vacuumed")
        erasure = erasures.move(conn, erasure, "proof", {**erasure.evidence, "vacuum": vacuumed})
    if erasure.step == "proof":
        progress("proof")
        erasure = prove(conn, erasure)
    return erasure


def counts(conn: psycopg.Connection, person: Person) -> dict[str, int]:
    """Return how many rows hold a person, by table.

    Args:
        conn: acts as refold_worker.
        person: the person.
    """
    return {
        "refold.events": sum(erasures.count(conn, person)),
        **places.count(conn, person),
        **count_in_builds(conn, person),
    }


def _begun(conn: psycopg.Connection, person: Person, mode: Mode, keeps: Sequence[str], reason: str) -> Erasure:
    """Return the unfinished erasure of a person, or begin one."""
    open_ones = erasures.find(conn, "finished_at IS NULL AND subject = refold.erasure_mac(%s)", person.user_id)
    if open_ones:
        [erasure] = open_ones
        if (erasure.mode, erasure.macs) != (mode, [erasures.mac(conn, value) for _, value in person.also]):
            raise InputError(
                "an erasure of this person was interrupted, and was asked for in another way",
                remedy=f"It had --mode {erasure.mode}"
                + (
                    f" and --also with the fields {', '.join(erasure.fields)}." if erasure.fields else " and no --also."
                ),
            )
        return erasure
    stay = list(dict.fromkeys((*read_settings(conn).erasure_keeps, *keeps)))
    floor = integrity.floor(conn)
    cold = purged.search(conn, person)
    if cold:
        owned_store(conn)
    before = counts(conn, person) | ({purged.PLACE: len(cold)} if cold else {})
    try:
        with conn.transaction():
            conn.execute("SET LOCAL ROLE refold_owner")
            told = [(one.position, one.event_id, one.mention) for one in cold]
            begun = erasures.begin(conn, person, mode, stay, without(person, reason), purged=told)
            begun = erasures.move(conn, begun, "log", {"before": before})
            conn.execute("SET LOCAL ROLE refold_worker")
            if integrity.floor(conn) != floor:
                raise BuildError("a segment was purged meanwhile", remedy="Nothing was changed. Run it again.")
            # What it has lost or changed was not searched, and a restore would bring the person back.
            LogProof().everything(conn)
            if not (cold or erasures.waiting(conn, begun, 1)[0]):
                # No event says who the person is.
                begun = _last(conn, begun, person, begun.evidence)
    except LogDamaged as error:
        with conn.transaction():
            leave(conn, error.damage, error.slices, by="refold erase")
        raise
    except psycopg.errors.UniqueViolation as error:
        raise BuildError(
            "another session erases this person", remedy="`refold erase list` shows how far it is."
        ) from error
    failpoint("erasure_begun")
    return begun


def _log(conn: psycopg.Connection, compiler: Compiler, erasure: Erasure, person: Person | None) -> Erasure:
    """Change the events that are left, a portion in each transaction."""
    known = person or erasures.known_person(conn, erasure)
    if known is None:
        raise BuildError(
            "the log does not say any more who this person is",
            remedy="Give the name once more: `refold erase USER` goes on with it.",
        )
    require_owner(conn)
    token = erasure.evidence.get("token") or token_of(conn, erasure)
    erasure = _purged(conn, compiler, erasure, known, token)
    proof = LogProof()
    portion = Portion()
    while erasure.step == "log":
        for attempt in after_deadlocks():
            began = time.monotonic()
            with attempt, conn.transaction():
                now = erasures.by_id(conn, erasure.erasure_id)
                moved = _portion(conn, compiler, now, known, token, proof, portion.events)
        erasure, portion = moved, portion.after(time.monotonic() - began)
        failpoint("erasure_portion")
    return erasure


@dataclass(frozen=True, slots=True)
class Portion:
    """How many events are changed in one transaction. Pure.

    A metric without days in its key reads the whole log for each portion, be it one event. So a portion may take twice
    the shortest: then half of the time is the events' own, and all portions take less than twice as long as one alone.

    Args:
        events: how many, at most.
        shortest_s: the shortest time that one has taken, seconds.
    """

    events: int = 1
    shortest_s: float = float("inf")

    def after(self, seconds: float) -> Portion:
        """Return the next one, after one that took so long."""
        shortest = min(self.shortest_s, seconds)
        allowed = max(HELD_S, 2 * shortest)
        fitting = int(self.events * allowed / max(seconds, 1e-6))
        return Portion(max(1, min(PORTION, 2 * self.events, fitting)), shortest)


def _purged(conn: psycopg.Connection, compiler: Compiler, erasure: Erasure, person: Person, token: str) -> Erasure:
    """Change what the archive alone has, and what was computed from it."""
    if purged.PLACE not in erasure.evidence.get("before", {}) or purged.PLACE in erasure.evidence.get("left", {}):
        return erasure
    if "repairs" not in erasure.evidence:
        # The same in all files, and in the log: it goes from here with the last of the events.
        (last,) = one_row(conn, "SELECT coalesce(max(repair_id), 0) FROM refold.repairs")
        erasure = erasures.move(conn, erasure, "log", {**erasure.evidence, "token": token, "repairs": last})
    store, location = owned_store(conn)
    with leased(conn, store, location) as writer:
        letters = purged_files.rewrite(conn, store, writer, erasure, token)
    slices = purged_files.rebase(conn, compiler, erasure, told=True)
    failpoint("erasure_rebased")
    still = len(purged.search(conn, person))
    with conn.transaction():
        metrics = taken_from_repairs(conn, erasure.evidence["repairs"], [build.build_id for build in find(conn)])
        told = {
            **erasure.evidence,
            "left": {purged.PLACE: still},
            "slices": slices,
            "resealed": slices,
            "metrics": together(erasure.evidence.get("metrics", {}), metrics),
            "dead_letters": erasure.evidence.get("dead_letters", 0) + letters,
        }
        return erasures.move(conn, erasure, "log", told)


def owned_store(conn: psycopg.Connection) -> tuple[Store, str]:
    """Return the archive's store, and its address.

    Raises:
        InputError: no archive is set.
        NotOwner: it belongs to another database.
    """
    location = read_settings(conn).archive
    if location is None:
        raise InputError(NOT_SET, remedy=SET_IT)
    store = open_store(location)
    ownership.insist(store, archives.claim_of(conn), location)
    return store, location


def _portion(
    conn: psycopg.Connection,
    compiler: Compiler,
    erasure: Erasure,
    person: Person,
    token: str,
    proof: LogProof,
    most: int,
) -> Erasure:
    targets, last = erasures.waiting(conn, erasure, most)
    if not targets:
        # Only purged segments had events of the person.
        return _last(conn, erasure, person, erasure.evidence)
    renamed = [one.position for one in targets if one.renamed]
    ids = conn.execute("SELECT event_id FROM refold.events WHERE position = ANY (%s)", (renamed,)).fetchall()
    evidence = dict(erasure.evidence)
    changed = change(conn, compiler, erasure, targets, token, proof)
    evidence["slices"] = sorted({*evidence.get("slices", ()), *changed.slices})
    evidence["resealed"] = sorted({*evidence.get("resealed", ()), *changed.sealed})
    evidence["metrics"] = together(evidence.get("metrics", {}), changed.metrics)
    evidence["dead_letters"] = evidence.get("dead_letters", 0) + changed.letters
    # Keys of repairs, incidents and the like name events by these.
    person = replace(person, ids=tuple(event_id for (event_id,) in ids))
    if last:
        return _last(conn, erasure, person, evidence)
    if person.ids:
        places.clean(conn, person)
    return erasures.move(conn, erasure, "log", evidence)


def _last(conn: psycopg.Connection, erasure: Erasure, person: Person, evidence: Mapping[str, Any]) -> Erasure:
    """Clean all other places, count what is left, and go to the next step. Nothing says who the person is then."""
    cleaned = places.clean(conn, person)
    failpoint("erasure_places")
    after = counts(conn, person) | evidence.get("left", {})
    told = {
        **{name: one for name, one in evidence.items() if name not in IN_THE_MIDDLE},
        "cleaned": cleaned,
        "erased_at": one_row(conn, "SELECT clock_timestamp()::text")[0],
        "after": {table: after.get(table, 0) for table in {**evidence.get("before", {}), **after}},
        "waiting": places.waiting(conn, person),
    }
    erasure_notices.add(conn, erasure.erasure_id)
    return erasures.move(conn, erasure, "archive", told)


def _retired(conn: psycopg.Connection) -> list[str]:
    rows = conn.execute("SELECT table_name FROM refold.builds WHERE state = 'retired' ORDER BY table_name").fetchall()
    return [name for (name,) in rows]
