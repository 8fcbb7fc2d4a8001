"""I14: what readers of a canary see, and that nothing of it is left after its end."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable

import psycopg
from psycopg import sql

from chaos.findings import Findings
from chaos.invariants import canaried
from chaos.oracle import CANARIED, Event, Rows
from chaos.stage import Stage

METRIC = "canaried"
_LOCK = sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier("metrics", METRIC))
_BUILDS = """
SELECT b.state, b.table_name, c.ended_at IS NULL AND n.exposed AND n.shown
FROM refold.builds AS b
LEFT JOIN refold.canary_builds AS n USING (build_id)
LEFT JOIN refold.canaries AS c USING (canary_id)
WHERE b.projection = %s AND (b.state = 'live' OR b.state = 'building' AND c.ended_at IS NULL AND n.shown)
ORDER BY b.build_id
"""


def other(name: str) -> str:
    """The other variant."""
    return next(one for one in CANARIED if one != name)


def seen(conn: psycopg.Connection, reader: str) -> Rows:
    """The metric as a reader on the canary (`on`), or off it (`off`), sees it."""
    conn.execute("SELECT set_config('refold.canary', %s, false)", (reader,))
    return _rows(conn, sql.Identifier("metrics", METRIC))


def _rows(conn: psycopg.Connection, relation: sql.Identifier) -> Rows:
    query = sql.SQL("SELECT action, events FROM {}").format(relation)
    return {(action,): (events,) for action, events in conn.execute(query).fetchall()}


def unlike(stage: Stage) -> list[str]:
    """What is wrong with what both readers see, in one snapshot."""
    wrong = []
    with stage.connect(autocommit=False) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SET LOCAL lock_timeout = '10s'")
        # Before the snapshot: else the view may be that of a switch which the snapshot does not know yet.
        conn.execute(_LOCK)
        builds = conn.execute(_BUILDS, (METRIC,)).fetchall()
        tables = {state: _rows(conn, sql.Identifier("refold_builds", table)) for state, table, _ in builds}
        exposed = any(shows for _, _, shows in builds)
        for reader, state in (("off", "live"), ("on", "building" if exposed else "live")):
            if seen(conn, reader) != tables[state]:
                wrong.append(f"a reader with refold.canary = {reader} does not see the {state} build of {METRIC}")
    return wrong


def left(conn: psycopg.Connection) -> list[str]:
    """What is left of canaries that have ended: views of candidates, and metrics that choose by reader."""
    rows = conn.execute(
        """
        WITH open AS (
            SELECT n.projection FROM refold.canary_builds AS n JOIN refold.canaries AS c USING (canary_id)
            WHERE c.ended_at IS NULL
        )
        SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind = 'v' AND c.relname NOT IN (TABLE open)
          AND (n.nspname = 'metrics_canary'
               OR n.nspname = 'metrics' AND pg_get_viewdef(c.oid) LIKE '%on_canary%')
        UNION ALL
        SELECT DISTINCT 'canary of ' || projection FROM refold.canary_builds
        WHERE shown AND projection NOT IN (TABLE open)
        ORDER BY 1
        """
    ).fetchall()
    return [name for (name,) in rows]


def check_left(conn: psycopg.Connection, found: Findings, *, seconds: float) -> None:
    """Waits until nothing is left of canaries that have ended, for some time at most."""
    end = time.monotonic() + seconds
    while there := left(conn):
        if time.monotonic() > end:
            found.add("I14", f"after {seconds:.0f} s these are left of canaries that have ended: {', '.join(there)}")
            return
        time.sleep(0.5)


def check(stage: Stage, conn: psycopg.Connection, events: Iterable[Event], found: Findings, *, seconds: float) -> None:
    """A last canary while all is quiet: both readers and `refold diff` against the independent count.

    Args:
        stage: of the campaign.
        conn: a superuser's.
        events: what the log holds, as its producers sent it.
        found: takes what does not hold.
        seconds: that workers have to put views right.
    """
    stage.refold("canary", "abort", METRIC)
    check_left(conn, found, seconds=seconds)
    old = canaried(conn)
    new = other(old)
    stage.set_canaried(new)
    begun = stage.refold("deploy", "--canary", "--steps", "50,100", "--soak", "1h")
    if begun.status != 0:
        found.add("I14", f"refold deploy --canary ended with {begun.status}: {begun.err[-500:]}")
        return
    expected = {name: CANARIED[name](list(events)) for name in (old, new)}
    for reader, name in (("off", old), ("on", new)):
        if seen(conn, reader) != expected[name]:
            found.add("I14", f"with refold.canary = {reader} {METRIC} is not the independent count of {name}")
    _check_diff(stage, expected[old], expected[new], found)
    ended = stage.refold("canary", "abort", METRIC)
    if ended.status != 0:
        found.add("I14", f"refold canary abort ended with {ended.status}: {ended.err[-500:]}")
    for reader in ("off", "on"):
        if seen(conn, reader) != expected[old]:
            found.add("I14", f"after the abort, with refold.canary = {reader} {METRIC} is not what is live")
    check_left(conn, found, seconds=seconds)
    stage.set_canaried(old)


def _check_diff(stage: Stage, before: Rows, after: Rows, found: Findings) -> None:
    """`refold diff` counts what differs between two sets of rows."""
    kinds: Counter[str] = Counter()
    for key in before.keys() | after.keys():
        if key not in before:
            kinds["added"] += 1
        elif key not in after:
            kinds["removed"] += 1
        elif before[key] != after[key]:
            kinds["modified"] += 1
    said = stage.refold("diff", METRIC, "--json")
    if said.status not in (0, 1):
        found.add("I14", f"refold diff ended with {said.status}: {said.err[-500:]}")
        return
    rows = json.loads(said.out)["rows"]
    told = {kind: rows[kind] for kind in ("added", "removed", "modified")}
    if any(told[kind] != kinds[kind] for kind in told) or rows["in_flight"]:
        found.add("I14", f"refold diff {METRIC} counts {rows}, and there are {dict(kinds)}")
