"""`refold sinks skip`: what is let go is what was counted, and every other row is delivered once."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import psycopg
import pytest
from psycopg import sql

from refold import append
from refold.engine.reconcile.release import release
from refold.errors import BuildError, InputError
from refold.model.sink.state import SinkState, collapsed
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.failpoints import POINTS
from refold.postgres.rows import one_row
from refold.service.duties.sinks import run as run_duty
from refold.sinks import skip as skipping
from refold.sinks import stream
from refold.sinks.audit import audit
from refold.sinks.deliver import Deliverer
from refold.sinks.skip import Skip, look, skip
from refold.store import outbox, sinks, undelivered
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import find as letters
from tests.conftest import ServerUnderTest
from tests.sinks.test_events import FACTS, TRANSFORM, given, of_events
from tests.sinks.test_histories import again
from tests.sinks.test_processes import delivering
from tests.support.delivering import SECRET, Connection, deliver, deploy_sink, to_postgres, to_webhook, url_of
from tests.support.logins import login
from tests.support.receiving import Hook, Received
from tests.support.scratch import Scratch
from tests.support.waiting import wait_until

STEPS = [point for point in POINTS if point.startswith("skip")]


@pytest.fixture
def waiting(scratch: Scratch, receiver: Hook) -> Scratch:
    """A sink that has delivered three rows, and whose receiver is away when six more come."""
    scratch.deploy(facts=FACTS)
    scratch.append(3)
    scratch.drain()
    deploy_sink(scratch.worker, "copy", of_events(to_webhook("facts", receiver.url)))
    deliver(scratch.worker, scratch.folder, "copy")
    receiver.status(503)
    scratch.append(6)
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    return scratch


def go_on(scratch: Scratch, receiver: Hook) -> list[str]:
    """Let the receiver be back, and return what it was given of all."""
    receiver.answer = lambda request, handler: (200, {})
    again(scratch.worker, sinks.known(scratch.worker, "copy").sink_id)
    deliver(scratch.worker, scratch.folder, "copy", me="another")
    return given(receiver)


def state(scratch: Scratch) -> SinkState:
    return sinks.state(scratch.worker, sinks.known(scratch.worker, "copy").sink_id)[0]


def let_go(scratch: Scratch, to: int | datetime | None) -> Skip:
    sink = sinks.known(scratch.worker, "copy")
    return skip(scratch.worker, sink, look(scratch.worker, sink, to), "the test")


def position(scratch: Scratch, event_id: str) -> int:
    row = one_row(scratch.worker, "SELECT position FROM refold.events WHERE event_id = %s", (event_id,))
    return int(row[0])


def test_all_that_waits(waiting: Scratch, receiver: Hook) -> None:
    seen = look(waiting.worker, sinks.known(waiting.worker, "copy"), None)
    assert (seen.rows, seen.refused, seen.nothing) == (6, (), False)
    assert seen.first is not None and seen.last is not None
    assert (seen.first.event_id, seen.last.event_id) == ("e3", "e8")
    before = state(waiting)
    # To look changes nothing.
    assert state(waiting) == before
    assert let_go(waiting, None).rows == 6
    after = state(waiting)
    assert (after.holder, after.failures, after.condition) == (None, before.failures, "active")
    waiting.append(2)
    waiting.drain()
    assert go_on(waiting, receiver) == ["e0", "e1", "e2", "e9", "e10"]
    run_duty(waiting.worker, Compiler(waiting.folder))
    assert go_on(waiting, receiver) == ["e0", "e1", "e2", "e9", "e10"]


def test_up_to_a_position(waiting: Scratch, receiver: Hook) -> None:
    found = let_go(waiting, position(waiting, "e6"))
    assert found.rows == 3
    # They are of one transaction: the rest comes by messages.
    assert sorted(go_on(waiting, receiver)) == ["e0", "e1", "e2", "e6", "e7", "e8"]
    waiting.append(1)
    waiting.drain()
    assert go_on(waiting, receiver)[6:] == ["e9"]


def test_never_backwards(waiting: Scratch, receiver: Hook) -> None:
    let_go(waiting, position(waiting, "e8"))
    before = state(waiting)
    for to in (1, position(waiting, "e5"), position(waiting, "e8")):
        seen = look(waiting.worker, sinks.known(waiting.worker, "copy"), to)
        assert seen.nothing and seen.moved == before.cursor
    assert sorted(go_on(waiting, receiver)) == ["e0", "e1", "e2", "e8"]


def test_transactions_that_wrote_beside_each_other(waiting: Scratch, receiver: Hook) -> None:
    with psycopg.connect(waiting.url) as early, psycopg.connect(waiting.url) as late:
        append(early, [{"id": "early1", "action": "a", "ts": 0}])
        append(late, [{"id": "late1", "action": "a", "ts": 0}])
        append(early, [{"id": "early2", "action": "a", "ts": 0}])
        late.commit()
        waiting.drain()
        # `early` has not ended: nobody knows what it will have written.
        assert let_go(waiting, position(waiting, "late1") + 1).rows == 7
        early.commit()
    waiting.drain()
    assert go_on(waiting, receiver)[3:] == ["early1", "early2"]


def test_a_transaction_that_wrote_on_both_sides(waiting: Scratch, receiver: Hook) -> None:
    with psycopg.connect(waiting.url) as early, psycopg.connect(waiting.url) as late:
        append(early, [{"id": "early1", "action": "a", "ts": 0}])
        append(late, [{"id": "late1", "action": "a", "ts": 0}])
        append(early, [{"id": "early2", "action": "a", "ts": 0}])
        append(late, [{"id": "late2", "action": "a", "ts": 0}])
        early.commit()
        late.commit()
    waiting.drain()
    found = let_go(waiting, position(waiting, "late1") + 1)
    assert (found.rows, len(found.others)) == (8, 2)
    waiting.append(1)
    waiting.drain()
    assert sorted(go_on(waiting, receiver)[3:]) == ["e9", "early2", "late2"]


def test_up_to_a_time(waiting: Scratch, receiver: Hook) -> None:
    (between,) = one_row(waiting.worker, "SELECT clock_timestamp()")
    waiting.append(2)
    waiting.drain()
    sink = sinks.known(waiting.worker, "copy")
    with pytest.raises(InputError, match="yet to come"):
        look(waiting.worker, sink, datetime.now(UTC) + timedelta(days=2))
    assert look(waiting.worker, sink, datetime(2001, 1, 1, tzinfo=UTC)).nothing
    assert let_go(waiting, between).rows == 6
    assert go_on(waiting, receiver)[3:] == ["e9", "e10"]


def test_a_position_that_the_log_does_not_have(waiting: Scratch) -> None:
    sink = sinks.known(waiting.worker, "copy")
    for to in (0, position(waiting, "e8") + 2):
        with pytest.raises(InputError, match="is not in the log, whose positions go from 1 to 10"):
            look(waiting.worker, sink, to)


def test_in_the_middle_of_a_run(scratch: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.next_page, "__defaults__", (4,))
    scratch.deploy(facts=FACTS)
    for _ in range(4):
        scratch.append(3)
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", of_events(to_webhook("facts", receiver.url)))
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "one")
    while state(scratch).target is None:
        deliverer.turn(sink)
    deliverer.release()
    assert given(receiver) == ["e0", "e1", "e2", "e3"]
    assert let_go(scratch, position(scratch, "e2")).rows == 0
    assert let_go(scratch, position(scratch, "e7")).rows == 3
    assert sorted(go_on(scratch, receiver)[4:], key=lambda one: int(one[1:])) == ["e7", "e8", "e9", "e10", "e11"]


def test_refused_rows_go_with_what_is_before(waiting: Scratch, receiver: Hook) -> None:
    def answer(request: Received, handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
        ids = {change["key"]["event_id"] for change in request.changes}
        return (422 if ids & {"e4", "e7"} else 200), {}

    receiver.answer = answer
    again(waiting.worker, sinks.known(waiting.worker, "copy").sink_id)
    deliver(waiting.worker, waiting.folder, "copy", me="another")
    assert undelivered.waiting(waiting.worker, state(waiting).sink_id) == 2
    found = let_go(waiting, position(waiting, "e6"))
    assert (found.rows, len(found.refused)) == (0, 1)
    left = waiting.worker.execute(
        "SELECT key ->> 'event_id', state, reason FROM refold.undelivered ORDER BY 1"
    ).fetchall()
    assert left == [("e4", "dropped", "the test"), ("e7", "waiting", None)]
    assert len(let_go(waiting, None).refused) == 1


def test_a_message_about_a_row_that_is_let_go(
    scratch: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A letter that is released before its page comes, and one that is released behind it."""
    scratch.deploy(graded=TRANSFORM)
    sink = deploy_sink(scratch.worker, "copy", of_events(to_webhook("graded", receiver.url)))
    scratch.append(1, metadata={"n": 0})
    scratch.append(1)
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    receiver.status(503)
    scratch.append(1, metadata={"n": 0})
    scratch.drain()
    monkeypatch.setenv("REFOLD_TEST_MENDED", "1")
    for letter in letters(scratch.worker):
        assert release(scratch.worker, Compiler(scratch.folder), letter).answer == "released"
    assert outbox.waits(scratch.worker, sink.sink_id, 0)
    # The rows of e2 come by no page any more, and no message tells of them; those of e0 lie behind the cursor.
    seen = look(scratch.worker, sink, None)
    assert (seen.rows, sorted(seen.named)) == (4, ['{"event_id": "e0#0"}', '{"event_id": "e0#1"}'])
    again(scratch.worker, sink.sink_id)
    assert let_go(scratch, 1).rows == 0
    assert let_go(scratch, None).rows == 4
    scratch.append(1)
    scratch.drain()
    assert go_on(scratch, receiver) == ["e1#0", "e1#1", "e3#0", "e3#1"]


def test_what_changes_after_it_was_counted_is_delivered(
    scratch: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch.deploy(graded=TRANSFORM)
    sink = deploy_sink(scratch.worker, "copy", of_events(to_webhook("graded", receiver.url)))
    scratch.append(1, metadata={"n": 0})
    scratch.append(1)
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    scratch.append(1)
    scratch.drain()
    counted = skipping._counted
    [letter] = letters(scratch.worker)

    def meanwhile(*given: Any) -> Skip:
        found = counted(*given)
        monkeypatch.setenv("REFOLD_TEST_MENDED", "1")
        release(scratch.worker, Compiler(scratch.folder), letter)
        return found

    seen = look(scratch.worker, sink, None)
    monkeypatch.setattr(skipping, "_counted", meanwhile)
    assert skip(scratch.worker, sink, seen, "the test").rows == 2
    told = go_on(scratch, receiver)
    assert (told[:2], sorted(told[2:])) == (["e1#0", "e1#1"], ["e0#0", "e0#1"])


def test_a_table_gets_what_was_let_go_when_slices_are_compared(
    scratch: Scratch, target: Connection, admin: Connection
) -> None:
    """And not before: a duty that looks for lost messages leaves the slice alone."""
    scratch.deploy(facts=FACTS)
    scratch.append(3)
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", of_events(to_postgres("facts", url_of(scratch, target))))
    deliver(scratch.worker, scratch.folder, "copy")
    for slice_ in (1, 2):
        admin.execute("SELECT setval('refold.events_position', %s, false)", (slice_ << POSITION_BITS,))
        scratch.append(3)
        scratch.drain()
        if slice_ == 1:
            assert let_go(scratch, None).slices == (1,)
    for _ in range(3):
        deliver(scratch.worker, scratch.folder, "copy")
        run_duty(scratch.worker, Compiler(scratch.folder))
    ids = "SELECT event_id FROM copy ORDER BY 1"
    assert [one for (one,) in target.execute(ids).fetchall()] == ["e0", "e1", "e2", "e6", "e7", "e8"]
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "auditor")
    found = audit(scratch.worker, deliverer, sink)
    deliverer.release()
    assert [(here, there) for _, here, there in found.wrong] == [(3, 0)]
    deliver(scratch.worker, scratch.folder, "copy")
    assert len(target.execute(ids).fetchall()) == 9


def test_a_table_that_has_not_begun(scratch: Scratch, target: Connection, admin: Connection) -> None:
    scratch.deploy(facts=FACTS)
    scratch.append(3)
    scratch.drain()
    deploy_sink(scratch.worker, "copy", of_events(to_postgres("facts", url_of(scratch, target))))
    assert let_go(scratch, None).rows == 3
    for slice_ in (1, 2):
        admin.execute("SELECT setval('refold.events_position', %s, false)", (slice_ << POSITION_BITS,))
        scratch.append(3)
        scratch.drain()
        for _ in range(3):
            deliver(scratch.worker, scratch.folder, "copy")
            run_duty(scratch.worker, Compiler(scratch.folder))
    rows = target.execute("SELECT event_id FROM copy ORDER BY 1").fetchall()
    assert [one for (one,) in rows] == [f"e{at}" for at in range(3, 9)]


def test_sinks_without_a_place_in_a_stream(scratch: Scratch, target: Connection) -> None:
    scratch.deploy(facts=FACTS)
    rows = deploy_sink(scratch.worker, "rows", to_postgres("facts", url_of(scratch, target), "other"))
    with pytest.raises(InputError, match="no purge waits for it"):
        look(scratch.worker, rows, None)
    sink = deploy_sink(scratch.worker, "copy", of_events(to_postgres("facts", url_of(scratch, target))))
    assert look(scratch.worker, sink, None).rows == 0
    with scratch.worker.transaction():
        sinks.step(scratch.worker, sink.sink_id, lambda now, at: collapsed(now))
    with pytest.raises(InputError, match="compares slices"):
        look(scratch.worker, sink, None)
    with scratch.worker.transaction():
        sinks.switch(scratch.worker, "facts", None)
    with pytest.raises(InputError, match="no build of facts is live"):
        look(scratch.worker, sink, None)


def test_another_build_in_between(waiting: Scratch) -> None:
    sink = sinks.known(waiting.worker, "copy")
    seen = look(waiting.worker, sink, None)
    waiting.deploy(facts=FACTS.replace("'n'", "'m'"))
    waiting.drain()
    run_duty(waiting.worker, Compiler(waiting.folder))
    with pytest.raises(BuildError, match="another build of facts"):
        skip(waiting.worker, sink, seen, "the test")
    assert state(waiting).holder is None


def test_what_is_delivered_while_it_counts_is_not_let_go(
    waiting: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sinks.known(waiting.worker, "copy")
    seen = look(waiting.worker, sink, None)
    counted, times = skipping._counted, 0

    def meanwhile(*given: Any) -> Skip:
        """Count, and be so slow that the lease is over and another one delivers."""
        nonlocal times
        found = counted(*given)
        times += 1
        if times == 1:
            go_on(waiting, receiver)
        return found

    monkeypatch.setattr(skipping, "_counted", meanwhile)
    assert skip(waiting.worker, sink, seen, "the test").rows == 0
    assert times == 2
    assert given(receiver) == [f"e{at}" for at in range(9)]


def test_a_sink_that_is_too_fast(waiting: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = sinks.known(waiting.worker, "copy")
    seen = look(waiting.worker, sink, None)
    counted = skipping._counted

    def meanwhile(*given: Any) -> Skip:
        found = counted(*given)
        waiting.append(1)
        waiting.drain()
        go_on(waiting, receiver)
        return found

    monkeypatch.setattr(skipping, "_counted", meanwhile)
    with pytest.raises(BuildError, match="faster than its rows are counted") as refused:
        skip(waiting.worker, sink, seen, "the test")
    assert refused.value.remedy is not None and "refold sinks pause copy" in refused.value.remedy
    assert state(waiting).holder is None


@pytest.mark.slow
def test_beside_a_process_that_delivers(scratch: Scratch, receiver: Hook) -> None:
    """Each row is let go or given; none that comes later is let go."""
    scratch.deploy(facts=FACTS)
    scratch.drain()
    deploy_sink(scratch.worker, "copy", of_events(to_webhook("facts", receiver.url)))
    number, gone, stop = 0, 0, threading.Event()

    def produce() -> None:
        while not stop.is_set():
            scratch.append(5)
            scratch.drain()

    with delivering(scratch, SECRET=SECRET):
        wait_until(lambda: bool(state(scratch).following), 60)
        producer = threading.Thread(target=produce)
        producer.start()
        try:
            for _ in range(10):
                before = len(given(receiver))
                wait_until(lambda before=before: len(given(receiver)) > before, 60)  # type: ignore[misc]
                with psycopg.connect(scratch.url, autocommit=True) as conn:
                    sink = sinks.known(conn, "copy")
                    gone += skip(conn, sink, look(conn, sink, None), "the test").rows
        finally:
            stop.set()
            producer.join()
        (number,) = one_row(scratch.worker, "SELECT count(*) FROM refold.events")
        last = f"e{number - 1}"
        wait_until(lambda: last in given(receiver) or not look(scratch.worker, sink, None).rows, 60)
        wait_until(lambda: not look(scratch.worker, sink, None).rows, 60)
    ids = set(given(receiver))
    # A row that was under way when it was counted is let go and given.
    assert number - gone <= len(ids) <= number
    assert gone < number


def command(
    scratch: Scratch, *options: str, stdin: int = subprocess.DEVNULL, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "refold", "sinks", "skip", "copy", *options],
        env=os.environ | {"REFOLD_DATABASE_URL": scratch.url} | environment,
        stdin=stdin, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere(waiting: Scratch, receiver: Hook, step: str) -> None:
    before = state(waiting)
    done = command(waiting, "--to", "now", "--yes", "--reason", "killed", REFOLD_CRASH_AT=step)
    assert done.returncode == -signal.SIGKILL, done.stderr
    outcome = waiting.worker.execute("SELECT outcome FROM refold.actions WHERE command = 'sinks skip'").fetchall()
    if step == "skip_committed":
        assert outcome == [("6 rows let go",)]
        assert go_on(waiting, receiver) == ["e0", "e1", "e2"]
    else:
        assert outcome == [(None,)]
        assert state(waiting).cursor == before.cursor
        assert go_on(waiting, receiver) == [f"e{at}" for at in range(9)]


@pytest.mark.slow
def test_the_command(waiting: Scratch) -> None:
    before = state(waiting)
    refused = command(waiting, "--to", "now")
    assert refused.returncode == 2 and "for a reason" in refused.stderr
    refused = command(waiting, "--to", "now", "--reason", "x")
    assert refused.returncode == 2 and "6 rows would never be delivered, and stdin is not a terminal" in refused.stderr
    refused = command(waiting, "--to", "yesterday", "--dry-run")
    assert refused.returncode == 2 and "not a position, a time or `now`" in refused.stderr
    looked = command(waiting, "--to", "7", "--dry-run")
    assert looked.returncode == 0, looked.stderr
    assert "copy: 3 rows would be let go\n  first  position 4, event e3, recorded " in looked.stdout
    assert "3 rows behind position 7 would be delivered out of the stream's order" in " ".join(looked.stderr.split())
    told = json.loads(command(waiting, "--to", "now", "--dry-run", "--json").stdout)
    assert (told["rows"], told["refused"], told["segments"], told["skipped"]) == (6, 0, [], False)
    assert (told["first"]["position"], told["last"]["event_id"]) == (4, "e8")
    assert state(waiting) == before
    assert waiting.worker.execute("SELECT FROM refold.actions").rowcount == 0
    done = command(waiting, "--to", "now", "--yes", "--reason", "gone", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["skipped"] is True
    again_ = command(waiting, "--to", "now", "--yes", "--reason", "gone")
    assert "copy: nothing waits before the end of its stream" in again_.stdout
    actions = waiting.worker.execute("SELECT command, arguments, outcome FROM refold.actions").fetchall()
    assert actions == [("sinks skip", {"name": "copy", "to": "now", "reason": "gone"}, "6 rows let go")]


@pytest.mark.parametrize(("answer", "rows", "status"), [(b"n\n", 6, 1), (b"y\n", 0, 0)])
def test_it_asks_on_a_terminal(waiting: Scratch, answer: bytes, rows: int, status: int) -> None:
    near, far = pty.openpty()
    os.write(near, answer)
    done = command(waiting, "--to", "now", "--reason", "gone", stdin=far)
    os.close(far)
    os.close(near)
    assert done.returncode == status and "Let 6 rows of copy go?" in done.stderr, done.stderr
    assert look(waiting.worker, sinks.known(waiting.worker, "copy"), None).rows == rows


@pytest.mark.parametrize("role", ["refold_observer", "refold_inspector", "refold_producer", "refold_analyst"])
def test_who_may_not(waiting: Scratch, server: ServerUnderTest, conn: Connection, role: str) -> None:
    conn.autocommit = True
    before = state(waiting)
    with login(server, conn, role) as url:
        done = command(waiting, "--to", "now", "--yes", "--reason", "x", REFOLD_DATABASE_URL=url)
        assert done.returncode == 2 and "refold_worker" in done.stderr, done.stderr
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(f"SET ROLE {role}".encode())
            for statement in (
                "INSERT INTO refold.sink_states SELECT * FROM refold.sink_states",
                "UPDATE refold.undelivered SET state = 'dropped', ended_at = now(), reason = 'x'",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    other.execute(statement.encode())
    assert state(waiting) == before


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_histories(scratch: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Whatever waits before the place is let go, every other row is given once, in whatever pages and transactions."""
    chance = random.Random(seed)
    monkeypatch.setattr(stream.next_page, "__defaults__", (3 + 4 * seed,))
    scratch.deploy(facts=FACTS)
    deploy_sink(scratch.worker, "copy", of_events(to_webhook("facts", receiver.url)))
    receiver.answer = lambda request, handler: (chance.choice((200, 200, 503)), {})
    open_: list[psycopg.Connection[Any]] = []
    gone: set[str] = set()
    number = 0

    def produce() -> None:
        nonlocal number
        conn = chance.choice(open_) if open_ and chance.random() < 0.6 else psycopg.connect(scratch.url)
        if conn not in open_:
            open_.append(conn)
        for _ in range(chance.randint(1, 4)):
            append(conn, [{"id": f"r{number}", "action": "a", "ts": 0}])
            number += 1

    def end() -> None:
        if open_:
            conn = open_.pop(chance.randrange(len(open_)))
            conn.commit()
            conn.close()

    def attempt() -> None:
        again(scratch.worker, sinks.known(scratch.worker, "copy").sink_id)
        deliver(scratch.worker, scratch.folder, "copy", me=str(chance.random()))

    def let_some_go() -> None:
        (last,) = one_row(scratch.worker, "SELECT last_value FROM refold.events_position")
        to = chance.choice((None, chance.randint(1, int(last))))
        table = sql.Identifier("refold_builds", scratch.build("facts").table_name)
        rows = scratch.worker.execute(
            sql.SQL("SELECT event_id FROM {} WHERE %(to)s::bigint IS NULL OR position < %(to)s::bigint").format(table),
            {"to": to},
        ).fetchall()
        expected = {one for (one,) in rows} - set(given(receiver)) - gone
        assert let_go(scratch, to).rows == len(expected)
        gone.update(expected)

    steps = [produce, produce, produce, end, end, scratch.drain, scratch.drain, attempt, let_some_go]
    for _ in range(150):
        chance.choice(steps)()
    while open_:
        end()
    scratch.drain()
    assert gone and len(gone) < number
    told = go_on(scratch, receiver)
    assert sorted(told) == sorted({f"r{at}" for at in range(number)} - gone)
