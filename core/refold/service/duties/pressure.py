"""The duty that measures what holds producers back, and records the levels in `refold.pressure`.

While the disk is nearly full, it drops what can be built again: the tables that only a rollback would need. Never the
log, and never what was rejected.
"""

from __future__ import annotations

import psycopg

from refold.engine.publish.switch import drop_superseded
from refold.model.pressure import Level, next_level
from refold.postgres.rows import one_row
from refold.service.duties.findings import DutyFinding
from refold.service.duties.findings import record as record_findings
from refold.store.builds.compiled import Compiler
from refold.store.pressure import lag, pressure, record
from refold.store.schema.settings import Settings, read_settings

NAME = "pressure"
LAG_BACK = 0.5
"""Part of the limit below which lag is fine again."""
CONNECTIONS = (0.85, 0.97, 0.75)
"""Used parts of all connections: from which bulk waits, from which producers are refused, below which all is well."""
DISK = (0.85, 0.95, 0.80)
"""The same of `disk_limit`."""
REPLICATION = (0.85, None, 0.75)
"""The same of `max_slot_wal_keep_size`. Beyond it a standby is lost, and not an event: live ones are never refused."""

_CONNECTIONS = """
SELECT count(*)::float8
       / (current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer)
FROM pg_stat_activity WHERE backend_type = 'client backend'
"""
_DATABASE = "SELECT pg_database_size(current_database())"
_REPLICATION = """
SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), r.restart_lsn)), 0)::float8 / (s.setting::float8 * 1048576)
FROM pg_settings AS s LEFT JOIN pg_replication_slots AS r ON r.restart_lsn IS NOT NULL
WHERE s.name = 'max_slot_wal_keep_size' AND s.setting::bigint > 0
GROUP BY s.setting
"""
_WAL = "SELECT sum(size)::bigint FROM pg_ls_waldir()"


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Measure lag, connections, disk and replication, and record the level of each, with hysteresis."""
    settings = read_settings(conn)
    before = {one.signal: Level(one.level) for one in pressure(conn).signals}
    marks = _marks(settings)
    values = {"lag": lag(conn)[0], "connections": _number(conn, _CONNECTIONS)}
    if settings.disk_limit is not None:
        values["disk"] = _disk_bytes(conn) / settings.disk_limit
    if (kept := conn.execute(_REPLICATION.encode()).fetchone()) is not None:
        values["replication"] = float(kept[0])
    measured = [
        (
            name,
            next_level(before.get(name, Level.fine), value, slow=slow, stop=stop or float("inf"), back=back),
            value,
            slow,
            stop,
        )
        for name, value in values.items()
        for slow, stop, back in [marks[name]]
    ]
    record(conn, measured)
    full = any(name == "disk" and level is not Level.fine for name, level, *_ in measured)
    dropped = drop_superseded(conn, keep=0) if full else []
    record_findings(
        conn,
        "pressure",
        NAME,
        [
            DutyFinding(name, None, {"level": int(level), "value": round(value, 3), **_of_disk(name, dropped)})
            for name, level, value, *_ in measured
            # Late metrics are an incident of their own.
            if level is not Level.fine and name != "lag"
        ],
    )


def _of_disk(name: str, dropped: list[str]) -> dict[str, list[str]]:
    return {"dropped": dropped} if name == "disk" and dropped else {}


def _marks(settings: Settings) -> dict[str, tuple[float, float | None, float]]:
    """Return the marks of each signal: slow, stop, back. Pure."""
    return {
        "lag": (settings.lag_limit, settings.lag_stop, LAG_BACK * settings.lag_limit),
        "connections": CONNECTIONS,
        "disk": DISK,
        "replication": REPLICATION,
    }


def _number(conn: psycopg.Connection, query: str) -> float:
    return float(one_row(conn, query.encode())[0])


def _disk_bytes(conn: psycopg.Connection) -> float:
    """Return the size of the database, and of the WAL where the login may see it (pg_monitor)."""
    size = _number(conn, _DATABASE)
    try:
        return size + _number(conn, _WAL)
    except psycopg.errors.InsufficientPrivilege:
        return size
