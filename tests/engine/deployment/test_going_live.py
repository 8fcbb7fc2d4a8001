"""What goes live, and when: a refused build, a reader of a stream that is replaced, a reader that was abandoned."""

from __future__ import annotations

import threading

from refold.engine.deployment.create import make_builds, new_deployment
from refold.engine.deployment.deploy import rebuild
from refold.engine.deployment.promote import go_live
from refold.model.projection.definition import load_directory
from tests.support.law import worker_connection
from tests.support.scratch import Scratch


def test_a_build_that_cannot_go_live_stops_no_worker(scratch: Scratch) -> None:
    scratch.worker.execute(
        "SET ROLE NONE; UPDATE refold.settings SET max_dead_letters = 0, too_many_dead_letters = 'stop';"
        " SET ROLE refold_worker"
    )
    scratch.deploy(sums="SELECT action, sum((metadata ->> 'n')::int) AS s FROM events GROUP BY action")
    scratch.deploy(live=False, sums="SELECT action, sum((metadata ->> 'm')::int) AS s FROM events GROUP BY action")
    scratch.worker.execute("UPDATE refold.deployments SET promote = true")
    scratch.append(metadata={"n": 1, "m": "none"})
    scratch.drain()
    assert scratch.rows("sums") == [("a", 1)]
    assert scratch.build("sums").error is not None


def test_a_reader_made_while_its_stream_is_replaced(scratch: Scratch, database_url: str) -> None:
    scratch.append(3)
    scratch.deploy(clicks="SELECT action FROM events")
    rebuild(scratch.worker, scratch.folder, ["clicks"], lambda progress: None, promote=False)
    scratch.write(counts="SELECT action, count(*) AS n FROM clicks GROUP BY action")
    definition = load_directory(scratch.folder)["counts"]
    with worker_connection(database_url) as other:
        switch = threading.Thread(
            target=go_live, args=(scratch.worker, scratch.folder, ["clicks"], lambda progress: None)
        )
        with other.transaction():
            make_builds(other, [definition], new_deployment(other, "deploy", promote=True), resumed={})
            switch.start()
            # Long enough for the switch to have looked; it cannot end before this transaction does.
            switch.join(0.5)
            assert switch.is_alive()
        switch.join()
    scratch.append()
    scratch.drain()
    assert scratch.rows("counts") == [("a", 4)]


def test_an_abandoned_reader_does_not_go_live(scratch: Scratch) -> None:
    scratch.append()
    scratch.deploy(
        live=False,
        clicks="SELECT action FROM events",
        counts="SELECT action, count(*) AS n FROM clicks GROUP BY action",
    )
    scratch.worker.execute("UPDATE refold.deployments SET promote = true")
    scratch.deploy(clicks="SELECT action FROM events WHERE action <> 'b'", counts=None)
    scratch.drain()
    assert scratch.build("counts").state == "retired"
