"""What a fault did, and what faults share: sending events, running commands, waiting for what refold shows."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from chaos import journal
from chaos.made import Maker
from chaos.probe import Sample
from chaos.schedule import Step
from chaos.stage import Finished, Stage
from refold import Log

LOOK_S = 0.5
"""Seconds between two looks at what refold shows."""
SHOWN_WITHIN_S = 90.0
"""Seconds within which pages must have come to an event, whatever else goes wrong meanwhile."""
DUTY_S = 180.0
"""Seconds within which duties must have noticed something: they run every minute, in workers that may be frozen."""


@dataclass(slots=True)
class Injected:
    """What a fault did.

    Args:
        step: as the schedule had it.
        began: monotonic seconds.
        clock: when it began, as the database's clock says it.
        ended: monotonic seconds; from here on refold has to recover.
        note: what happened, in words.
        drift: rows that were tampered with.
        shows: whether a sample of `status` shows the fault; None where it need not.
        must_show: whether `status` has to show it, if it lasts.
        detected: seconds until it was shown, where the fault itself has looked.
        wrong: what refold should not have done, with the invariant.
    """

    step: Step
    began: float
    clock: datetime
    ended: float = 0.0
    note: str = ""
    drift: int = 0
    shows: Callable[[Sample], bool] | None = None
    must_show: bool = False
    detected: float | None = None
    wrong: list[tuple[str, str]] = field(default_factory=list)


Inject = Callable[[Stage, dict[str, Any], Injected], None]


def server_is_away(sample: Sample) -> bool:
    return sample.status is None


def clean_events(label: str, count: int) -> list[journal.Event]:
    return Maker(label, random.Random(label)).clean(count)


def send(stage: Stage, label: str, events: list[journal.Event]) -> None:
    """Appends events, all in one transaction."""
    book = journal.Journal(stage.journals / f"{label}.journal")
    batch = book.attempted("faults", events)
    with Log(stage.url, source="faults") as log:
        book.acknowledged(batch, [receipt.answer.value for receipt in log.append(events)])


def operate(stage: Stage, done: Injected, *arguments: str, at: str = "", lie: str = "") -> Finished:
    """Runs a command as an operator would, as soon as the server is there; a traceback is wrong.

    Args:
        stage: of the campaign.
        done: takes a note, and what is wrong.
        arguments: of `refold`.
        at: see `Stage.refold`.
        lie: see `Stage.refold`.
    """
    with stage.connect():
        # Another fault may have taken the server away: there is nothing in asking for it then.
        pass
    finished = stage.refold(*arguments, at=at, lie=lie)
    said = (finished.err or finished.out).strip().splitlines()
    done.note = f"refold {' '.join(arguments)} → {finished.status}" + (
        f" ({said[0][:120]})" if finished.status not in (0, 1) and said else ""
    )
    if "Traceback" in finished.err:
        done.wrong.append(("I6", f"refold {' '.join(arguments)} ended in a traceback: {said[-1][:300]}"))
    return finished


def watch(stage: Stage, seconds: float, look: Callable[[psycopg.Connection], bool]) -> bool:
    """Looks until something is so, for some time at most; a server that is away is waited for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with stage.connect() as conn:
                while time.monotonic() < end:
                    if look(conn):
                        return True
                    time.sleep(LOOK_S)
        except psycopg.OperationalError:
            time.sleep(LOOK_S)
    return False


def detect(stage: Stage, done: Injected, seconds: float, look: Callable[[psycopg.Connection], bool], what: str) -> bool:
    """I8: waits until refold shows something."""
    if watch(stage, seconds, look):
        done.detected = time.monotonic() - done.began
        return True
    done.wrong.append(
        ("I8", f"{done.step.fault} at {done.step.at} s: nothing has shown within {seconds:.0f} s that {what}")
    )
    return False


def until_dead_letters(
    stage: Stage, done: Injected, names: Sequence[str], events: Sequence[journal.Event], *, reading: bool = False
) -> None:
    """Waits until events are dead letters of some live metrics, with an open incident for each.

    Args:
        names: the metrics.
        events: those that they cannot process.
        reading: whether the metrics are read meanwhile: that must not fail.
    """
    ids = [event["id"] for event in events]

    def look(conn: psycopg.Connection) -> bool:
        for name in names if reading else ():
            try:
                conn.execute(sql.SQL("SELECT * FROM metrics.{}").format(sql.Identifier(name))).fetchall()
            except psycopg.DataError as error:
                done.wrong.append(("I7", f"who reads metrics.{name} is told: {error.diag.message_primary}"))
        row = conn.execute(
            "SELECT count(*) FROM refold.dead_letters AS d JOIN refold.builds AS b USING (build_id)"
            " JOIN refold.incidents AS i"
            "   ON i.kind = 'dead_letters' AND i.subject = b.table_name AND i.resolved_at IS NULL"
            " WHERE b.state = 'live' AND b.projection = ANY (%s) AND d.state = 'waiting' AND d.event_id = ANY (%s)",
            (list(names), ids),
        ).fetchone()
        return row == (len(names) * len(ids),)

    detect(stage, done, SHOWN_WITHIN_S, look, f"{ids} are dead letters of {', '.join(names)}")


def is_open(conn: psycopg.Connection, kind: str, subject: str) -> bool:
    return bool(
        conn.execute(
            "SELECT FROM refold.incidents WHERE kind = %s AND subject = %s AND resolved_at IS NULL", (kind, subject)
        ).rowcount
    )
