"""The faults: each begins, lasts, and ends; what it did is returned."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from chaos import journal
from chaos.made import Maker
from chaos.probe import Sample
from chaos.schedule import Step
from chaos.stage import Stage
from chaos.wire import FAIR, Weather
from refold import Log, append


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
        wrong: what refold should not have done.
    """

    step: Step
    began: float
    clock: datetime
    ended: float = 0.0
    note: str = ""
    drift: int = 0
    shows: Callable[[Sample], bool] | None = None
    must_show: bool = False
    wrong: list[str] = field(default_factory=list)


Inject = Callable[[Stage, dict[str, Any], Injected], None]


def _down(sample: Sample) -> bool:
    return sample.status is None


def _signal_worker(stage: Stage, number: int, what: signal.Signals) -> int | None:
    worker = stage.workers[number]
    if worker is None or worker.poll() is not None:
        return None
    worker.send_signal(what)
    return worker.pid


def worker_killed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """kill -9; the supervisor starts another."""
    done.note = f"process {_signal_worker(stage, how['worker'], signal.SIGKILL)}"


def worker_frozen(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """SIGSTOP, and SIGCONT later, when others have taken over."""
    worker = stage.workers[how["worker"]]
    if worker is None:
        return
    worker.send_signal(signal.SIGSTOP)
    time.sleep(how["seconds"])
    with contextlib.suppress(ProcessLookupError):
        worker.send_signal(signal.SIGCONT)


def all_workers_frozen(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Nobody works: `status` must show the lag."""
    frozen = [worker for worker in stage.workers if worker is not None]
    for worker in frozen:
        worker.send_signal(signal.SIGSTOP)
    done.shows = lambda sample: 1.0 < sample.behind < 1e6
    done.must_show = True
    time.sleep(how["seconds"])
    for worker in frozen:
        with contextlib.suppress(ProcessLookupError):
            worker.send_signal(signal.SIGCONT)


def backend_killed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """kill -9 of one session's process: the server drops all of them and recovers."""
    with stage.connect() as conn:
        row = conn.execute(
            "SELECT pid, application_name FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            " ORDER BY (application_name LIKE %s) DESC, pid LIMIT 1",
            (how["whose"] + "%",),
        ).fetchone()
    if row is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(row[0], signal.SIGKILL)
        done.note = f"process {row[0]} ({row[1]})"
    done.shows = _down


def session_terminated(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """pg_terminate_backend of all sessions of a kind."""
    with stage.connect() as conn:
        rows = conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            "   AND (%(whose)s = 'any' OR application_name LIKE %(whose)s || '%%')",
            {"whose": how["whose"]},
        ).fetchall()
    done.note = f"{len(rows)} sessions"


def server_killed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """kill -9 of the whole server, and a start."""
    with stage.server_lock:
        pid = stage.server.pid
        os.kill(pid, signal.SIGKILL)
        done.note = f"process {pid}"
        stage.start_server()
    done.shows = _down


def restart_loop(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Stopped as if it crashed, started, a few times within seconds."""
    for _ in range(how["times"]):
        with stage.server_lock:
            stage.server.stop(immediate=True)
            stage.start_server()
        time.sleep(how["seconds"])
    done.shows = _down


def _weather(stage: Stage, weather: Weather, seconds: float) -> None:
    stage.wire.weather = weather
    time.sleep(seconds)
    stage.wire.weather = FAIR


def connections_cut(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Each connection through the proxy is cut when the client has sent so many bytes."""
    _weather(stage, Weather(cut_after=how["after_bytes"]), how["seconds"])


def reply_lost(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """The reply to COMMIT never arrives."""
    _weather(stage, Weather(lose_reply=True), how["seconds"])


def peer_silent(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Nothing passes for a while, then all of it."""
    _weather(stage, Weather(silent=True), how["seconds"])


def network_slow(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Every block comes late."""
    _weather(stage, Weather(delay=how["delay"]), how["seconds"])


def tampered(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Rows of a metric's table are changed by hand."""
    with stage.connect() as conn:
        row = conn.execute(
            "SELECT table_name FROM refold.builds WHERE projection = %s AND state = 'live'", (how["projection"],)
        ).fetchone()
        assert row is not None
        if how["kind"] == "forget":
            # Of the set behind a distinct count: what it lacks would be counted again.
            row = (f"{row[0]}__m1",)
        table = sql.Identifier("refold_builds", row[0])
        columns = {
            "exposed_purchases": ("amount", "amount + 1"),
            "exposed_daily": ("events", "events + 3"),
            "exposed_visitors": ("events", "events + 5"),
            "exposed_paths": ("path", "array_append(path, 'tampered')"),
            "exposed_spending": ("purchases", "purchases + 1"),
        }
        some = sql.SQL("ctid = ANY (ARRAY(SELECT ctid FROM {} ORDER BY random() LIMIT {}))").format(
            table, sql.Literal(how["rows"])
        )
        column, value = columns[how["projection"]]
        match how["kind"]:
            case "update":
                query = sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(
                    table, sql.Identifier(column), sql.SQL(value), some
                )
            case "delete" | "forget":
                query = sql.SQL("DELETE FROM {} WHERE {}").format(table, some)
            case "insert":
                query = _insert(conn, row[0], how["rows"], table)
            case _:
                count = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(table)).fetchone()
                assert count is not None
                done.drift = count[0]
                query = sql.SQL("TRUNCATE {}").format(table)
        with conn.transaction():
            conn.execute("SET LOCAL lock_timeout = '3s'")
            changed = conn.execute(query).rowcount
        done.drift = done.drift or max(changed, 0)
        done.note = f"{how['kind']} of {done.drift} rows of {row[0]}"


def _insert(conn: psycopg.Connection, name: str, rows: int, table: sql.Identifier) -> sql.Composed:
    """Copies of rows under keys that no event explains."""
    columns = conn.execute(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
        " WHERE attrelid = to_regclass('refold_builds.' || quote_ident(%s)) AND attnum > 0 AND NOT attisdropped"
        "   AND attgenerated = '' ORDER BY attnum",
        (name,),
    ).fetchall()
    strange = {
        "event_id": "'nobody-' || gen_random_uuid()",
        "user_id": "'nobody-' || gen_random_uuid()",
        "position": "position + 1000000000000",
        "day": "day + 40000 + (random() * 20000)::integer",
    }
    chosen = [sql.SQL(strange[c]) if c in strange else sql.Identifier(c) for c, _ in columns]
    return sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} LIMIT {} ON CONFLICT DO NOTHING").format(
        table,
        sql.SQL(", ").join(sql.Identifier(c) for c, _ in columns),
        sql.SQL(", ").join(chosen),
        table,
        sql.Literal(rows),
    )


def _operator(stage: Stage, done: Injected, *arguments: str) -> None:
    with stage.connect():
        # Another fault may have taken the server away: there is nothing in asking for it then.
        pass
    finished = stage.refold(*arguments)
    said = (finished.err or finished.out).strip().splitlines()
    done.note = f"refold {' '.join(arguments)} → {finished.status}" + (
        f" ({said[0][:120]})" if finished.status not in (0, 1) and said else ""
    )
    if "Traceback" in finished.err:
        done.wrong.append(f"refold {' '.join(arguments)} ended in a traceback: {said[-1][:300]}")


def rebuild(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """`refold rebuild --cascade` under load."""
    _operator(stage, done, "rebuild", how["projection"], "--cascade")


def deployed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A projection's file changes, and `refold deploy`."""
    stage.set_variant(how["variant"])
    _operator(stage, done, "deploy")


def rolled_back(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """`refold rollback`, back to the definition before."""
    _operator(stage, done, "rollback", "changing")


def reconciled(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """`refold reconcile` under load; it heals what was tampered with before."""
    _operator(stage, done, "reconcile", "--json")


def transaction_left_open(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A writer that does not end for a while, and then commits; `status` must name it."""
    label = f"open-{done.began:.6f}"
    book = journal.Journal(stage.journals / f"{label}.journal")
    events = _events(label, 20)
    batch = book.attempted("faults", events)
    with psycopg.connect(stage.url, application_name="chaos left open") as conn:
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
    events = _events(gid, 20)
    batch = book.attempted("faults", events)
    with stage.connect() as conn:
        conn.execute("SET refold.doorbell = off")
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


def _events(label: str, count: int) -> list[journal.Event]:
    return Maker(label, random.Random(label)).clean(count)


def duplicate_storm(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Acknowledged events once more, shuffled, several times; each must be answered `duplicate`."""
    count = journal.read(stage.journals.glob("*.journal"))
    known = [offer.event for offer in count.offered if offer.answer == "accepted"][-how["events"] :]
    answers: dict[str, int] = {}
    order = random.Random(done.step.at)
    with Log(stage.url, source="storm") as log:
        for _ in range(how["times"]):
            order.shuffle(known)
            for receipt in log.append(known):
                answers[receipt.answer.value] = answers.get(receipt.answer.value, 0) + 1
    done.note = json.dumps(answers)
    if set(answers) - {"duplicate"}:
        done.wrong.append(f"events sent again were answered {answers}")


def producer_killed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """kill -9 of a producer and what it started; another takes its place, and numbers its events anew."""
    done.note = stage.kill_producer(how["producer"])


def poisoned(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """An event on which the SQL of one projection fails; no other may notice."""
    label = f"poison-{done.began:.6f}"
    book = journal.Journal(stage.journals / f"{label}.journal")
    events = _events(label, how["events"])
    for event in events:
        event["metadata"]["number"] = "many"
    batch = book.attempted("faults", events)
    with Log(stage.url, source="faults") as log:
        book.acknowledged(batch, [receipt.answer.value for receipt in log.append(events)])


FAULTS: dict[str, Inject] = {
    "worker killed": worker_killed,
    "tampered": tampered,
    "server killed": server_killed,
    "connections cut": connections_cut,
    "worker frozen": worker_frozen,
    "all workers frozen": all_workers_frozen,
    "backend killed": backend_killed,
    "session terminated": session_terminated,
    "restart loop": restart_loop,
    "reply lost": reply_lost,
    "peer silent": peer_silent,
    "network slow": network_slow,
    "rebuild": rebuild,
    "deploy": deployed,
    "rollback": rolled_back,
    "reconcile": reconciled,
    "transaction left open": transaction_left_open,
    "prepared and left": prepared_and_left,
    "duplicate storm": duplicate_storm,
    "producer killed": producer_killed,
    "poison": poisoned,
}
"""Every kind of fault."""


def inject(stage: Stage, step: Step) -> Injected:
    """Lets one fault happen; one that another fault keeps from happening is noted as such."""
    done = Injected(step, began=time.monotonic(), clock=datetime.now(UTC))
    try:
        FAULTS[step.fault](stage, dict(step.parameters), done)
    except (psycopg.Error, ProcessLookupError) as error:
        done.note += f" interrupted: {str(error).splitlines()[0][:100] if str(error) else type(error).__name__}"
        done.must_show = False
    done.ended = time.monotonic()
    return done
