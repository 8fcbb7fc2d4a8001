"""Contracts: what an enforced one costs an append, and what looking for one costs where there is none.

The database with contracts has one of five fields, closed, for the action of all events, and a hundred for others. The
baseline is a database without contracts; that of the last figure has no trigger that looks for them either.
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.report import Figure
from benchmarks.rounds import Comparison, paired
from benchmarks.server import Server
from refold import Log, append
from refold.errors import RefoldError
from refold.model.contract.contract_file import contract_file
from refold.postgres.connect import connection
from refold.store import contracts

BATCH, ROUNDS = 10_000, 15
"""Events of a large append, and pairs of those."""
PAIRS = 2_000
"""Pairs of single appends."""
OTHERS = 100
"""Contracts of other actions."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["amount", "currency"],
    "additionalProperties": False,
    "properties": {
        "amount": {"type": "number", "minimum": 0},
        "currency": {"enum": ["EUR", "USD"]},
        "sku": {"type": "string"},
        "quantity": {"type": "integer", "minimum": 1},
        "coupon": {"type": ["string", "null"]},
    },
}


def measure(server: Server, events: int) -> list[Figure]:
    """Large appends and single ones."""
    rounds, pairs = max(5, min(ROUNDS, events // 20_000)), max(200, min(PAIRS, events // 500))
    with (
        server.database("validating") as url,
        server.database("no_contracts") as without,
        server.database("no_trigger") as bare,
    ):
        _register(url)
        with psycopg.connect(bare) as conn:
            conn.execute("DROP TRIGGER b_check_contracts ON refold.events")
        numbers = count()

        def batch(size: int) -> list[dict[str, Any]]:
            return [_event(number) for number, _ in zip(numbers, range(size), strict=False)]

        with Log(url) as log, Log(without) as other:
            bulk = paired(rounds, lambda: log.append(batch(BATCH)), lambda: other.append(batch(BATCH)))
        with (
            connection(url, "refold_producer", autocommit=True) as conn,
            connection(without, "refold_producer", autocommit=True) as second,
            connection(bare, "refold_producer", autocommit=True) as third,
        ):
            single = paired(pairs, lambda: append(conn, batch(1)), lambda: append(second, batch(1)))
            off = paired(pairs, lambda: append(second, batch(1)), lambda: append(third, batch(1)))
    return [
        _figure(f"Log.append of {BATCH:,} events under an enforced contract", bulk, BATCH, at_least=0.9),
        _figure("append of one event under an enforced contract", single, 1, at_least=0.9),
        _figure("append of one event without contracts, against no trigger", off, 1, at_least=0.98),
    ]


def _register(url: str) -> None:
    mistakes: list[RefoldError] = []
    with connection(url, "refold_worker", autocommit=True) as conn:
        for action in ("purchase", *(f"action {number}" for number in range(OTHERS))):
            about = {"version": 1, "level": "enforce"}
            made = contract_file(action, json.dumps({"x-refold": about, **SCHEMA}), Path("benchmark"), mistakes)
            assert made is not None, mistakes
            contracts.put(conn, made)


def _event(number: int) -> dict[str, Any]:
    metadata = {
        "amount": number % 500 + 0.5,
        "currency": "EUR",
        "sku": f"sku-{number % 1000}",
        "quantity": number % 5 + 1,
        "coupon": None,
    }
    return {
        "id": f"e{number}", "user_id": f"u{number % 1000}", "action": "purchase", "ts": 1_700_000_000_000 + number,
        "metadata": metadata,
    }  # fmt: skip


def _figure(what: str, pairs: list[tuple[float, float]], events: int, *, at_least: float) -> Figure:
    compared = Comparison(tuple(pairs), events)
    return Figure(
        "validating", what, compared.measured, "events/s", compared.baseline, compared.ratio, at_least=at_least
    )
