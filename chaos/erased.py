"""I16: nothing of an erased person stands anywhere, and everything else is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pyarrow as pa  # type: ignore[import-untyped]
from psycopg import sql

from chaos.archived import EVERYTHING, rows_of
from chaos.asked import Asked
from chaos.findings import Findings
from chaos.journal import Count, Offered
from chaos.stage import OPTIONS, Finished, Stage

TOKEN = "erased:"
_TABLES = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'application')
ORDER BY 1, 2
"""


def finish(stage: Stage, found: Findings) -> None:
    """The same command goes on with whatever was interrupted, now that nobody disturbs it."""
    for one in stage.asked:
        if not one.done:
            ran: Finished = stage.refold(*one.command)
            if not one.ended(ran.status):
                found.add("I16", f"refold erase ended with {ran.status} in the end: {(ran.err or ran.out)[-500:]}")


def forget(conn: psycopg.Connection, asked: list[Asked], count: Count, found: Findings) -> None:
    """Let the count be that of the events as they are now: without the persons, or without their events.

    Args:
        conn: a superuser's, with all events.
        asked: who was erased.
        count: what producers have sent; is changed.
        found: takes what does not hold.
    """
    for one in asked:
        own = {name for name, offers in count.by_id.items() if any(o.event["user_id"] == one.user for o in offers)}
        rows = conn.execute(
            f"SELECT DISTINCT user_id FROM {EVERYTHING} WHERE event_id = ANY (%s)".encode(), (sorted(own),)
        ).fetchall()
        users = [str(user) for (user,) in rows]
        if one.mode == "delete":
            if users:
                found.add("I16", f"events of {one.user} are there, though they were to be deleted")
            for name in own:
                del count.by_id[name]
        elif len(users) != 1 or not users[0].startswith(TOKEN):
            found.add("I16", f"the events of {one.user} are of {users}, and not of one that nobody knows")
        # What was rejected of a person is kept without its content.
        count.offered = [o for o in count.offered if o.event["user_id"] != one.user or _stays(o, one)]
        for offer in count.offered:
            if offer.event["user_id"] == one.user and users:
                offer.event = {**offer.event, "user_id": users[0]}


def _stays(offer: Offered, asked: Asked) -> bool:
    return asked.mode == "anonymise" and offer.answer not in ("invalid", "conflict")


def check(stage: Stage, conn: psycopg.Connection, found: Findings) -> None:
    """Look for the persons everywhere: in the whole database, in the archive, and in what receivers have.

    Args:
        stage: of the campaign; its sinks have delivered everything.
        conn: a superuser's.
        found: takes what does not hold.
    """
    signs = [one.user for one in stage.asked if one.done]
    if not signs:
        return
    for place in in_database(conn, signs):
        found.add("I16", f"{place} has an erased person")
    with psycopg.connect(stage.receiver_url, autocommit=True, options=OPTIONS) as there:
        for place in in_database(there, signs):
            found.add("I16", f"{place} of the receiving database has an erased person")
    for folder in (stage.archive, stage.lake):
        for path, text in _in_files(folder):
            if any(sign in text for sign in signs):
                found.add("I16", f"{path.relative_to(stage.home)} has an erased person")
    if any(sign in str(row) for row in stage.hook.rows() for sign in signs):
        found.add("I16", "the receiver of the webhook has an erased person")
    for name, taken in conn.execute(
        "SELECT e.name::text, n.taken FROM refold.erasure_notices AS n JOIN refold.erasures AS e USING (erasure_id)"
    ).fetchall():
        if taken is None or (taken and name not in stage.hook.erasures):
            found.add("I16", f"the webhook was not told of the erasure {name}")


def in_database(conn: psycopg.Connection, signs: list[str]) -> Iterator[str]:
    query = sql.SQL(
        "SELECT FROM {} AS t WHERE EXISTS (SELECT FROM unnest(%s::text[]) AS s WHERE strpos(t::text, s) > 0)"
    )
    for schema, table in conn.execute(_TABLES).fetchall():
        if conn.execute(query.format(sql.Identifier(schema, table)), (signs,)).rowcount:
            yield f"{schema}.{table}"


def _in_files(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        if path.suffix == ".parquet":
            try:
                yield path, str(list(rows_of(path)))
            except (OSError, pa.ArrowException):
                # Damaged on purpose: nobody can read it.
                continue
        else:
            yield path, path.read_text(errors="replace")
