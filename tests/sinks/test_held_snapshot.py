"""While somebody holds an old snapshot nothing can be vacuumed: what a delivery reads must not grow with it."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from refold.inspect.sinks import sink_statuses
from refold.service.duties.sinks import run as watch_sinks
from refold.sinks.deliver import Deliverer
from refold.sinks.run import SETTINGS
from refold.store import sinks
from refold.store.builds.compiled import Compiler
from tests.support.blocks import touched
from tests.support.delivering import Connection, deliver, deploy_sink, differences, to_postgres, url_of
from tests.support.scratch import Scratch

TURNS = {"rows": 450, "events": 150}
"""A sink of events reads its stream, and its queue has no messages."""
UNCHANGED = 1.5
SPARE = 6
WHOLE = 40
"""Pages of a queue so small that the planner may read it whole instead of by its index, in three statements."""


METRICS = {
    "rows": "SELECT action, count(*) AS events FROM events GROUP BY action",
    "events": "SELECT event_id, action FROM events",
}


@pytest.mark.slow
@pytest.mark.parametrize("grain", METRICS)
def test_turns_and_looks_read_no_more_than_at_first(scratch: Scratch, target: Connection, grain: str) -> None:
    scratch.deploy_one("followed", METRICS[grain])
    scratch.append(1)
    scratch.drain()
    sink = deploy_sink(
        scratch.worker, "copy", f'grain = "{grain}"\n' + to_postgres("followed", url_of(scratch, target))
    )
    queue = f"q_refold_sink_{sink.sink_id}"
    deliver(scratch.worker, scratch.folder, "copy")
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "test")
    with (
        psycopg.connect(scratch.url, autocommit=True) as watch,
        psycopg.connect(scratch.url) as holder,
        psycopg.connect(scratch.url, autocommit=True) as reader,
    ):
        for name, value in SETTINGS.items():
            scratch.worker.execute("SELECT set_config(%s, %s, false)", (name, value))

        def turn() -> None:
            while deliverer.waits(sink):
                deliverer.turn(sink)

        def look() -> None:
            state, now = sinks.state(scratch.worker, sink.sink_id)
            assert not deliverer.due(sink, state, now)

        def status() -> None:
            sink_statuses(reader)

        def measured() -> dict[str, dict[str, int]]:
            scratch.append(1)
            scratch.drain()
            return {
                "turn": touched(watch, scratch.worker, turn),
                "look": touched(watch, scratch.worker, look),
                "status": touched(watch, reader, status),
            }

        for _ in range(5):
            measured()
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM refold.events")
        first = measured()
        for _ in range(TURNS[grain]):
            scratch.append(1)
            scratch.drain()
            turn()
        # The planner may know that next to nothing is left in the queue. Autovacuum reads too, now and then.
        watch.execute(sql.SQL("ANALYZE {}").format(sql.Identifier("pgmq", queue)))
        lasts = [measured() for _ in range(5)]
        holder.rollback()
    deliverer.release()
    assert differences(scratch.worker, "followed", target) == []
    for what in first:
        for table in (queue, "sink_states", "sink_checksums", "sinks"):
            bound = first[what].get(table, 0) * UNCHANGED + SPARE + WHOLE * (what == "status" and table == queue)
            assert min(last[what].get(table, 0) for last in lasts) <= bound, (what, table, first, lasts)


@pytest.mark.parametrize("grain", METRICS)
def test_what_a_receiver_has_is_recorded_when_it_is_calm(
    scratch: Scratch, target: Connection, grain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch.deploy_one("followed", METRICS[grain])
    scratch.append(1)
    scratch.drain()
    sink = deploy_sink(
        scratch.worker, "copy", f'grain = "{grain}"\n' + to_postgres("followed", url_of(scratch, target))
    )
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "test")

    def due() -> bool:
        return deliverer.due(sink, *sinks.state(scratch.worker, sink.sink_id))

    while due():
        deliverer.turn(sink)
    for _ in range(3):
        scratch.append(1)
        scratch.drain()
        while due():
            deliverer.turn(sink)
    assert sinks.unknown_slices(scratch.worker, sink.sink_id)
    # Nothing was lost, so nothing is to be given again.
    watch_sinks(scratch.worker, Compiler(scratch.folder))
    assert sinks.state(scratch.worker, sink.sink_id)[0].following
    monkeypatch.setattr("refold.sinks.deliver.SETTLING", 0.0)
    assert due()
    while due():
        deliverer.turn(sink)
    build = sinks.state(scratch.worker, sink.sink_id)[0].build_id
    assert build is not None
    assert not sinks.unknown_slices(scratch.worker, sink.sink_id)
    assert sinks.differing(scratch.worker, sink.sink_id, build) == []
    deliverer.release()
