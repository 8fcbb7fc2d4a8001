"""Contracts in the database: what is registered, and what broke it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from refold.errors import BuildError
from refold.model.contract.contract_file import Contract, Level
from refold.model.event.exact_json import metadata_json, parse_json
from refold.store.schema.installed import insist_on


@dataclass(frozen=True, slots=True)
class Registered:
    """A contract as it was registered.

    Args:
        action: the action of the events.
        version: the version that they say they have.
        schema: the JSON Schema of their metadata.
        digest: fingerprint of what the schema checks.
        level: what happens to events that break it.
        about: owner and day from its file.
        rules: what it says, rule by rule, as the database evaluates it.
        registered_at: when.
    """

    action: str
    version: int
    schema: dict[str, Any]
    digest: str
    level: Level
    about: Mapping[str, str]
    rules: list[dict[str, Any]]
    registered_at: datetime

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.action} v{self.version}"


def insist_on_tables(conn: psycopg.Connection) -> None:
    """Raise NotInstalled if the database is of a version without contracts."""
    insist_on(conn, "refold.contracts")


def registered(conn: psycopg.Connection) -> dict[tuple[str, int], Registered]:
    """Return all contracts, by action and version, in this order.

    Args:
        conn: acts as a worker or an inspector.
    """
    insist_on_tables(conn)
    rows = conn.execute(
        "SELECT action, version, schema::text, digest, level, about, rules, registered_at"
        " FROM refold.contracts ORDER BY action, version"
    ).fetchall()
    # Digit for digit: a bound that was rounded could make two versions seem compatible.
    return {
        (action, version): Registered(action, version, parse_json(schema), *others)
        for action, version, schema, *others in rows
    }


def put(conn: psycopg.Connection, contract: Contract) -> None:
    """Register a contract; of one that is registered, change the level, the words and what is made from its schema.

    Args:
        conn: acts as refold_worker, in the caller's transaction.
        contract: the contract; its schema is the registered one, if there is one.

    Raises:
        BuildError: another deploy has just registered another schema as this version.
    """
    made = contract.predicate
    done = conn.execute(
        """
        INSERT INTO refold.contracts AS c
            (action, version, schema, digest, level, about, predicate, keys, conditions, rules)
        VALUES (%s, %s, %s, %s, %s, %s, %s::jsonpath, %s::text[], %s::text[]::jsonpath[], %s)
        ON CONFLICT (action, version) DO UPDATE
        SET level = excluded.level, about = excluded.about, predicate = excluded.predicate, keys = excluded.keys,
            conditions = excluded.conditions, rules = excluded.rules
        WHERE c.digest = excluded.digest
        """,
        (
            contract.action,
            contract.version,
            Jsonb(contract.schema, dumps=metadata_json),
            contract.digest,
            contract.level,
            Jsonb(dict(contract.about)),
            made.path,
            None if made.keys is None else list(made.keys),
            made.conditions,
            Jsonb(made.as_rules()),
        ),
    )
    if not done.rowcount:
        raise BuildError(f"another deploy has just registered {contract.title}", remedy="Run the command again.")


def fold_violations(conn: psycopg.Connection, days: int) -> None:
    """Sum up violations by the hour, those of this minute excepted, and delete old ones.

    Producers only ever insert: none of them waits.

    Args:
        conn: acts as refold_worker, in the caller's transaction.
        days: for how long they are kept.
    """
    conn.execute(
        """
        WITH gone AS (
            -- Sums of the same hours too, so that each has one. What a clock that was ahead has noted came before now.
            DELETE FROM refold.violations
            WHERE hour >= (SELECT min(v.hour) FROM refold.violations AS v WHERE NOT v.folded)
              AND (last_at < date_trunc('minute', clock_timestamp())
                   OR last_at > clock_timestamp() + interval '1 minute')
            RETURNING *
        )
        INSERT INTO refold.violations
            (action, version, rule, refused, hour, events, event_id, first_at, last_at, folded)
        SELECT action, version, rule, refused, least(hour, date_trunc('hour', clock_timestamp())), sum(events),
               min(event_id), least(min(first_at), clock_timestamp()), least(max(last_at), clock_timestamp()), true
        FROM gone GROUP BY 1, 2, 3, 4, 5
        """
    )
    conn.execute("DELETE FROM refold.violations WHERE hour < clock_timestamp() - make_interval(days => %s)", (days,))
