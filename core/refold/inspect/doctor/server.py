"""Checks of the server: version, dangerous settings, connections, clock, age of its transaction ids."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import psycopg

from refold.inspect.doctor.check import SESSIONS, Check, Verdict, graded
from refold.postgres.rows import one_row

OLDEST = 150000
"""The first version that refold supports."""
CLOCK = 1.0, 60.0
"""Seconds by which this machine's clock may differ, for `warn` and `fail`."""
XIDS = 1_000_000_000, 1_800_000_000
"""Age of the oldest transaction id; at about 2.1 billion the server refuses to write."""
CONNECTIONS = 0.8, 0.95
"""Share of `max_connections` in use."""

# name: (wanted value, verdict otherwise, consequence of another value)
_WANTED: dict[str, tuple[str, Verdict, str]] = {
    "fsync": ("on", "fail", "a crash of the machine may destroy the database"),
    "full_page_writes": ("on", "fail", "a crash of the machine may destroy the database"),
    "synchronous_commit": ("on", "warn", "a crash may lose the latest acknowledged events"),
    "autovacuum": ("on", "fail", "tables grow without end, and transaction ids run out"),
    "track_counts": ("on", "fail", "autovacuum does not know which tables need it"),
    "server_encoding": ("UTF8", "fail", "some events cannot be stored"),
}
_STRONGER = {"synchronous_commit": ("remote_apply", "remote_write", "local")}


def version(conn: psycopg.Connection) -> list[Check]:
    """Check the server's version."""
    number = conn.info.server_version
    told = f"PostgreSQL {number // 10000}.{number % 10000}"
    if number < OLDEST:
        return [Check("server version", "fail", told, f"Upgrade: refold needs PostgreSQL {OLDEST // 10000} or newer.")]
    return [Check("server version", "ok", told)]


def settings(conn: psycopg.Connection) -> list[Check]:
    """Check settings that endanger refold's guarantees."""
    rows = conn.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(_WANTED),)).fetchall()
    return judged(dict(rows))


def judged(found: Mapping[str, str]) -> list[Check]:
    """Return the verdict on settings by name. Pure."""
    checks = [
        Check(f"setting {name}", verdict, f"{name} = {found[name]}: {otherwise}", f"Set {name} = {wanted}.")
        for name, (wanted, verdict, otherwise) in _WANTED.items()
        if name in found and found[name] != wanted and found[name] not in _STRONGER.get(name, ())
    ]
    return checks or [Check("settings", "ok", ", ".join(f"{name} {value}" for name, value in found.items()))]


def connections(conn: psycopg.Connection) -> list[Check]:
    """Check the number of free connections."""
    row = one_row(
        conn,
        f"SELECT count(*), current_setting('max_connections')::integer FROM pg_stat_activity WHERE {SESSIONS}".encode(),
    )
    used, most = row
    verdict = graded(used / most, *CONNECTIONS)
    remedy = "" if verdict == "ok" else "Raise max_connections, or put a pooler in front of the producers."
    return [Check("connections", verdict, f"{used} of {most} in use", remedy)]


def clock(conn: psycopg.Connection) -> list[Check]:
    """Compare this machine's clock with the server's."""
    before = time.time()
    (theirs,) = one_row(conn, "SELECT extract(epoch FROM clock_timestamp())::float8")
    after = time.time()
    return [skew(before, after, theirs)]


def skew(before: float, after: float, server: float) -> Check:
    """Return the verdict on a server time read between two local times, seconds. Pure."""
    apart = max(before - server, server - after, 0.0)
    verdict = graded(apart, *CLOCK)
    remedy = "" if verdict == "ok" else "Synchronise both clocks (NTP): producers set the times of events."
    return Check("clock", verdict, f"{apart:.1f} s from the server's", remedy)


def wraparound(conn: psycopg.Connection) -> list[Check]:
    """Check the age of the oldest transaction id in the cluster."""
    rows = conn.execute("SELECT datname::text, age(datfrozenxid)::bigint FROM pg_database").fetchall()
    return [oldest(rows)]


def oldest(ages: Sequence[tuple[str, int]]) -> Check:
    """Return the verdict on databases and their ages. Pure."""
    name, age = max(ages, key=lambda one: one[1])
    verdict = graded(age, *XIDS)
    remedy = (
        "" if verdict == "ok" else f"End old transactions, prepared ones and slots, then run VACUUM (FREEZE) in {name}."
    )
    return Check("transaction ids", verdict, f"{age:,} of 2,100,000,000 used since the oldest, in {name}", remedy)
