"""Rows that are changed by hand: of metrics, and of the log."""

from __future__ import annotations

import random
from typing import Any

import psycopg
from psycopg import sql

from chaos.faults.injection import (
    DUTY_S,
    SHOWN_WITHIN_S,
    Injected,
    detect,
    operate,
    send,
    watch,
)
from chaos.made import Maker
from chaos.stage import Stage


def tampered(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Rows of a metric's table are changed by hand."""
    with stage.connect() as conn:
        row = conn.execute(
            "SELECT table_name FROM refold.builds WHERE projection = %s AND state = 'live'", (how["projection"],)
        ).fetchone()
        assert row is not None
        if how["kind"] == "forget":
            # Of the set behind a distinct count: what it lacks would be counted again.
            row = (f"{row[0]}__m1",)
        table = sql.Identifier("refold_builds", row[0])
        columns = {
            "exposed_purchases": ("amount", "amount + 1"),
            "exposed_daily": ("events", "events + 3"),
            "exposed_visitors": ("events", "events + 5"),
            "exposed_paths": ("path", "array_append(path, 'tampered')"),
            "exposed_spending": ("purchases", "purchases + 1"),
        }
        some = sql.SQL("ctid = ANY (ARRAY(SELECT ctid FROM {} ORDER BY random() LIMIT {}))").format(
            table, sql.Literal(how["rows"])
        )
        column, value = columns[how["projection"]]
        match how["kind"]:
            case "update":
                query = sql.SQL("UPDATE {} SET {} = {} WHERE {}").format(
                    table, sql.Identifier(column), sql.SQL(value), some
                )
            case "delete" | "forget":
                query = sql.SQL("DELETE FROM {} WHERE {}").format(table, some)
            case "insert":
                query = _insert(conn, row[0], how["rows"], table)
            case _:
                count = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(table)).fetchone()
                assert count is not None
                done.drift = count[0]
                query = sql.SQL("TRUNCATE {}").format(table)
        with conn.transaction():
            conn.execute("SET LOCAL lock_timeout = '3s'")
            changed = conn.execute(query).rowcount
        done.drift = done.drift or max(changed, 0)
        done.note = f"{how['kind']} of {done.drift} rows of {row[0]}"


def _insert(conn: psycopg.Connection, name: str, rows: int, table: sql.Identifier) -> sql.Composed:
    """Copies of rows under keys that no event explains."""
    columns = conn.execute(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
        " WHERE attrelid = to_regclass('refold_builds.' || quote_ident(%s)) AND attnum > 0 AND NOT attisdropped"
        "   AND attgenerated = '' ORDER BY attnum",
        (name,),
    ).fetchall()
    strange = {
        "event_id": "'nobody-' || gen_random_uuid()",
        "user_id": "'nobody-' || gen_random_uuid()",
        "position": "position + 1000000000000",
        "day": "day + 40000 + (random() * 20000)::integer",
    }
    chosen = [sql.SQL(strange[c]) if c in strange else sql.Identifier(c) for c, _ in columns]
    return sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} LIMIT {} ON CONFLICT DO NOTHING").format(
        table,
        sql.SQL(", ").join(sql.Identifier(c) for c, _ in columns),
        sql.SQL(", ").join(chosen),
        table,
        sql.Literal(rows),
    )


def log_damaged(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A superuser deletes or changes an event. Metrics stay, it is an incident; then the event is restored."""
    label = f"damaged-{done.began:.6f}"
    events = Maker(label, random.Random(label)).purchases(label, [1, 2, 3])
    send(stage, label, events)
    lost = events[1]["id"]
    right = {"purchases": (3,), "spending": (1,), "shares": (1,), "ratios": (1,), "funnel": (1,)}
    if not watch(stage, SHOWN_WITHIN_S, lambda conn: {n: r[:1] for n, r in _shown(conn, label).items()} == right):
        done.wrong.append(("I6", f"the metrics do not show the events of {label} after {SHOWN_WITHIN_S:.0f} s"))
        return
    with stage.connect() as conn:
        before = _shown(conn, label)
        with conn.cursor().copy("COPY (SELECT * FROM refold.events WHERE event_id = %s) TO STDOUT", (lost,)) as copy:
            kept = b"".join(bytes(part) for part in copy)
        with conn.transaction():
            # The door of whoever restores: no lock, and nobody checks what is taken out by it.
            conn.execute("SET LOCAL refold.restoring = on")
            conn.execute(
                "DELETE FROM refold.events WHERE event_id = %s"
                if how["kind"] == "delete"
                else 'UPDATE refold.events SET metadata = metadata || \'{"amount": "0.01"}\' WHERE event_id = %s',
                (lost,),
            )
    try:
        if how["found_by"] == "scrub":
            operate(stage, done, "scrub")

        def named(conn: psycopg.Connection) -> bool:
            if (now := _shown(conn, label)) != before:
                done.wrong.append(("I3", f"metrics were changed from a damaged log: {now}, not {before}"))
            return _open_damage(conn, lost)

        detect(stage, done, DUTY_S, named, f"{lost} is damaged")
        watch(stage, how["seconds"], lambda conn: not named(conn))
    finally:
        if not watch(stage, DUTY_S, lambda conn: _restore(conn, lost, kept)):
            raise RuntimeError(f"{lost} could not be restored")
    operate(stage, done, "scrub")
    if not watch(stage, DUTY_S, lambda conn: not _open_damage(conn, lost)):
        done.wrong.append(("I8", f"the incident of {lost} is open, though it was restored {DUTY_S:.0f} s ago"))
    operate(stage, done, "reconcile", "--json")


def _shown(conn: psycopg.Connection, user: str) -> dict[str, tuple[int, str | None]]:
    """What some metrics show of a user: how many rows, and which."""
    found = {}
    for name in ("purchases", "spending", "shares", "ratios", "funnel"):
        row = conn.execute(
            sql.SQL(
                "SELECT count(*), string_agg(m::text, ' ' ORDER BY m::text) FROM metrics.{} AS m WHERE user_id = %s"
            ).format(sql.Identifier(name)),
            (user,),
        ).fetchone()
        assert row is not None
        found[name] = row
    return found


def _open_damage(conn: psycopg.Connection, event_id: str) -> bool:
    """Whether an open incident names an event."""
    return bool(
        conn.execute(
            "SELECT FROM refold.incidents"
            " WHERE kind = 'log_damage' AND resolved_at IS NULL AND strpos(evidence::text, %s) > 0",
            (f'"{event_id}"',),
        ).rowcount
    )


def _restore(conn: psycopg.Connection, event_id: str, kept: bytes) -> bool:
    """Puts an event back as the documentation says."""
    with conn.transaction():
        conn.execute("SET LOCAL refold.restoring = on")
        conn.execute("DELETE FROM refold.events WHERE event_id = %s", (event_id,))
        with conn.cursor().copy("COPY refold.events FROM STDIN") as copy:
            copy.write(kept)
    return True
