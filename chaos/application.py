"""An application that knows nothing of refold: it changes rows of its own table, and a capture makes events of them.

Its table `application.sent` says of each transaction how many events it must have made. A row is there exactly if the
transaction was committed, whether the producer has heard of it or not.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from chaos.journal import Event
from chaos.made import Maker

ROLE = "chaos_application"
TABLES = f"""
CREATE SCHEMA application;
CREATE TABLE application.carts (
    id text PRIMARY KEY, label text, user_id text, action text, at timestamptz, amount text, weight integer
);
CREATE TABLE application.sent (batch text PRIMARY KEY, changes integer);
CREATE ROLE {ROLE};
GRANT USAGE ON SCHEMA application TO {ROLE};
GRANT SELECT, INSERT, UPDATE, DELETE ON application.carts, application.sent TO {ROLE}
"""
MOST_ROWS = 40
"""Of a statement: more than a capture takes one by one."""
RECENT = 500
"""Rows that may still change."""

Row = dict[str, Any]

SENT = "INSERT INTO application.sent VALUES (%s, %s) ON CONFLICT DO NOTHING"
"""A transaction that was committed, and so many events."""
_GIVEN = "jsonb_populate_recordset(NULL::application.carts, %s)"
_INSERT = f"INSERT INTO application.carts SELECT * FROM {_GIVEN}"
_UPDATE = f"""
UPDATE application.carts AS c
SET label = n.label, user_id = n.user_id, action = n.action, at = n.at, amount = n.amount, weight = n.weight
FROM {_GIVEN} AS n WHERE n.id = c.id
"""
_DELETE = f"DELETE FROM application.carts AS c USING {_GIVEN} AS n WHERE n.id = c.id"


@dataclass(frozen=True, slots=True)
class Change:
    """One statement.

    Args:
        statement: its SQL, which takes rows as JSON.
        rows: these rows.
        events: what it must make.
        undone: whether its savepoint is rolled back, so that it makes nothing.
    """

    statement: str
    rows: list[Row]
    events: list[Event]
    undone: bool = False

    def apply(self, conn: psycopg.Connection) -> None:
        """Runs the statement in a transaction."""
        with conn.transaction(force_rollback=True) if self.undone else nullcontext():
            conn.execute(self.statement.encode(), (Jsonb(self.rows),))


class Carts:
    """Makes changes of rows.

    Args:
        maker: makes their content.
        random: decides what changes.
    """

    def __init__(self, maker: Maker, random: Random) -> None:
        self._maker = maker
        self._random = random
        self._rows: dict[str, Row] = {}
        """Rows that are known to be in the table as they are here."""

    def changes(self) -> list[Change]:
        """Changes for a transaction; their rows are in doubt until `keep` says that it was committed."""
        before = dict(self._rows)
        made = []
        for _ in range(self._random.randint(1, 4)):
            if self._random.random() < 0.2:
                made.append(replace(self._change(), events=[], undone=True))
            made.append(self._change())
            self.keep(made[-1:])
        touched = {row["id"] for change in made for row in change.rows}
        self._rows = {key: row for key, row in before.items() if key not in touched}
        return made

    def keep(self, changes: list[Change]) -> None:
        """Takes note that these changes are committed."""
        for change in changes:
            for row in [] if change.undone else change.rows:
                self._rows.pop(row["id"], None)
                if change.statement is not _DELETE:
                    self._rows[row["id"]] = row

    def _change(self) -> Change:
        many = 1 if self._random.random() < 0.7 else self._random.randint(2, MOST_ROWS)
        drawn = self._random.random()
        known = list(self._rows)[-RECENT:]
        some = self._random.sample(known, min(many, len(known)))
        if drawn < 0.5 or not some:
            rows = [_row(event["id"], event) for event in self._maker.clean(many)]
            return Change(_INSERT, rows, [_event(row) for row in rows])
        if drawn < 0.8:
            rows = [_row(key, event) for key, event in zip(some, self._maker.clean(len(some)), strict=True)]
            return Change(_UPDATE, rows, [_event(row) for row in rows])
        rows = [self._rows[key] for key in some]
        return Change(_DELETE, rows, [_removed(row) for row in rows])


def _row(key: str, event: Event) -> Row:
    metadata = event["metadata"]
    return {
        "id": key,
        "label": metadata["label"],
        "user_id": event["user_id"],
        "action": event["action"],
        "at": event["ts"],
        "amount": metadata.get("amount"),
        "weight": metadata.get("weight"),
    }


def _event(row: Row) -> Event:
    """What the capture makes of a row that comes or changes. The database chooses its id; the label tells it apart."""
    given = {name: row[name] for name in ("label", "amount", "weight") if row[name] is not None}
    return {
        "id": row["label"],
        "user_id": row["user_id"],
        "action": row["action"],
        "ts": row["at"],
        "metadata": {**given, "captured": True},
    }


def _removed(row: Row) -> Event:
    label = f"{row['label']}removed"
    return {**_event(row), "id": label, "action": "removed", "metadata": {"label": label, "captured": True}}
