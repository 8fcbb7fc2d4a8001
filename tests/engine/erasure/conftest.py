"""A shop in which a person is everywhere, and what looks for the person in the whole database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql

from refold import append
from refold.engine.erasure.run import erase
from refold.model.erasure import Person
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.connect import connect as connect_as
from refold.store.erasures import Erasure, Mode
from refold.store.log.seal import seal
from tests.support.live import SHOP, drain, wrong
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]

ALICE = "alice's \"ä\\%"
"""A user id that every careless form of quoting changes."""
MAIL = "alice@example.com"

TEXTS = """
SELECT n.nspname, c.relname, a.attname
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_type AS t ON t.oid = a.atttypid LEFT JOIN pg_type AS e ON e.oid = t.typelem AND t.typcategory = 'A'
WHERE (n.nspname LIKE 'refold%' OR n.nspname = 'pgmq') AND c.relkind IN ('r', 'p') AND a.attnum > 0
  AND NOT a.attisdropped AND NOT c.relispartition
  AND coalesce(e.typname, t.typname)
      IN ('text', 'varchar', 'bpchar', 'json', 'jsonb', 'jsonpath', 'bytea', 'name', 'xml')
ORDER BY 1, 2, 3
"""
"""Every column of refold's schemas that can hold text, as the catalogue has it."""


@dataclass
class Shop:
    """The shop: its database, and connections of an administrator and a worker."""

    url: str
    admin: Connection
    worker: Connection

    def append(self, events: Sequence[dict[str, Any]]) -> list[str]:
        return [receipt.answer for receipt in append(self.admin, list(events))]

    def drain(self) -> None:
        drain(self.url)

    def erase(self, person: Person | None = None, *, mode: Mode = "anonymise", **more: Any) -> Erasure:
        someone = person or Person(ALICE, (("email", MAIL),))
        return erase(self.worker, SHOP, someone, **{"mode": mode, "keeps": [], "reason": "asked", **more})

    def seal(self) -> None:
        """Seals the slice of all events, and begins the next."""
        self.admin.execute("SELECT setval('refold.events_position', %s, false)", (1 << POSITION_BITS,))
        sealed = "SELECT FROM refold.sealed_slices WHERE sealed_at IS NOT NULL"

        def done() -> bool:
            seal(self.worker)
            return self.admin.execute(sealed).rowcount == 1

        wait_until(done, 60)

    def wrong(self) -> dict[str, Any]:
        return wrong(self.url)

    def holding(self, *signs: str) -> list[str]:
        """The columns of the whole database that hold one of these texts, in any form of writing."""
        found = []
        for schema, table, column in self.admin.execute(TEXTS.encode()).fetchall():
            query = sql.SQL(
                "SELECT FROM {} WHERE EXISTS (SELECT FROM unnest(%s::text[]) AS s WHERE strpos({}::text, s) > 0)"
            ).format(sql.Identifier(schema, table), sql.Identifier(column))
            if self.admin.execute(query, (list(signs),)).rowcount:
                found.append(f"{schema}.{table}.{column}")
        return found


def of_alice() -> list[dict[str, Any]]:
    """What the person did, and what others did with the person."""
    return [
        {"id": "a1", "user_id": ALICE, "action": "visit", "ts": "2026-03-02T10:00:00Z", "metadata": {"email": MAIL}},
        {"id": "a2", "user_id": ALICE, "action": "purchase", "ts": "2026-03-02T11:00:00Z",
         "metadata": {"amount": 120.5}},
        {"id": f"{ALICE}/3", "user_id": ALICE, "action": "purchase", "ts": "2026-03-03T11:00:00Z",
         "metadata": {"amount": 30, "plan": "gold"}},
        {"id": "b1", "user_id": "bob", "action": "invite", "ts": "2026-03-03T12:00:00Z",
         "metadata": {"email": MAIL, "amount": 1}},
    ]  # fmt: skip


def of_others() -> list[dict[str, Any]]:
    """What people did whose names are nearly the person's."""
    return [
        {"id": f"o{number}", "user_id": user, "action": "purchase", "ts": f"2026-03-0{2 + number % 3}T09:00:00Z",
         "metadata": {"amount": 10 + number}}
        for number, user in enumerate(["bob", "alice", ALICE.upper(), "alice2", "carol", "bob"])
    ]  # fmt: skip


@pytest.fixture
def shop(database_url: str, admin: Connection) -> Iterator[Shop]:
    """A shop with these events, applied by all metrics; mark the test with `live("shop")`."""
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        made = Shop(database_url, admin, worker)
        made.append([*of_others()[:4], *of_alice(), *of_others()[4:]])
        made.drain()
        yield made


@pytest.fixture
def worker(database_url: str) -> Iterator[Connection]:
    """A connection as a worker's, whose login may act as the owner."""
    with connect_as(database_url, "refold_worker", autocommit=True) as conn:
        yield conn
