"""Whatever happens between a metric and its receiver, in the end the receiver has what the metric says.

Random histories of pages, heals, switches, lost, doubled and reordered messages, collapses, and a receiver that fails
before it does what it is told, or after.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from refold.engine.reconcile.reconcile import reconcile
from refold.model.sink_queue import queue
from refold.sinks import deliver as delivering
from refold.sinks.deploy import collapse
from refold.sinks.kinds.postgres import PostgresOptions, PostgresReceiver
from refold.sinks.receiver import Change, Refused, TooLarge, Unavailable, Version
from refold.store import outbox, sinks, undelivered
from refold.store.builds.compiled import Compiler
from tests.sinks.test_rows import METRICS
from tests.support.delivering import Connection, deliver, deploy_sink, differences, to_postgres, url_of
from tests.support.scratch import Scratch

USERS = ("ann", "ben", "cid", "eve", None)


class Lying:
    """Makes deliveries fail as receivers do: refused before anything is done, or done and the answer lost."""

    def __init__(self, chance: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
        self._chance = chance
        self.honest = False
        genuine = PostgresReceiver.deliver

        def deliver(receiver: PostgresReceiver, version: Version, changes: Sequence[Change]) -> None:
            fate = 1.0 if self.honest else self._chance.random()
            if fate < 0.1:
                raise Unavailable("no", status="503")
            if fate < 0.2:
                raise (Refused("no", status="400") if len(changes) == 1 else TooLarge("no", status="413"))
            genuine(receiver, version, changes)
            if fate < 0.35:
                raise Unavailable("the answer was lost")
            if fate < 0.4:
                raise ConnectionError("this process ends here")

        monkeypatch.setattr(PostgresReceiver, "deliver", deliver)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["merge", "vanishing", "having", "facts"])
@pytest.mark.parametrize("seed", range(3))
def test_random_histories(
    scratch: Scratch, target: Connection, monkeypatch: pytest.MonkeyPatch, metric: str, seed: int
) -> None:
    chance = random.Random(f"{metric}{seed}")
    lying = Lying(chance, monkeypatch)
    if seed:
        # So that a turn leaves messages.
        monkeypatch.setattr(delivering, "MESSAGES", seed)
    text = METRICS[metric]
    scratch.deploy_one(metric, text)
    sink = deploy_sink(scratch.worker, "copy", to_postgres(metric, url_of(scratch, target)))
    steps: dict[str, Callable[[], object]] = {
        "events": lambda: scratch.append(
            chance.randint(1, 5), user_id=chance.choice(USERS), action=chance.choice("ab")
        ),
        "page": scratch.drain,
        "tamper": lambda: tamper(scratch, metric),
        "heal": lambda: reconcile(scratch.worker, Compiler(scratch.folder), [metric], depth="deep", by="test"),
        "switch": lambda: scratch.deploy_one(metric, other(text, chance)),
        "double": lambda: messages(scratch, sink.sink_id, "INSERT INTO {} (vt, message) SELECT vt, message FROM {}"),
        "collapse": lambda: collapse(scratch.worker, sink.sink_id),
        "replay": lambda: replay(scratch.worker, sink.sink_id),
        "deliver": lambda: attempt(scratch),
        "restore": lambda: restore(scratch.worker, sink.sink_id),
    }
    weights = [6, 6, 1, 1, 1, 2, 1, 0.3, 8, 0.3]
    for _ in range(60):
        steps[chance.choices(list(steps), weights)[0]]()
    lying.honest = True
    scratch.drain()
    reconcile(scratch.worker, Compiler(scratch.folder), [metric], depth="deep", by="test")
    # Rows that were refused and have not changed since are given when a person asks for it.
    retry(scratch.worker, sink.sink_id)
    again(scratch.worker, sink.sink_id)
    deliver(scratch.worker, scratch.folder, "copy")
    assert undelivered.waiting(scratch.worker, sink.sink_id) == 0
    state, _ = sinks.state(scratch.worker, sink.sink_id)
    assert (state.error, state.following) == (None, True)
    assert differences(scratch.worker, metric, target) == []


def attempt(scratch: Scratch) -> None:
    """Deliver until it fails, as another process each time."""
    again(scratch.worker, sinks.known(scratch.worker, "copy").sink_id)
    # After a kill its lease is over later.
    with suppress(ConnectionError):
        deliver(scratch.worker, scratch.folder, "copy", me=str(random.random()), most=200)


def again(conn: Connection, sink_id: int) -> None:
    """Let the pause and the lease of the sink be over."""
    from refold.model.sink.state import resumed

    with conn.transaction():
        sinks.step(conn, sink_id, lambda now, _: resumed(now))


def retry(conn: Connection, sink_id: int) -> None:
    """What `refold sinks undelivered --retry` does."""
    columns = undelivered.columns(conn, sink_id)
    if columns:
        outbox.send(conn, sink_id, columns, undelivered.keys(sink_id))


def replay(conn: Connection, sink_id: int) -> None:
    from refold.model.sink.state import collapsed

    with conn.transaction():
        sinks.step(conn, sink_id, lambda now, _: collapsed(now))
        sinks.forget_checksums(conn, sink_id)


def restore(conn: Connection, sink_id: int) -> None:
    """What this database knows of the sink is older than what the receiver has."""
    with conn.transaction():
        sinks.step(conn, sink_id, lambda now, _: replace(now, number=now.number + 1, epoch=now.epoch - 1000))
        conn.execute("DELETE FROM refold.sink_checksums WHERE sink_id = %s", (sink_id,))


def messages(scratch: Scratch, sink_id: int, statement: str) -> None:
    table = sql.Identifier("pgmq", f"q_{queue(sink_id)}")
    scratch.worker.execute(sql.SQL(statement).format(table, table))


def tamper(scratch: Scratch, metric: str) -> None:
    table = sql.Identifier("refold_builds", scratch.build(metric).table_name)
    scratch.worker.execute(sql.SQL("DELETE FROM {} WHERE user_id = 'ann'").format(table))


def other(text: str, chance: random.Random) -> str:
    """Return another query with the same columns, or the same."""
    return (
        text.replace("FROM events", "FROM events WHERE action <> 'b'")
        if (chance.random() < 0.5 and "WHERE" not in text)
        else text
    )


def test_an_older_delivery_changes_nothing(scratch: Scratch, target: Connection) -> None:
    """A deliverer that was frozen before it sent wakes up after another has delivered newer rows."""
    scratch.deploy(merge=METRICS["merge"])
    scratch.append(3, user_id="ann")
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_postgres("merge", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    before = target.execute("SELECT * FROM copy").fetchall()
    epoch, number, owner = target.execute("SELECT epoch, number, owner FROM refold_sinks").fetchone() or (0, 0, "")
    late = PostgresReceiver(PostgresOptions(url=url_of(scratch, target), table="copy"))
    late._owner = owner
    from refold.sinks.read import source
    from refold.store.builds.build import live

    build = live(scratch.worker, "merge")
    assert build is not None
    late._shape = source(
        scratch.worker, "copy", "rows", build, Compiler(scratch.folder).of(scratch.worker, build)
    ).shape
    late._connect("copy")
    key = '{"action": "a", "user_id": "ann"}'
    with pytest.raises(Unavailable, match="later than"):
        late.deliver(Version(epoch, number - 1), [Change(key, 0, None)])
    late.close()
    assert target.execute("SELECT * FROM copy").fetchall() == before


def test_messages_are_in_the_transaction_of_the_rows(scratch: Scratch, target: Connection) -> None:
    scratch.deploy(merge=METRICS["merge"])
    sink = deploy_sink(scratch.worker, "copy", to_postgres("merge", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    scratch.append(3, user_id="ann")
    scratch.drain()
    with psycopg.connect(scratch.url) as conn:
        [(rows, message)] = conn.execute(
            sql.SQL("SELECT (SELECT xmin::text FROM {} LIMIT 1), (SELECT xmin::text FROM {} LIMIT 1)").format(
                sql.Identifier("refold_builds", scratch.build("merge").table_name),
                sql.Identifier("pgmq", f"q_{queue(sink.sink_id)}"),
            )
        ).fetchall()
    assert rows == message is not None
    assert outbox.backlog(scratch.worker, sink.sink_id, 0).messages == 1


def test_a_row_that_was_refused_is_given_again_when_slices_are_compared(
    scratch: Scratch, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch.deploy(merge=METRICS["merge"])
    scratch.append(3, user_id="ann")
    scratch.append(3, user_id="ben")
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", to_postgres("merge", url_of(scratch, target)))
    genuine = PostgresReceiver.deliver

    def refuse(receiver: PostgresReceiver, version: Version, changes: Sequence[Change]) -> None:
        if any('"ann"' in change.key for change in changes):
            raise Refused("no ann here", status="422")
        genuine(receiver, version, changes)

    monkeypatch.setattr(PostgresReceiver, "deliver", refuse)
    deliver(scratch.worker, scratch.folder, "copy")
    [one] = undelivered.every(scratch.worker, sink.sink_id)
    assert (one.key["user_id"], one.status, one.error) == ("ann", "422", "no ann here")
    scratch.append(3, user_id="ben")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    assert target.execute("SELECT user_id, events FROM copy").fetchall() == [("ben", 6)]
    monkeypatch.setattr(PostgresReceiver, "deliver", genuine)
    collapse(scratch.worker, sink.sink_id)
    deliver(scratch.worker, scratch.folder, "copy")
    assert differences(scratch.worker, "merge", target) == []
    assert undelivered.waiting(scratch.worker, sink.sink_id) == 0


def test_a_receiver_that_refuses_everything_gets_no_dead_letters(
    scratch: Scratch, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong form of the body must not empty the metric into the rows that were refused."""
    scratch.deploy(facts=METRICS["facts"])
    scratch.append(200)
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", to_postgres("facts", url_of(scratch, target)))

    def refuse(receiver: PostgresReceiver, version: Version, changes: Sequence[Change]) -> None:
        raise Refused("no", status="400")

    monkeypatch.setattr(PostgresReceiver, "deliver", refuse)
    deliver(scratch.worker, scratch.folder, "copy")
    state, _ = sinks.state(scratch.worker, sink.sink_id)
    assert state.failures == 1
    assert "row after row" in (state.error or "")
    assert undelivered.waiting(scratch.worker, sink.sink_id) == 0
