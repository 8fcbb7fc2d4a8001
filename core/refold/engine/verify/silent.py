"""Metrics that are empty or incomplete, because no event has an action that they ask for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from refold.model.projection.hints import actions_of
from refold.model.projection.plan import LOG, LOG_COLUMNS
from refold.model.stream.page_sql import LOG_STREAM
from refold.store.builds.build import Build, by_id
from refold.store.builds.compiled import columns_of, stream_of
from refold.store.log import integrity
from refold.suggest import closest

STATEMENT_TIMEOUT_S = 5.0
"""Time limit of the search for an action, in seconds: a missing action is searched for in all events."""
SAMPLE = 20_000
"""Events from which similar names of actions are suggested."""


@dataclass(frozen=True, slots=True)
class Silence:
    """The reason why a metric shows less than its author may expect.

    Args:
        empty: whether it has no rows.
        why: the reason, in words.
    """

    empty: bool
    why: str


def silent(conn: psycopg.Connection, builds: Iterable[Build]) -> dict[int, Silence]:
    """Return the builds that are empty or ask for an action that no event of their stream has, by id.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        builds: loaded builds.
    """
    found: dict[int, Silence] = {}
    for build in builds:
        table = sql.Identifier("refold_builds", build.table_name)
        empty = conn.execute(sql.SQL("SELECT NOT EXISTS (SELECT FROM {})").format(table)).fetchone() == (True,)
        upstream = None if build.upstream_id is None else by_id(conn, build.upstream_id)
        columns = LOG_COLUMNS if upstream is None else columns_of(conn, upstream)
        wanted = actions_of(build.definition) if build.language == "sql" and "action" in columns else []
        why = missing_actions(conn, stream_of(upstream).table, wanted) if wanted or empty else None
        if why is not None:
            found[build.build_id] = Silence(empty, why)
        elif empty:
            stream = LOG if upstream is None else upstream.projection
            found[build.build_id] = Silence(True, f"the query makes no row of {stream} yet")
    return found


def missing_actions(conn: psycopg.Connection, stream: str, wanted: Sequence[str]) -> str | None:
    """Describe which actions no event of a stream has; None if all exist, or if the search takes too long.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        stream: the table of the stream, as SQL.
        wanted: the actions.
    """
    table = sql.SQL(stream)
    try:
        with conn.transaction():
            conn.execute(
                sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(int(STATEMENT_TIMEOUT_S * 1000)))
            )
            # Of purged events nobody looks for an action, for they are in the archive alone.
            purged = stream == LOG_STREAM.table and integrity.floor(conn) > 1
            if conn.execute(sql.SQL("SELECT NOT EXISTS (SELECT FROM {})").format(table)).fetchone() == (True,):
                if purged:
                    return "no event is left in the log"
                return f"there is no event{' in the log' if stream == LOG_STREAM.table else ' to read'} yet"
            there = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE action = {})")
            missing = [
                action
                for action in wanted
                if conn.execute(there.format(table, sql.Literal(action))).fetchone() == (False,)
            ]
            if not missing:
                return None
            sample = sql.SQL("SELECT DISTINCT action FROM (SELECT action FROM {} LIMIT {}) AS sample")
            known = [str(name) for (name,) in conn.execute(sample.format(table, sql.Literal(SAMPLE))).fetchall()]
    except psycopg.errors.QueryCanceled:
        return None
    which = "no event that is left in the log" if purged else "no event"
    return "; ".join(_told(which, action, known) for action in missing)


def _told(which: str, action: str, known: Sequence[str]) -> str:
    close = closest(action, known)
    return f"{which} has the action {action!r}" + (f". Did you mean {close!r}?" if close else "")
