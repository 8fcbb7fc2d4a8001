"""The duty that detects transactions that block events or refold: open for long, or prepared and not finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import psycopg

from refold.postgres.lock_waits import shortened
from refold.service.duties.findings import DutyFinding, record
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident, open_incidents
from refold.store.lock_holders import LockHolder, lock_holders
from refold.store.log.blocking_transactions import BlockingTransaction, blocking_transactions
from refold.store.schema.settings import Settings, read_settings

NAME = "blocking transactions"


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Open and resolve the incidents `held_back`; each names the session or prepared transaction."""
    allowed = read_settings(conn)
    known = {one.evidence.get("pid"): one.evidence["since"] for one in open_incidents(conn, "held_back") if _locks(one)}
    with conn.transaction():
        sessions, prepared = blocking_transactions(conn)
        holders = lock_holders(conn, [pid for pid in known if pid is not None])
    found = {one.subject: one for one in held_back(sessions, prepared, allowed)}
    for one in locked_out(holders, known, allowed):
        earlier = found.get(one.subject)
        found[one.subject] = (
            one if earlier is None else replace(earlier, evidence={**earlier.evidence, **one.evidence, "writes": True})
        )
    record(conn, "held_back", NAME, found.values())


def held_back(
    sessions: Sequence[BlockingTransaction], prepared: Sequence[BlockingTransaction], allowed: Settings
) -> list[DutyFinding]:
    """Return findings for transactions older than the limit; transactions of unknown age are ignored. Pure."""

    def old(one: BlockingTransaction) -> bool:
        # Before zero: it began while the clock was ahead.
        return one.seconds is not None and abs(one.seconds) > allowed.held_back_after

    return [
        DutyFinding(
            f"session {one.name}",
            one.since,
            {"pid": int(one.name), "application": one.what, **_common(one, allowed)},
        )
        for one in sessions
        if old(one)
    ] + [
        DutyFinding(f"prepared transaction {one.name}", one.since, {"gid": one.name, **_common(one, allowed)})
        for one in prepared
        if old(one)
    ]


def _locks(incident: Incident) -> bool:
    """Return whether an open incident is about a lock."""
    return "locks" in incident.evidence and "since" in incident.evidence


def locked_out(
    holders: Sequence[LockHolder], known: Mapping[int | None, str | None], allowed: Settings
) -> list[DutyFinding]:
    """Return findings for transactions older than the limit that keep refold from its tables. Pure.

    A lock on a row shows only at moments when refold waits for it. So what was found once counts until its transaction
    ends.

    Args:
        holders: all that hold such locks or for which refold waits at this moment, and sessions that were found before.
        known: when the transactions of these sessions began, by process id.
        allowed: the limits.
    """
    return [
        DutyFinding(
            f"session {one.pid}" if one.pid is not None else f"prepared transaction {one.gid}",
            one.since,
            {
                **({"gid": one.gid} if one.pid is None else {"pid": one.pid, "application": one.application}),
                "role": one.owner,
                "since": _iso(one.since),
                "seconds": round(one.seconds, 3),
                "limit": allowed.held_back_after,
                "locks": one.tables,
                "waiting": one.waiting,
                "query": shortened(one.query or ""),
            },
        )
        for one in holders
        if one.seconds is not None
        and abs(one.seconds) > allowed.held_back_after
        and (one.tables or one.waiting or known.get(one.pid) == _iso(one.since))
    ]


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _common(one: BlockingTransaction, allowed: Settings) -> dict[str, object]:
    return {
        "role": one.owner,
        "since": _iso(one.since),
        "seconds": None if one.seconds is None else round(one.seconds, 3),
        "limit": allowed.held_back_after,
    }
