"""An incident about a build that was replaced does not stay open for ever; when the build comes back, so does it."""

from __future__ import annotations

from pathlib import Path

from refold import append
from refold.engine.deployment.deploy import rebuild
from refold.engine.deployment.rollback import rollback
from refold.service.duties.stale_incidents import run
from refold.store import incidents
from refold.store.builds.compiled import Compiler
from tests.engine.deployment.test_rollback import Connection, Project
from tests.engine.isolate.prices import LENIENT, STRICT
from tests.support.law import worker_connection
from tests.support.making import events


def open_incidents(worker: Connection) -> set[tuple[str, str]]:
    return {(one.kind, one.subject) for one in incidents.find(worker, "i.resolved_at IS NULL")}


def test_dead_letters_of_a_replaced_build(tmp_path: Path, database_url: str, conn: Connection) -> None:
    conn.autocommit = True
    conn.execute(STRICT)
    with worker_connection(database_url) as worker:
        project = Project(tmp_path, database_url, worker)
        append(conn, [*events(3), {"id": "free", "user_id": "free", "action": "a", "ts": 1, "metadata": {"n": "free"}}])
        worth = "SELECT public.price(metadata ->> 'n') AS worth, count(*) AS events FROM events GROUP BY worth"
        project.deploy(worth=worth)
        replaced = ("dead_letters", project.live("worth").table_name)
        compiler = Compiler(tmp_path)
        incidents.detect(worker, "drift", "long_gone", by="a test", evidence={})
        incidents.detect(worker, "drift", "worth", by="a test", evidence={})
        run(worker, compiler)
        assert open_incidents(worker) == {replaced, ("drift", "worth")}
        conn.execute(LENIENT)
        rebuild(worker, tmp_path, ["worth"], lambda progress: None)
        # With the switch itself: nobody lists these letters any more, and no worker need live to see that.
        assert open_incidents(worker) == {("drift", "worth")}
        run(worker, compiler)
        assert open_incidents(worker) == {("drift", "worth")}
        rollback(worker, tmp_path, "worth", lambda progress: None)
        assert open_incidents(worker) == {replaced, ("drift", "worth")}
