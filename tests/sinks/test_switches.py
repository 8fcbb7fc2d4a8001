"""Other builds of a metric: its sinks deliver what is live, whatever changed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from refold.engine.deployment.rename import rename
from refold.postgres.connect import connect
from refold.service.duties.sinks import run
from refold.sinks import deploy
from refold.sinks.audit import audit
from refold.sinks.deliver import Deliverer
from refold.store import sinks
from refold.store.builds.compiled import Compiler
from tests.support.delivering import (
    SECRET,
    Connection,
    deliver,
    deploy_sink,
    follow,
    insist,
    to_postgres,
    to_webhook,
    url_of,
)
from tests.support.receiving import hook
from tests.support.scratch import Scratch

GROUPED = "SELECT user_id, {} FROM events GROUP BY user_id"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("avg((metadata->>'n')::numeric) AS mean", "avg((metadata->>'n')::numeric) + 1 AS mean"),
        ("count(*) AS events", "count(*) AS total"),
        ("count(*) AS events", "count(*) * 2 AS events"),
        ("count(*) AS events", "count(*)::text AS other"),
        ("count(*) AS events", "count(*) AS events, count(*) AS again"),
    ],
)
def test_a_build_that_differs_in_its_view_alone(scratch: Scratch, target: Connection, before: str, after: str) -> None:
    follow(scratch, target, "m", GROUPED.format(before))
    scratch.deploy_one("m", GROUPED.format(after))
    scratch.drain()
    insist(scratch, target, "m")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SELECT user_id, action, count(*) AS n FROM events GROUP BY user_id, action",
         "SELECT user_id, count(*) AS n FROM events GROUP BY user_id"),
        ("SELECT user_id, count(*) AS n FROM events GROUP BY user_id",
         "SELECT user_id, action, count(*) AS n FROM events GROUP BY user_id, action"),
    ],
)  # fmt: skip
def test_another_key(scratch: Scratch, target: Connection, before: str, after: str) -> None:
    follow(scratch, target, "m", before)
    scratch.append(3, user_id="ann", action="b")
    scratch.drain()
    insist(scratch, target, "m")
    scratch.deploy_one("m", after)
    scratch.drain()
    insist(scratch, target, "m")


@pytest.mark.parametrize(
    "after",
    [
        "SELECT user_id, count(*) AS n FROM events GROUP BY user_id",
        "SELECT user_id, action, count(*) * 2 AS n FROM events GROUP BY user_id, action",
        "SELECT action, count(*) AS n FROM events GROUP BY action",
    ],
)
def test_a_webhook_after_another_key(scratch: Scratch, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    with hook() as receiver:
        scratch.deploy_one("m", "SELECT user_id, action, count(*) AS n FROM events GROUP BY user_id, action")
        scratch.append(6, user_id="ann")
        scratch.append(2, user_id=None, action="b")
        scratch.drain()
        deploy_sink(scratch.worker, "copy", to_webhook("m", receiver.url))
        deliver(scratch.worker, scratch.folder, "copy")
        scratch.deploy_one("m", after)
        scratch.append(1, user_id="ben")
        scratch.drain()
        deliver(scratch.worker, scratch.folder, "copy")
        state, _ = sinks.state(scratch.worker, sinks.known(scratch.worker, "copy").sink_id)
        assert (state.condition, state.error) == ("active", None)
        assert len(receiver.table()) == len(scratch.rows("m"))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("after", [
    "SELECT user_id, action, count(*) * 2 AS n FROM events GROUP BY user_id, action",
    "SELECT action, count(*) AS n FROM events GROUP BY action",
    "SELECT event_id, user_id FROM events",
])  # fmt: skip
def test_files_after_another_query(scratch: Scratch, tmp_path: Path, form: str, after: str) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    scratch.deploy_one("m", "SELECT user_id, action, count(*) AS n FROM events GROUP BY user_id, action")
    scratch.append(6, user_id="ann")
    scratch.append(2, user_id=None, action="b")
    scratch.drain()
    deploy_sink(
        scratch.worker,
        "copy",
        f'projection = "m"\nkind = "files"\n[files]\nurl = "file://{folder}"\nformat = "{form}"\n',
    )
    deliver(scratch.worker, scratch.folder, "copy")
    scratch.deploy_one("m", after)
    scratch.append(1, user_id="ben")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    sink = sinks.known(scratch.worker, "copy")
    state, _ = sinks.state(scratch.worker, sink.sink_id)
    assert (state.condition, state.error) == ("active", None)
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "auditor")
    found = audit(scratch.worker, deliverer, sink)
    deliverer.release()
    assert (found.wrong, found.skipped) == ([], None)
    assert found.slices


def test_a_rename(scratch: Scratch, target: Connection) -> None:
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    rename(scratch.worker, scratch.folder, "m", "renamed")
    scratch.append(1, user_id="ann")
    scratch.drain()
    insist(scratch, target, "renamed")


def test_a_build_that_goes_live_while_its_sink_is_deployed(scratch: Scratch, target: Connection) -> None:
    """Neither transaction sees the other: the sink is of a build that is not live any more."""
    scratch.deploy_one("m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    scratch.append(2, user_id="ann")
    scratch.drain()
    with connect(scratch.url, "refold_worker", autocommit=True) as other, other.transaction():
        deploy_sink(other, "copy", to_postgres("m", url_of(scratch, target)))
        scratch.deploy_one("m", "SELECT user_id, count(*) AS n FROM events WHERE action = 'a' GROUP BY user_id")
        scratch.drain()
    run(scratch.worker, Compiler(scratch.folder))
    insist(scratch, target, "m")


@pytest.mark.slow
def test_a_sink_that_is_dropped_while_its_metric_is_switched(scratch: Scratch, target: Connection) -> None:
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    failures: list[BaseException] = []

    def switch() -> None:
        try:
            scratch.deploy_one("m", "SELECT user_id, count(*) AS n FROM events WHERE action = 'a' GROUP BY user_id")
            scratch.drain()
        except BaseException as error:
            failures.append(error)

    with connect(scratch.url, "refold_worker", autocommit=True) as other:
        with other.transaction():
            deploy.drop(other, sinks.known(other, "copy"))
            switching = threading.Thread(target=switch)
            switching.start()
            switching.join(3)
        switching.join()
    assert failures == []
