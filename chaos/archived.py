"""I11, I15: the files that count in the archive, read by pyarrow alone, compared with what producers have sent.

What was purged is in such a file and nowhere else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from chaos.findings import Findings
from chaos.oracle import Event

LABEL = re.compile(r'"label": ?"([^"]*)"')
AMOUNT = re.compile(r'"amount": ?"([^"]*)"')
"""Read from the text: what was smuggled into metadata Python cannot decode."""


EVERYTHING = "pg_temp.events"
"""The events of the log, and those that have left it."""
_READABLE = ("txid", "position", "event_id", "user_id", "action", "ts", "metadata", "version", "recorded_at")


@dataclass(frozen=True, slots=True)
class Counting:
    """A file that counts, as the manifest says.

    Args:
        location: its name in the store.
        state: `verified`, or `purged`: it alone has the events of its segment.
        lower: first position of its segment.
        upper: first position behind it.
        sha256: of the file.
    """

    location: str
    state: str
    lower: int
    upper: int
    sha256: bytes

    @property
    def invariant(self) -> str:
        return "I15" if self.state == "purged" else "I11"


def counting(conn: psycopg.Connection, *states: str) -> list[Counting]:
    """The files in some states; by default all that count."""
    rows = conn.execute(
        "SELECT location, state, lower_position, upper_position, sha256 FROM refold.archives"
        " WHERE state = ANY (%s) ORDER BY lower_position",
        (list(states or ("verified", "purged")),),
    ).fetchall()
    return [Counting(*row) for row in rows]


def verified(conn: psycopg.Connection) -> list[Counting]:
    """The files that are called verified, of segments that the log still has."""
    return counting(conn, "verified")


def gather(conn: psycopg.Connection, folder: Path, found: Findings) -> int:
    """Put all events into the temporary table `events`; answers how many have left the log.

    Args:
        conn: a superuser's.
        folder: the store.
        found: takes what cannot be read.
    """
    conn.execute("CREATE TEMPORARY TABLE events (LIKE refold.events)")
    conn.execute("INSERT INTO pg_temp.events SELECT * FROM refold.events")
    purged = 0
    for one in counting(conn, "purged"):
        try:
            rows = list(rows_of(folder / one.location))
        except (OSError, pa.ArrowException) as error:
            found.add("I15", f"{one.location} alone has events, and cannot be read: {error}")
            continue
        query = f"COPY pg_temp.events ({', '.join(_READABLE)}) FROM STDIN"
        with conn.cursor() as cursor, cursor.copy(query.encode()) as copy:
            for row in rows:
                copy.write_row([row[name] for name in _READABLE])
        purged += len(rows)
    left = conn.execute("SELECT FROM refold.events WHERE position < refold.log_floor()").rowcount
    if left:
        found.add("I15", f"{left} events are in the log below its begin")
    return purged


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file."""
    yield from pq.ParquetFile(path).read().to_pylist()


def unlike(conn: psycopg.Connection, folder: Path, damaged: set[str]) -> list[str]:
    """What is wrong with files that count: their bytes, and which events they hold.

    Args:
        conn: a superuser's.
        folder: the store.
        damaged: files that were damaged on purpose after they were verified.
    """
    wrong = [
        (one, told) for one in counting(conn) if one.location not in damaged and (told := _unlike(conn, folder, one))
    ]
    # An erasure may have written a file again meanwhile.
    still = set(counting(conn))
    return [f"{one.location} is called {one.state}, and {told}" for one, told in wrong if one in still]


def _unlike(conn: psycopg.Connection, folder: Path, one: Counting) -> str | None:
    path = folder / one.location
    try:
        content = path.read_bytes()
        held = {(row["event_id"], row["position"]) for row in rows_of(path)} if one.state == "verified" else set()
    except FileNotFoundError:
        return "there is no such file"
    except (OSError, pa.ArrowException):
        return "cannot be read"
    if hashlib.sha256(content).digest() != one.sha256:
        return "has other bytes"
    if one.state == "purged":
        return None
    # The ledger and not the log, from which other faults take events. An id without a digest is of an event that was
    # erased: it may have gone.
    rows = conn.execute(
        "SELECT event_id, position, digest = 0 FROM refold.event_ids WHERE position >= %s AND position < %s",
        (one.lower, one.upper),
    ).fetchall()
    known = {(event_id, position) for event_id, position, _ in rows}
    erased = {(event_id, position) for event_id, position, gone in rows if gone}
    return None if known - erased <= held <= known else f"has {len(held)} of {len(known)} events"


def check(
    conn: psycopg.Connection, folder: Path, damaged: set[str], events: list[Event], found: Findings
) -> tuple[int, int]:
    """Compare files that count with what producers have sent; answers how many files and rows.

    Args:
        conn: a superuser's.
        folder: the store.
        damaged: files that were damaged on purpose after they were verified.
        events: what the log holds, as its producers sent it.
        found: takes what does not hold.
    """
    for told in unlike(conn, folder, damaged):
        found.add("I11", told)
    files = rows = 0
    for one in counting(conn):
        if one.location in damaged:
            continue
        try:
            held = {(row["txid"], row["position"]): _row(row) for row in rows_of(folder / one.location)}
        except (OSError, pa.ArrowException) as error:
            found.add(one.invariant, f"{one.location} cannot be read: {error}")
            continue
        files += 1
        sent = {event.place: _content(event) for event in events if one.lower <= event.place[1] < one.upper}
        rows += len(held)
        if held != sent:
            differ = sorted(key for key in held.keys() | sent.keys() if held.get(key) != sent.get(key))
            found.add(
                one.invariant,
                f"{one.location} differs in {len(differ)} rows from what was sent: "
                + ", ".join(f"{held.get(key)}, not {sent.get(key)}" for key in differ[:3]),
            )
    return files, rows


def _content(event: Event) -> tuple[Any, ...]:
    return event.id, event.user, event.action, event.ts, event.amount, event.label


def _row(row: dict[str, Any]) -> tuple[Any, ...]:
    amount, label = AMOUNT.search(row["metadata"]), LABEL.search(row["metadata"])
    return (
        row["event_id"],
        row["user_id"],
        row["action"],
        row["ts"],
        None if amount is None else Decimal(amount[1]),
        None if label is None else label[1],
    )
