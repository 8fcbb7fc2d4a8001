"""I11: the files that the archive calls verified, read by pyarrow alone, compared with what producers have sent."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from chaos.findings import Findings
from chaos.oracle import Event

LABEL = re.compile(r'"label": ?"([^"]*)"')
AMOUNT = re.compile(r'"amount": ?"([^"]*)"')
"""Read from the text: what was smuggled into metadata Python cannot decode."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A file that the manifest calls verified.

    Args:
        location: its name in the store.
        lower: first position of its segment.
        upper: first position behind it.
        sha256: of the file, as the manifest says.
    """

    location: str
    lower: int
    upper: int
    sha256: bytes


def verified(conn: psycopg.Connection) -> list[Verified]:
    """The files that are called verified."""
    rows = conn.execute(
        "SELECT location, lower_position, upper_position, sha256 FROM refold.archives WHERE state = 'verified'"
        " ORDER BY lower_position"
    ).fetchall()
    return [Verified(*row) for row in rows]


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file."""
    yield from pq.ParquetFile(path).read().to_pylist()


def unlike(conn: psycopg.Connection, folder: Path, damaged: set[str]) -> list[str]:
    """What is wrong with verified files: their bytes, and which events they hold.

    Args:
        conn: a superuser's.
        folder: the store.
        damaged: files that were damaged on purpose after they were verified.
    """
    wrong = []
    for one in verified(conn):
        if one.location in damaged:
            continue
        path = folder / one.location
        if not path.exists():
            wrong.append(f"{one.location} is called verified, and there is no such file")
        elif hashlib.sha256(path.read_bytes()).digest() != one.sha256:
            wrong.append(f"{one.location} is called verified, and has other bytes")
        else:
            held = {(row["event_id"], row["position"]) for row in rows_of(path)}
            # The ledger and not the log, from which other faults take events.
            known = conn.execute(
                "SELECT event_id, position FROM refold.event_ids WHERE position >= %s AND position < %s",
                (one.lower, one.upper),
            ).fetchall()
            if held != set(known):
                wrong.append(f"{one.location} is called verified, and has {len(held)} of {len(known)} events")
    return wrong


def check(
    conn: psycopg.Connection, folder: Path, damaged: set[str], events: list[Event], found: Findings
) -> tuple[int, int]:
    """Compare verified files with what producers have sent; answers how many files and rows.

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
    for one in verified(conn):
        if one.location in damaged or "I11" in found.violations:
            continue
        files += 1
        sent = {event.place: _content(event) for event in events if one.lower <= event.place[1] < one.upper}
        held = {(row["txid"], row["position"]): _row(row) for row in rows_of(folder / one.location)}
        rows += len(held)
        if held != sent:
            differ = sorted(key for key in held.keys() | sent.keys() if held.get(key) != sent.get(key))
            found.add(
                "I11",
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
