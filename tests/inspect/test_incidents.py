"""Pages of incidents and the report agree on what ended without anybody."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from refold.inspect.incidents import incidents
from refold.inspect.report import report
from refold.postgres.connect import Role, connection
from refold.store.incidents import acknowledge, detect, resolve
from tests.support.law import worker_connection

DAY = timedelta(days=1)


@pytest.mark.parametrize("reader", ["refold_observer", "refold_inspector"])
def test_the_page_and_the_report_count_the_same(
    database_url: str, admin: psycopg.Connection[Any], reader: Role
) -> None:
    ends = {"audits": True, "listener": True, "refold reconcile": False, "deployment": False}
    admin.execute("INSERT INTO refold.duties (name, started_at) VALUES ('audits', now()) ON CONFLICT DO NOTHING")
    with worker_connection(database_url) as worker:
        for by in ends:
            detect(worker, "drift", by, by="audits", evidence={})
            resolve(worker, "drift", by, by=by, outcome={})
        # It ends by itself, but only after a person has mended the cause.
        detect(worker, "dead_letters", "letters", by="audits", evidence={})
        resolve(worker, "dead_letters", "letters", by="audits", outcome={})
        taken = detect(worker, "drift", "taken", by="audits", evidence={})
        acknowledge(worker, taken, by="ann")
        resolve(worker, "drift", "taken", by="audits", outcome={})
    with connection(database_url, reader, autocommit=True) as conn:
        page = incidents(conn, DAY)
    assert {one.incident.subject: one.by_itself for one in page.told} == ends | {"letters": False, "taken": False}
    assert {one.kind: one.by_itself for one in page.spans} == {"drift": 2, "dead_letters": 0}
    with connection(database_url, "refold_inspector", autocommit=True) as conn:
        assert report(conn, DAY).toil.autonomy == pytest.approx(2 / 6)
