"""The faults: each begins, lasts, and ends; what it did is returned."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from chaos import journal
from chaos.made import Maker
from chaos.probe import Sample
from chaos.schedule import HOSTILE, Step
from chaos.stage import Finished, Stage
from chaos.wire import FAIR, Weather
from refold import Log, append

LOOK_S = 0.5
"""Seconds between two looks at what refold shows."""
SHOWN_WITHIN_S = 90.0
"""Seconds within which pages must have come to an event, whatever else goes wrong meanwhile."""
DUTY_S = 180.0
"""Seconds within which duties must have noticed something: they run every minute, in workers that may be frozen."""
ATTEMPTS = 30


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


def _operator(stage: Stage, done: Injected, *arguments: str) -> Finished:
    with stage.connect():
        # Another fault may have taken the server away: there is nothing in asking for it then.
        pass
    finished = stage.refold(*arguments)
    said = (finished.err or finished.out).strip().splitlines()
    done.note = f"refold {' '.join(arguments)} → {finished.status}" + (
        f" ({said[0][:120]})" if finished.status not in (0, 1) and said else ""
    )
    if "Traceback" in finished.err:
        done.wrong.append(("I6", f"refold {' '.join(arguments)} ended in a traceback: {said[-1][:300]}"))
    return finished


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
    events = _events(gid, 20)
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


def _events(label: str, count: int) -> list[journal.Event]:
    return Maker(label, random.Random(label)).clean(count)


def duplicate_storm(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Acknowledged events once more, shuffled, several times; each must be answered `duplicate`."""
    count = journal.read(stage.journals.glob("*.journal"))
    known = [
        offer.event
        for offer in count.offered
        # What was smuggled in cannot be written down, and so not sent again.
        if offer.answer == "accepted" and "smuggled" not in offer.event["metadata"]
    ][-how["events"] :]
    answers: dict[str, int] = {}
    order = random.Random(done.step.at)
    with Log(stage.url, source="storm") as log:
        for _ in range(how["times"]):
            order.shuffle(known)
            for receipt in log.append(known):
                answers[receipt.answer.value] = answers.get(receipt.answer.value, 0) + 1
    done.note = json.dumps(answers)
    if set(answers) - {"duplicate"}:
        done.wrong.append(("I7", f"events sent again were answered {answers}"))


def producer_killed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """kill -9 of a producer and what it started; another takes its place, and numbers its events anew."""
    done.note = stage.kill_producer(how["producer"])


def poisoned(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """An event on which the SQL of one projection fails; no other may notice."""
    label = f"poison-{done.began:.6f}"
    events = _events(label, how["events"])
    for event in events:
        event["metadata"]["number"] = "many"
    _send(stage, label, events)
    _until_set_aside(stage, done, ("poisoned",), events)


def _send(stage: Stage, label: str, events: list[journal.Event]) -> None:
    """Appends events, all in one transaction."""
    book = journal.Journal(stage.journals / f"{label}.journal")
    batch = book.attempted("faults", events)
    with Log(stage.url, source="faults") as log:
        book.acknowledged(batch, [receipt.answer.value for receipt in log.append(events)])


def _watch(stage: Stage, seconds: float, look: Callable[[psycopg.Connection], bool]) -> bool:
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


def _until_set_aside(
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

    _detect(stage, done, SHOWN_WITHIN_S, look, f"{ids} are dead letters of {', '.join(names)}")


def _detect(
    stage: Stage, done: Injected, seconds: float, look: Callable[[psycopg.Connection], bool], what: str
) -> bool:
    """I8: waits until refold shows something."""
    if _watch(stage, seconds, look):
        done.detected = time.monotonic() - done.began
        return True
    done.wrong.append(
        ("I8", f"{done.step.fault} at {done.step.at} s: nothing has shown within {seconds:.0f} s that {what}")
    )
    return False


SMUGGLED = {
    "digits": "7" * 5000,
    "exponent": "1e131000",
    "depth": "[" * 3000 + "]" * 3000,
}
"""JSON that Postgres holds and prints, and Python cannot read."""


def poisoned_in_decoding(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A superuser turns the limits off for an event that no Python function can be given."""
    label = f"unreadable-{done.began:.6f}"
    [event] = Maker(label, random.Random(label)).purchases(label, [1])
    event["metadata"]["smuggled"] = how["kind"]
    book = journal.Journal(stage.journals / f"{label}.journal")
    batch = book.attempted("faults", [event])
    with stage.connect() as conn:
        for attempt in range(ATTEMPTS):
            try:
                _smuggle(conn, event, SMUGGLED[how["kind"]])
                break
            except psycopg.errors.LockNotAvailable:
                # Producers have it. Who waits for long keeps all of them waiting.
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(LOOK_S)
    book.acknowledged(batch, ["accepted"])
    _until_set_aside(stage, done, ("graded",), [event])
    with stage.connect() as conn:
        row = conn.execute(
            "SELECT max(dead_letter_id) FROM refold.dead_letters WHERE event_id = %s", (event["id"],)
        ).fetchone()
    if row is not None and row[0] is not None:
        _operator(stage, done, "deadletters", "show", str(row[0]))


def _smuggle(conn: psycopg.Connection, event: journal.Event, value: str) -> None:
    with conn.transaction():
        conn.execute("SET LOCAL lock_timeout = '1s'")
        conn.execute("ALTER TABLE refold.events DISABLE TRIGGER within_limits")
        conn.execute(
            "INSERT INTO refold.events (event_id, user_id, action, ts, metadata)"
            " VALUES (%s, %s, %s, %s, %s::jsonb || jsonb_build_object('smuggled', %s::jsonb))",
            (event["id"], event["user_id"], event["action"], event["ts"], json.dumps(event["metadata"]), value),
        )
        conn.execute("ALTER TABLE refold.events ENABLE TRIGGER within_limits")


def poisoned_together(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Two events of a user, each of which can be counted, and both together make the divisor 0: the second must go."""
    label = f"together-{done.began:.6f}"
    maker = Maker(label, random.Random(label))
    pairs = [maker.purchases(f"{label}-{user}", [how["first"], -how["first"]]) for user in range(how["users"])]
    for _, second in pairs:
        second["metadata"]["spoils"] = True
    _send(stage, label, [event for pair in pairs for event in pair])
    _until_set_aside(stage, done, ("shares", "ratios"), [second for _, second in pairs], reading=True)


def poisoned_in_the_view(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """An event that the table of a metric can hold, and its view cannot show: whoever reads it must not notice."""
    label = f"zero-{done.began:.6f}"
    maker = Maker(label, random.Random(label))
    events = [event for user in range(how["users"]) for event in maker.purchases(f"{label}-{user}", [0])]
    for event in events:
        event["metadata"]["spoils"] = True
    _send(stage, label, events)
    _until_set_aside(stage, done, ("shares", "ratios"), events, reading=True)


def log_damaged(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A superuser deletes or changes an event. Metrics stay, it is an incident; then the event is restored."""
    label = f"damaged-{done.began:.6f}"
    events = Maker(label, random.Random(label)).purchases(label, [1, 2, 3])
    _send(stage, label, events)
    lost = events[1]["id"]
    right = {"purchases": (3,), "spending": (1,), "shares": (1,), "ratios": (1,), "funnel": (1,)}
    if not _watch(stage, SHOWN_WITHIN_S, lambda conn: {n: r[:1] for n, r in _shown(conn, label).items()} == right):
        done.wrong.append(("I6", f"the metrics do not show the events of {label} after {SHOWN_WITHIN_S:.0f} s"))
        return
    with stage.connect() as conn:
        before = _shown(conn, label)
        with conn.cursor().copy("COPY (SELECT * FROM refold.events WHERE event_id = %s) TO STDOUT", (lost,)) as copy:
            kept = b"".join(bytes(part) for part in copy)
        with conn.transaction():
            # The door of whoever restores: no lock, and nobody checks what is taken out by it.
            conn.execute("SET LOCAL refold.restoring = on")
            conn.execute(
                "DELETE FROM refold.events WHERE event_id = %s"
                if how["kind"] == "delete"
                else 'UPDATE refold.events SET metadata = metadata || \'{"amount": "0.01"}\' WHERE event_id = %s',
                (lost,),
            )
    try:
        if how["found_by"] == "scrub":
            _operator(stage, done, "scrub")

        def named(conn: psycopg.Connection) -> bool:
            if (now := _shown(conn, label)) != before:
                done.wrong.append(("I3", f"metrics were changed from a damaged log: {now}, not {before}"))
            return _open_damage(conn, lost)

        _detect(stage, done, DUTY_S, named, f"{lost} is damaged")
        _watch(stage, how["seconds"], lambda conn: not named(conn))
    finally:
        if not _watch(stage, DUTY_S, lambda conn: _restore(conn, lost, kept)):
            raise RuntimeError(f"{lost} could not be restored")
    _operator(stage, done, "scrub")
    if not _watch(stage, DUTY_S, lambda conn: not _open_damage(conn, lost)):
        done.wrong.append(("I8", f"the incident of {lost} is open, though it was restored {DUTY_S:.0f} s ago"))
    _operator(stage, done, "reconcile", "--json")


def _shown(conn: psycopg.Connection, user: str) -> dict[str, tuple[int, str | None]]:
    """What some metrics show of a user: how many rows, and which."""
    found = {}
    for name in ("purchases", "spending", "shares", "ratios", "funnel"):
        row = conn.execute(
            sql.SQL(
                "SELECT count(*), string_agg(m::text, ' ' ORDER BY m::text) FROM metrics.{} AS m WHERE user_id = %s"
            ).format(sql.Identifier(name)),
            (user,),
        ).fetchone()
        assert row is not None
        found[name] = row
    return found


def _open_damage(conn: psycopg.Connection, event_id: str) -> bool:
    """Whether an open incident names an event."""
    return bool(
        conn.execute(
            "SELECT FROM refold.incidents"
            " WHERE kind = 'log_damage' AND resolved_at IS NULL AND strpos(evidence::text, %s) > 0",
            (f'"{event_id}"',),
        ).rowcount
    )


def _restore(conn: psycopg.Connection, event_id: str, kept: bytes) -> bool:
    """Puts an event back as the documentation says."""
    with conn.transaction():
        conn.execute("SET LOCAL refold.restoring = on")
        conn.execute("DELETE FROM refold.events WHERE event_id = %s", (event_id,))
        with conn.cursor().copy("COPY refold.events FROM STDIN") as copy:
            copy.write(kept)
    return True


def settings_turned_hostile(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Somebody sets something for all sessions of the database, and all sessions are new ones."""
    name = how["setting"]
    what = f"{name} = {HOSTILE[name]}"

    def alter(conn: psycopg.Connection, change: sql.Composable) -> bool:
        database = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("ALTER DATABASE {} {}").format(database, change))
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            "   AND (application_name LIKE 'refold%' OR application_name IN ('chaos producer', 'chaos probe'))"
        )
        return True

    value = sql.Literal(HOSTILE[name]) if name != "search_path" else sql.Identifier(HOSTILE[name])
    try:
        with stage.connect() as conn:
            alter(conn, sql.SQL("SET {} = {}").format(sql.Identifier(name), value))
        time.sleep(how["seconds"])
        said = _operator(stage, done, "doctor", "--json")
        done.note = f"{what}; {done.note}"
        if said.status in (0, 1) and name not in said.out and name != "client_encoding":
            done.wrong.append(("I8", f"refold doctor does not know of {what}"))
    finally:
        reset = sql.SQL("RESET {}").format(sql.Identifier(name))
        if not _watch(stage, DUTY_S, lambda conn: alter(conn, reset)):
            raise RuntimeError(f"{name} could not be reset")


def published(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Everything is published, from now on: no row can be changed of a table without a replica identity."""
    with stage.connect() as conn:
        if not conn.execute("SELECT FROM pg_publication").rowcount:
            conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        else:
            done.note = "it was there"
    said = _operator(stage, done, "doctor", "--json")
    if said.status in (0, 1) and '"publications"' not in said.out:
        done.wrong.append(("I8", "refold doctor says nothing of publications"))


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
            return _open_incident(conn, "held_snapshot", subject)

        _detect(stage, done, DUTY_S, named, f"{subject} holds a snapshot")
        time.sleep(how["seconds"])
    if not _watch(stage, DUTY_S, lambda conn: not _open_incident(conn, "held_snapshot", subject)):
        done.wrong.append(("I8", f"the incident of {subject} is open, though it ended {DUTY_S:.0f} s ago"))


def _open_incident(conn: psycopg.Connection, kind: str, subject: str) -> bool:
    return bool(
        conn.execute(
            "SELECT FROM refold.incidents WHERE kind = %s AND subject = %s AND resolved_at IS NULL", (kind, subject)
        ).rowcount
    )


def hot_key(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """One user does as much as all others together; always the same."""
    label = f"hot-{done.began:.6f}"
    maker = Maker(label, random.Random(label))
    book = journal.Journal(stage.journals / f"{label}.journal")
    sent = 0
    with Log(stage.url, source="faults") as log:
        while sent < how["events"]:
            events = maker.clean(250)
            for event in events:
                event["user_id"] = "hot"
            batch = book.attempted("faults", events)
            book.acknowledged(batch, [receipt.answer.value for receipt in log.append(events)])
            sent += len(events)
    done.note = f"{sent} events"


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
    "poison in decoding": poisoned_in_decoding,
    "poison together": poisoned_together,
    "poison in the view": poisoned_in_the_view,
    "log damaged": log_damaged,
    "settings turned hostile": settings_turned_hostile,
    "published": published,
    "snapshot held": snapshot_held,
    "hot key": hot_key,
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
