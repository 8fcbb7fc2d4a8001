"""What people do on the dashboard. Each action runs on a session of its own as refold_worker, and is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from refold.errors import InputError
from refold.model.sink import state as steps
from refold.prose import counted
from refold.store import incidents, sinks
from refold.store.actions import recorded
from refold.store.builds import dead_letters

if TYPE_CHECKING:
    from refold.store.builds.dead_letters import DeadLetter

TOGETHER = 500
"""Most dead letters of a request."""
ENOUGH_S = 20.0
"""Seconds after which a request retries no further letter."""

Form = Mapping[str, str]
Act = Callable[["Acting", Form], int]


@dataclass(frozen=True, slots=True)
class Acting:
    """A person who acts.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        by: the person, as a proxy names them; None: the login counts.
        projections: folder with the code of transforms.
    """

    conn: psycopg.Connection
    by: str | None
    projections: Path | None


def retry_letters(acting: Acting, form: Form) -> int:
    """Retry the dead letters of a form; return the number of the action."""
    from refold.engine.reconcile.release import release
    from refold.store.builds.compiled import Compiler

    chosen = _letters(acting.conn, form)
    with recorded(acting.conn, "deadletters retry", _told(form, chosen), by=acting.by) as action:
        compiler = Compiler(acting.projections)
        end = time.monotonic() + ENOUGH_S
        answers = []
        for letter in chosen:
            if time.monotonic() > end:
                break
            answers.append(release(acting.conn, compiler, letter).answer)
        failed = answers.count("failed")
        said = [f"{answers.count('released'):,} of {counted(len(chosen), 'event')} applied"]
        said += [f"{failed:,} failed again"] if failed else []
        said += [f"{answers.count('ended'):,} had been settled before"] if "ended" in answers else []
        said += [f"{len(chosen) - len(answers):,} not tried yet"] if len(answers) < len(chosen) else []
        action.outcome = ", ".join(said)
    return action.action_id


def drop_letters(acting: Acting, form: Form) -> int:
    """Drop the dead letters of a form; return the number of the action."""
    from refold.engine.reconcile.release import drop

    reason = form.get("reason", "").strip()
    if not reason:
        raise InputError("the reason is empty", remedy="Say in a few words why the metric may leave these events out.")
    chosen = _letters(acting.conn, form)
    told = _told(form, chosen) | {"reason": reason}
    with recorded(acting.conn, "deadletters drop", told, by=acting.by) as action:
        done = sum(drop(acting.conn, letter, reason) for letter in chosen)
        action.outcome = f"{done:,} of {counted(len(chosen), 'event')} dropped"
    return action.action_id


def _letters(conn: psycopg.Connection, form: Form) -> list[DeadLetter]:
    """Return the letters that a form names: one by its number, or all that wait with one error in one build."""
    waiting = "d.state = 'waiting' AND b.state IN ('building', 'live')"
    if form.get("letter"):
        found = dead_letters.find(conn, f"{waiting} AND d.dead_letter_id = %s", _number(form, "letter"))
    else:
        # Not by the error itself: browsers change line breaks of a form's values, and it may be longer than a form.
        found = dead_letters.find(
            conn,
            f"{waiting} AND d.build_id = %s AND encode(sha256(convert_to(d.error, 'UTF8')), 'hex') = %s",
            _number(form, "build"),
            form.get("cause", ""),
        )
    if not found:
        raise InputError("none of these dead letters waits any more", remedy="Somebody else has settled them.")
    return found[:TOGETHER]


def _told(form: Form, chosen: list[DeadLetter]) -> dict[str, object]:
    """Return what is recorded of a choice: no id of an event, and no text of an error."""
    told: dict[str, object] = {"projection": chosen[0].projection, "letters": len(chosen)}
    if form.get("letter"):
        told["letter"] = chosen[0].dead_letter_id
    elif form.get("seen"):
        told["seen"] = _number(form, "seen")
    return told


def acknowledge(acting: Acting, form: Form) -> int:
    """Take on an incident; return the number of the action."""
    number = _number(form, "incident")
    note = form.get("note", "").strip()
    given = {"number": number} | ({"note": note} if note else {})
    with recorded(acting.conn, "incidents ack", given, by=acting.by, incident_id=number) as action:
        if incidents.acknowledge(acting.conn, number, by=acting.by) is None:
            raise InputError(f"incident {number} is over already")
        action.outcome = "taken on"
    return action.action_id


def pause_sink(acting: Acting, form: Form) -> int:
    """Pause a sink; return the number of the action."""
    return _sink(acting, form, "sinks pause", steps.paused)


def resume_sink(acting: Acting, form: Form) -> int:
    """Resume a sink, or try its receiver at once; return the number of the action."""
    return _sink(acting, form, "sinks resume", steps.resumed)


def _sink(acting: Acting, form: Form, command: str, to: Callable[[steps.SinkState], steps.SinkState]) -> int:
    sink = sinks.known(acting.conn, form.get("sink", ""))
    with recorded(acting.conn, command, {"name": sink.name}, by=acting.by) as action:
        with acting.conn.transaction():
            sinks.step(acting.conn, sink.sink_id, lambda now, _: to(now))
        action.outcome = "paused" if command.endswith("pause") else "resumed"
    return action.action_id


def _number(form: Form, name: str) -> int:
    given = form.get(name, "")
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise InputError(f"{name} is not a number")
    return int(given)
