"""Transactions that others leave open."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg import sql

from chaos import journal
from chaos.faults.injection import (
    DUTY_S,
    Injected,
    clean_events,
    detect,
    is_open,
    watch,
)
from chaos.stage import Stage
from refold import append


def transaction_left_open(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A writer that does not end for a while, and then commits; `status` must name it."""
    label = f"open-{done.began:.6f}"
    book = journal.Journal(stage.journals / f"{label}.journal")
    events = clean_events(label, 20)
    batch = book.attempted("faults", events)
    with stage.connect("chaos left open", autocommit=False) as conn:
        append(conn, events, source="faults")
        done.must_show = True
        done.shows = lambda sample: (
            sample.status is not None and any(holder.what == "chaos left open" for holder in sample.status.sessions)
        )
        try:
            time.sleep(how["seconds"])
            conn.commit()
        except psycopg.Error:
            done.must_show = False
            raise
    book.acknowledged(batch, ["accepted"] * len(events))


def prepared_and_left(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """An orphaned prepared transaction; `status` must name its gid. Committed in the end."""
    gid = f"orphan-{done.began:.6f}"
    book = journal.Journal(stage.journals / f"{gid}.journal")
    events = clean_events(gid, 20)
    batch = book.attempted("faults", events)
    with stage.connect() as conn:
        conn.execute("SET refold.notify = off")
        conn.execute("BEGIN")
        append(conn, events, source="faults")
        conn.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(gid)))
    done.must_show = True
    done.shows = lambda sample: (
        sample.status is not None and any(holder.name == gid for holder in sample.status.prepared)
    )
    time.sleep(how["seconds"])
    end = time.monotonic() + 60
    while True:
        try:
            with stage.connect() as conn:
                if conn.execute("SELECT FROM pg_prepared_xacts WHERE gid = %s", (gid,)).fetchone() is not None:
                    conn.execute(sql.SQL("COMMIT PREPARED {}").format(sql.Literal(gid)))
            break
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
    book.acknowledged(batch, ["accepted"] * len(events))


def snapshot_held(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A transaction that has read something once, and now does nothing; an incident must name its session."""
    with stage.connect("chaos held", autocommit=False) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        holder.execute("SELECT count(*) FROM refold.builds")
        subject = f"session {holder.info.backend_pid}"
        with stage.connect() as conn:
            conn.execute("SET synchronous_commit = off")
            # As many transactions as it takes to make it a nuisance.
            conn.execute("DO $$ BEGIN FOR n IN 1..2000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")

        def named(conn: psycopg.Connection) -> bool:
            try:
                holder.execute("SELECT")
            except psycopg.OperationalError as error:
                # Another fault has ended it, and with it this one.
                raise ProcessLookupError(f"{subject} was ended") from error
            return is_open(conn, "held_snapshot", subject)

        detect(stage, done, DUTY_S, named, f"{subject} holds a snapshot")
        time.sleep(how["seconds"])
    if not watch(stage, DUTY_S, lambda conn: not is_open(conn, "held_snapshot", subject)):
        done.wrong.append(("I8", f"the incident of {subject} is open, though it ended {DUTY_S:.0f} s ago"))
