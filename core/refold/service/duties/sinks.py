"""The duty that bounds what waits for sinks, and names receivers that fail, and rows that they refuse.

Beyond the settings `outbox_*` the messages of a sink are dropped, and its receiver is brought up to date by comparison
of slices. So an outage of any length costs at most a comparison of the metric, and slows neither pages nor producers.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import psycopg

from refold.model.sink.state import SinkState
from refold.model.sink.state import collapsed as collapsed_state
from refold.model.stream.cursor import next_read
from refold.postgres.snapshot import snapshot
from refold.service.duties.findings import DutyFinding, record
from refold.sinks.deploy import collapse
from refold.store import outbox, sinks, undelivered
from refold.store.builds.build import by_id, lock
from refold.store.builds.compiled import Compiler
from refold.store.incidents import open_incidents
from refold.store.outbox import Backlog
from refold.store.schema.settings import Settings, read_settings

log = logging.getLogger("refold.sinks")

NAME = "sinks"
FAILING = timedelta(seconds=60)
"""Time for which deliveries may fail before it is an incident."""
_MIB = 1024 * 1024


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Collapse sinks whose messages are too many, find lost messages, open and resolve the incidents of sinks."""
    _follow_switches(conn)
    known = {sink.sink_id: sink for sink in sinks.every(conn)}
    settings = read_settings(conn)
    (now,) = conn.execute("SELECT clock_timestamp()").fetchone() or (None,)
    failing, refused, collapsed = [], [], []
    before = {incident.subject: incident for incident in open_incidents(conn, "outbox_collapsed")}
    for sink_id, state in sinks.states(conn).items():
        if sink_id not in known:
            continue
        name = known[sink_id].name
        if (state.failing_since is not None and now - state.failing_since >= FAILING) or state.condition == "stopped":
            failing.append(DutyFinding(name, state.failing_since, _failure(state)))
        if waiting := undelivered.waiting(conn, sink_id):
            refused.append(DutyFinding(name, None, {"rows": waiting, "error": state.error}))
        waits = outbox.backlog(conn, sink_id, state.passed, settings.outbox_messages + 1)
        why = too_much(waits, settings)
        if why is not None:
            collapse(conn, sink_id)
            collapsed.append(DutyFinding(name, None, {"because": why}))
        elif name in before and not state.following:
            collapsed.append(DutyFinding(name, None, before[name].evidence))
        if state.following and state.build_id is not None:
            _find_lost(conn, sink_id, name, state.build_id)
    record(conn, "sink", NAME, failing)
    record(conn, "undelivered", NAME, refused)
    record(conn, "outbox_collapsed", NAME, collapsed)


def _follow_switches(conn: psycopg.Connection) -> None:
    """Let sinks deliver live builds only: who deploys a sink does not see a switch that is under way."""
    behind = conn.execute(
        "SELECT s.sink_id, s.projection, b.build_id FROM refold.sinks_now AS s"
        " JOIN refold.builds AS b ON b.projection = s.projection AND b.state = 'live'"
        " WHERE s.build_id IS DISTINCT FROM b.build_id"
    ).fetchall()
    for sink_id, projection, build_id in behind:
        with conn.transaction():
            build = lock(conn, build_id, wait=True)
            if build is not None and build.state == "live":
                for switched in sinks.switch(conn, projection, build_id, only=sink_id):
                    outbox.purge(conn, switched)


def _find_lost(conn: psycopg.Connection, sink_id: int, name: str, build_id: int) -> None:
    """Let a sink compare slices if it lacks some for which no message waits: messages were lost, or never sent."""
    with snapshot(conn):
        state, _ = sinks.state(conn, sink_id)
        if not state.following or state.build_id != build_id or outbox.waits(conn, sink_id, state.passed):
            return
        if state.cursor is not None and next_read(state.cursor, by_id(conn, build_id).cursor) is not None:
            return
        # Of a slice that is not known a message was delivered since, or a row was refused.
        lost = set(sinks.differing(conn, sink_id, build_id)) - sinks.unknown_slices(conn, sink_id)
    if lost:
        log.warning("%s: %d slices changed without a message; they are delivered again", name, len(lost))
        with conn.transaction():
            sinks.step(conn, sink_id, lambda now, _: collapsed_state(now))


def too_much(waits: Backlog, settings: Settings) -> str | None:
    """Return why the messages of a sink are too many, in a few words; None if they are not. Pure."""
    if waits.messages > settings.outbox_messages:
        return f"more than {settings.outbox_messages:,} messages"
    # A table that is empty keeps its size until it is vacuumed.
    if waits.messages and waits.bytes > settings.outbox_mib * _MIB:
        return f"more than {settings.outbox_mib:,} MiB"
    if waits.oldest_s is not None and waits.oldest_s > settings.outbox_hours * 3600:
        return f"a message older than {settings.outbox_hours:,} h"
    return None


def _failure(state: SinkState) -> dict[str, object]:
    return {
        "condition": state.condition,
        "failures": state.failures,
        "status": state.status,
        "error": state.error,
        "retry_at": None if state.retry_at is None else state.retry_at.isoformat(),
    }
