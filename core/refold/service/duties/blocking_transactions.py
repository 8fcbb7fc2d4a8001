"""The duty that detects transactions that block events: open for long, or prepared and not finished."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from refold.service.duties.findings import DutyFinding, record
from refold.store.builds.compiled import Compiler
from refold.store.log.blocking_transactions import BlockingTransaction, blocking_transactions
from refold.store.schema.settings import Settings, read_settings

NAME = "blocking transactions"


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Open and resolve the incidents `held_back`; each names the session or prepared transaction."""
    allowed = read_settings(conn)
    with conn.transaction():
        sessions, prepared = blocking_transactions(conn)
    record(conn, "held_back", NAME, held_back(sessions, prepared, allowed))


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


def _common(one: BlockingTransaction, allowed: Settings) -> dict[str, object]:
    return {
        "role": one.owner,
        "since": None if one.since is None else one.since.isoformat(),
        "seconds": None if one.seconds is None else round(one.seconds, 3),
        "limit": allowed.held_back_after,
    }
