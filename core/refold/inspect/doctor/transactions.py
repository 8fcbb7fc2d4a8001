"""Checks of long transactions: those that block events, and those that block vacuum."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from refold.inspect.doctor.check import SESSIONS, Check, graded, looking
from refold.postgres.old_snapshots import Held, held
from refold.store.log.blocking_transactions import BlockingTransaction, blocking_transactions

HELD = 60.0, 3600.0
"""Seconds for which a transaction may block events, for `warn` and `fail`."""
OPEN = 3600.0, 86_400.0
"""Seconds for which any transaction may be open: until it ends, vacuum keeps rows that died since."""

SEE_ALL = "To see them, GRANT pg_read_all_stats TO this login."


def writers(conn: psycopg.Connection) -> list[Check]:
    """Check open and prepared transactions that have written to the log."""
    with looking(conn):
        sessions, prepared = blocking_transactions(conn)
    return [*holding("open writers", sessions, "pid"), *holding("prepared transactions", prepared, "gid")]


def holding(name: str, found: Sequence[BlockingTransaction], word: str) -> list[Check]:
    """Return the verdict on blocking transactions. Pure."""
    if not found:
        return [Check(name, "ok", "none blocks events")]
    unseen = [one.name for one in found if one.seconds is None]
    checks = []
    known = [one for one in found if one.seconds is not None]
    if known:
        oldest = max(known, key=lambda one: one.seconds or 0.0)
        verdict = graded(oldest.seconds or 0.0, *HELD)
        told = f"{len(known)}, the oldest {word} {oldest.name} ({oldest.what or 'unnamed'}), {oldest.seconds:,.0f} s"
        quoted = oldest.name.replace("'", "''")
        end = (
            f"ROLLBACK PREPARED '{quoted}'; or COMMIT PREPARED '{quoted}'; in its database."
            if word == "gid"
            else f"SELECT pg_terminate_backend({oldest.name});"
        )
        checks.append(
            Check(name, verdict, told, "" if verdict == "ok" else f"Events stay blocked until it ends: {end}")
        )
    if unseen:
        told = f"pid {', '.join(unseen)}: of unknown age"
        checks.append(Check(name, "unseen", told, SEE_ALL))
    return checks


def oldest(conn: psycopg.Connection) -> list[Check]:
    """Check the oldest transaction of the cluster."""
    rows = conn.execute(
        f"""
        SELECT 'session ' || pid, extract(epoch FROM clock_timestamp() - xact_start)::float8,
               (state IS NULL)
        FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND {SESSIONS}
        UNION ALL
        SELECT 'prepared transaction ' || gid, extract(epoch FROM clock_timestamp() - prepared)::float8, false
        FROM pg_prepared_xacts
        """.encode()
    ).fetchall()
    return long_open(rows)


def snapshots(conn: psycopg.Connection) -> list[Check]:
    """Check for old snapshots, which block vacuum."""
    with conn.transaction():
        return holding_vacuum(held(conn))


def holding_vacuum(found: Sequence[Held]) -> list[Check]:
    """Return the verdict on sessions that hold old snapshots. Pure."""
    old = [one for one in found if one.old(HELD[0])]
    if not old:
        return [Check("held snapshots", "ok", "none blocks vacuum")]
    oldest = old[0]
    verdict = graded(oldest.seconds or HELD[0], *HELD)
    age = "" if oldest.seconds is None else f", {oldest.seconds:,.0f} s"
    named = f" ({oldest.application})" if oldest.application else ""
    told = f"{len(old)}, the oldest {oldest.subject}{named}{age}, {oldest.transactions:,} transactions"
    return [
        Check("held snapshots", verdict, told, f"Updates of frequent keys get slower until it ends: {oldest.remedy}")
    ]


def sight(conn: psycopg.Connection) -> list[Check]:
    """Check that the workers' logins see other logins' transactions, which their duties watch."""
    rows = conn.execute(
        """
        SELECT DISTINCT a.usename::text, pg_has_role(a.usesysid, 'pg_read_all_stats', 'USAGE')
        FROM pg_stat_activity AS a
        WHERE a.datname = current_database() AND a.application_name IN ('refold worker', 'refold duties')
        ORDER BY 1
        """
    ).fetchall()
    # Without a worker that can be seen: this login, if it is one that workers may use.
    rows = (
        rows
        or conn.execute(
            "SELECT session_user::text, pg_has_role(session_user, 'pg_read_all_stats', 'USAGE')"
            " WHERE pg_has_role(session_user, 'refold_worker', 'MEMBER')"
        ).fetchall()
    )
    return [seeing(rows)] if rows else []


def seeing(logins: Sequence[tuple[str, bool]]) -> Check:
    """Return the verdict on (login of workers, whether it sees others' transactions). Pure."""
    blind = [login for login, sees in logins if not sees]
    if not blind:
        return Check("sight", "ok", f"workers as {', '.join(login for login, _ in logins)} see blocking transactions")
    return Check(
        "sight",
        "warn",
        f"workers as {', '.join(blind)} do not see other logins' transactions: held_back and held_snapshot never open",
        " ".join(f'GRANT pg_read_all_stats TO "{login}";' for login in blind),
    )


def long_open(rows: Sequence[tuple[str, float | None, bool]]) -> list[Check]:
    """Return the verdict on (session, age of its transaction in seconds, whether it is hidden). Pure."""
    hidden = sum(1 for _, _, unseen in rows if unseen)
    known = [(age, who) for who, age, _ in rows if age is not None]
    checks = []
    if known:
        age, who = max(known)
        verdict = graded(age, *OPEN)
        remedy = "" if verdict == "ok" else "End it: until then vacuum keeps all rows that died since it began."
        checks.append(Check("oldest transaction", verdict, f"{who}, {age:,.0f} s", remedy))
    elif not hidden:
        checks.append(Check("oldest transaction", "ok", "none is open"))
    if hidden:
        told = f"sessions of other logins: {hidden}"
        checks.append(Check("oldest transaction", "unseen", told, SEE_ALL))
    return checks
