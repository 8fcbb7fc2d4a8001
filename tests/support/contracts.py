"""Contracts that a test registers, without files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg

from refold.errors import RefoldError
from refold.model.contract.contract_file import Contract, contract_file
from refold.store import contracts

Connection = psycopg.Connection[Any]

PURCHASE = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number"}}}
"""A schema of purchases."""
REASON = "amount: must be a number, not a string (contract purchase v1)"


def contract(schema: dict[str, Any], *, action: str = "purchase", version: int = 1, level: str = "enforce") -> Contract:
    """A contract, read as a file is."""
    document = {"x-refold": {"version": version, "level": level}, **schema}
    mistakes: list[RefoldError] = []
    found = contract_file(action, json.dumps(document), Path(f"events/{action}.json"), mistakes)
    assert found is not None, mistakes
    return found


def register(conn: Connection, schema: dict[str, Any] = PURCHASE, **about: Any) -> None:
    """Register a contract, or change its level."""
    contracts.put(conn, contract(schema, **about))


def violations(conn: Connection) -> list[tuple[Any, ...]]:
    """What broke contracts, in all."""
    return conn.execute(
        "SELECT action, version, rule, refused, sum(events)::integer, min(event_id) FROM refold.violations"
        " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    ).fetchall()
