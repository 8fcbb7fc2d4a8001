"""Values that Postgres hashes alike: a hand edit from one to another is found."""

from __future__ import annotations

import psycopg
import pytest

from refold.service.duties.audits import quick_audit
from refold.store.builds.compiled import Compiler
from tests.support.scratch import Scratch

QUERIES = {
    "merge": "SELECT user_id, max((metadata->>'n')::{}) AS n FROM events GROUP BY user_id",
    "recompute": "SELECT user_id, max((metadata->>'n')::{}) AS n, array_agg(action ORDER BY ts, event_id) AS path"
    " FROM events GROUP BY user_id",
    "facts": "SELECT event_id, (metadata->>'n')::{} AS n FROM events",
}


@pytest.mark.parametrize(
    ("kind", "value"), [("float8", "0"), ("real", "0"), ("numeric", "'NaN'"), ("numeric", "0"), ("integer", "0")]
)
@pytest.mark.parametrize("upkeep", QUERIES)
def test_null_passes_for_no_value(scratch: Scratch, upkeep: str, kind: str, value: str) -> None:
    scratch.deploy_one("edited", QUERIES[upkeep].format(kind))
    scratch.append(1, user_id="u")
    scratch.drain()
    build = scratch.build("edited")
    assert build.upkeep == upkeep
    quick_audit(scratch.worker, Compiler(scratch.folder))
    with psycopg.connect(scratch.url) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute(f'UPDATE refold_builds."{build.table_name}" SET n = {value}'.encode())
    quick_audit(scratch.worker, Compiler(scratch.folder))
    assert scratch.worker.execute("SELECT n FROM metrics.edited").fetchall() == [(None,)]
    assert scratch.worker.execute("SELECT p.differed FROM refold.proofs AS p ORDER BY ended_at").fetchall() == [
        (0,),
        (1,),
    ]
