"""`refold query`: query the metrics as an analyst."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import psycopg
import typer

from refold.cli.app import DATA, app
from refold.cli.output import note, table
from refold.cli.session import AsJson, DatabaseUrl, session
from refold.errors import InputError
from refold.suggest import did_you_mean
from refold.visible import visible, visible_json

SHOWN = 1000
"""Most rows that a table shows; --csv and --json give all."""
BATCH = 5000
"""Rows that are fetched at a time."""
NULL = "NULL"
"""Text that a table shows for NULL; an empty text stays empty."""
_NUMBERS = (20, 21, 23, 26, 700, 701, 790, 1700)
"""Type ids of smallint, integer, bigint, oid, real, double precision, money and numeric."""

_SELECT = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|\()*(select|with|values|table)\b", re.IGNORECASE | re.DOTALL)


@app.command(rich_help_panel=DATA)
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SQL statement; - reads it from stdin.")],
    csv: Annotated[bool, typer.Option("--csv", help="Print all rows as CSV with a header.")] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Query the metrics as an analyst: one read-only statement, in the schema `metrics`.

    \b
    Examples:
      refold query 'SELECT * FROM event_counts ORDER BY day DESC LIMIT 10'
      refold query 'TABLE freshness'
      refold query 'SELECT * FROM event_counts' --csv > counts.csv
      refold query - --json < report.sql
    """
    if csv and json:
        raise InputError("--csv and --json exclude each other")
    text = _statement(sys.stdin.read() if sql == "-" else sql)
    with _reading(database_url) as conn:
        _parsed(conn, text)
        if csv:
            _csv(conn, text)
        elif json:
            _json(conn, text)
        else:
            _table(conn, text)
        _tell_candidates(conn, text)


@contextmanager
def _reading(url: str | None) -> Iterator[psycopg.Connection]:
    """Open a read-only transaction that acts as an analyst."""
    with session(url, "refold_analyst", name="refold query") as conn:
        try:
            with conn.transaction():
                conn.execute("SET TRANSACTION READ ONLY")
                # What somebody calls `round` in `metrics` must not be taken for Postgres' own, nor what is temporary
                # for either.
                conn.execute("SET LOCAL search_path = pg_catalog, metrics, pg_temp")
                # With its first snapshot a transaction has made up its mind: no statement makes it writable again.
                conn.execute("SELECT 1")
                yield conn
        except psycopg.errors.UndefinedTable as error:
            raise _no_such_metric(conn, error) from error
        except psycopg.errors.InsufficientPrivilege as error:
            # Whatever the login may: a GRANT to it would change nothing here.
            raise InputError(
                error.diag.message_primary or str(error),
                remedy="`refold query` reads the schema `metrics` as refold_analyst. To use all rights of your login:"
                ' psql "$(refold url)"',
            ) from error


def _no_such_metric(conn: psycopg.Connection, error: psycopg.errors.UndefinedTable) -> InputError:
    """Return the error with a suggestion for the name."""
    message = error.diag.message_primary or str(error)
    names = [str(name) for (name,) in conn.execute(
        "SELECT viewname FROM pg_views WHERE schemaname = 'metrics' ORDER BY 1").fetchall()]  # fmt: skip
    wanted = re.search(r'"(?:[^"]*\.)?([^".]+)"', message)
    hint = did_you_mean(wanted[1], names) if wanted else ""
    return InputError(
        message + (f".{hint}" if hint else ""), remedy=f"Metrics and views: {', '.join(names) or 'none'}."
    )


def _statement(text: str) -> str:
    stripped = text.strip().rstrip(";").rstrip()
    if not stripped:
        raise InputError("the SQL statement is empty", remedy="Try: refold query 'SELECT * FROM freshness'")
    return stripped


def _parsed(conn: psycopg.Connection, text: str) -> None:
    """Let Postgres parse the text as one statement: the extended protocol takes no more.

    Else `COMMIT; RESET ROLE; CREATE TABLE …` would be three, and the first would end our transaction. What is one
    statement by itself is one within another, too.
    """
    result = conn.pgconn.prepare(b"", text.encode())
    if result.status == psycopg.pq.ExecStatus.COMMAND_OK:
        return
    error = psycopg.errors.error_from_result(result, encoding="utf-8")
    if isinstance(error, psycopg.errors.SyntaxError) and "multiple commands" in str(error):
        raise InputError("the text has more than one statement", remedy="Give one statement; psql accepts several.")
    raise error


def _tell_candidates(conn: psycopg.Connection, text: str) -> None:
    """Say which metrics of a statement were answered by a candidate, and not by the live build."""
    found = conn.execute(
        "SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'metrics_canary' AND c.relkind = 'v' AND refold.on_canary(c.relname::text) ORDER BY 1"
    ).fetchall()
    named = [name for (name,) in found if re.search(rf"(?<!metrics_canary\.)\b{re.escape(name)}\b", text)]
    if named:
        note(
            f"{', '.join(named)}: a canary shows you the candidate;"
            " PGOPTIONS='-c refold.canary=off' shows the live build"
        )


def _csv(conn: psycopg.Connection, text: str) -> None:
    """Stream the result as CSV with COPY, in constant memory."""
    # The line breaks: the statement may end in a comment.
    with conn.cursor() as cursor, cursor.copy(f"COPY (\n{text}\n) TO STDOUT (FORMAT csv, HEADER)".encode()) as copy:
        stdout = typer.get_binary_stream("stdout")
        shown = stdout.isatty()
        for block in copy:
            # A row a block. A file gets it as it is; to a terminal it must do nothing.
            stdout.write(visible(bytes(block).decode(), lines=True).encode() if shown else block)
        stdout.flush()


def _json(conn: psycopg.Connection, text: str) -> None:
    """Stream the result as a JSON array, row by row. Postgres writes the JSON, so numerics keep every digit."""
    stdout = typer.get_text_stream("stdout", encoding="utf-8")
    between = "[\n  "
    with conn.cursor("refold_query") as cursor:
        cursor.itersize = BATCH
        for (row,) in cursor.execute(f"SELECT row_to_json(q)::text FROM (\n{text}\n) AS q".encode()):
            stdout.write(between + visible_json(row))
            between = ",\n  "
    stdout.write("[]\n" if between.startswith("[") else "\n]\n")
    stdout.flush()


def _table(conn: psycopg.Connection, text: str) -> None:
    # EXPLAIN and SHOW have no cursor, and little to show.
    if _SELECT.match(text) is None:
        cursor = conn.execute(text.encode())
    else:
        conn.execute(f"DECLARE refold_query NO SCROLL CURSOR FOR\n{text}".encode())
        cursor = conn.execute(f"FETCH {SHOWN + 1} FROM refold_query".encode())
    if cursor.description is None:
        note(cursor.statusmessage or "done")
        return
    columns = [column.name for column in cursor.description]
    numeric = [column.name for column in cursor.description if column.type_code in _NUMBERS]
    rows = _as_sent(cursor)
    table(columns, rows[:SHOWN], right=numeric, null=NULL)
    if len(rows) > SHOWN:
        note(f"showing the first {SHOWN:,} rows; --csv or --json gives all")


def _as_sent(cursor: psycopg.Cursor[Any]) -> list[list[str | None]]:
    """Return the rows in Postgres' own text format, as psql shows them.

    As Python's values, JSON would be written as Python writes a dict, and a number lose its zeros or its digits.
    """
    result = cursor.pgresult
    assert result is not None
    return [
        [None if (value := result.get_value(row, at)) is None else value.decode() for at in range(result.nfields)]
        for row in range(result.ntuples)
    ]
