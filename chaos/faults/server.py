"""Faults of the server: crashes, ended sessions, and what others set or publish."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import psycopg
from psycopg import sql

from chaos.faults.injection import (
    DUTY_S,
    Injected,
    operate,
    server_is_away,
    watch,
)
from chaos.schedule import HOSTILE
from chaos.stage import Stage


def backend_killed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """kill -9 of one session's process: the server drops all of them and recovers."""
    with stage.connect() as conn:
        row = conn.execute(
            "SELECT pid, application_name FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            " ORDER BY (application_name LIKE %s) DESC, pid LIMIT 1",
            (how["whose"] + "%",),
        ).fetchone()
    if row is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(row[0], signal.SIGKILL)
        done.note = f"process {row[0]} ({row[1]})"
    done.shows = server_is_away


def session_terminated(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """pg_terminate_backend of all sessions of a kind."""
    with stage.connect() as conn:
        rows = conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            "   AND (%(whose)s = 'any' OR application_name LIKE %(whose)s || '%%')",
            {"whose": how["whose"]},
        ).fetchall()
    done.note = f"{len(rows)} sessions"


def server_killed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """kill -9 of the whole server, and a start."""
    with stage.server_lock:
        pid = stage.server.pid
        os.kill(pid, signal.SIGKILL)
        done.note = f"process {pid}"
        stage.start_server()
    done.shows = server_is_away


def restart_loop(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Stopped as if it crashed, started, a few times within seconds."""
    for _ in range(how["times"]):
        with stage.server_lock:
            stage.server.stop(immediate=True)
            stage.start_server()
        time.sleep(how["seconds"])
    done.shows = server_is_away


def settings_turned_hostile(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Somebody sets something for all sessions of the database, and all sessions are new ones."""
    name = how["setting"]
    what = f"{name} = {HOSTILE[name]}"

    def alter(conn: psycopg.Connection, change: sql.Composable) -> bool:
        database = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("ALTER DATABASE {} {}").format(database, change))
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            "   AND (application_name LIKE 'refold%' OR application_name IN ('chaos producer', 'chaos probe'))"
        )
        return True

    value = sql.Literal(HOSTILE[name]) if name != "search_path" else sql.Identifier(HOSTILE[name])
    try:
        with stage.connect() as conn:
            alter(conn, sql.SQL("SET {} = {}").format(sql.Identifier(name), value))
        time.sleep(how["seconds"])
        said = operate(stage, done, "doctor", "--json")
        done.note = f"{what}; {done.note}"
        if said.status in (0, 1) and name not in said.out and name != "client_encoding":
            done.wrong.append(("I8", f"refold doctor does not know of {what}"))
    finally:
        reset = sql.SQL("RESET {}").format(sql.Identifier(name))
        if not watch(stage, DUTY_S, lambda conn: alter(conn, reset)):
            raise RuntimeError(f"{name} could not be reset")


def published(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Everything is published, from now on: no row can be changed of a table without a replica identity."""
    with stage.connect() as conn:
        if not conn.execute("SELECT FROM pg_publication").rowcount:
            conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        else:
            done.note = "it was there"
    said = operate(stage, done, "doctor", "--json")
    if said.status in (0, 1) and '"publications"' not in said.out:
        done.wrong.append(("I8", "refold doctor says nothing of publications"))
