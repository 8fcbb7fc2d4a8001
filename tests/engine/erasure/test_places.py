"""Every column that can hold text has a rule, and each place that can hold a person is cleaned."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from refold.engine.erasure.places import NEVER, OTHERWISE, PLACES
from refold.model.erasure import Person
from tests.engine.erasure.conftest import TEXTS, Connection, Shop

PERSON = "u-zoe"


def ruled(name: str) -> bool:
    """Whether there is a rule for a column, by its full name."""
    schema, table, column = name.split(".")
    found = {f"{place.table}.{column}" for place in PLACES for column in place.columns}
    patterns = [f"{one}.*" for one in OTHERWISE] + list(NEVER)
    return name in found or any(
        re.fullmatch(re.escape(one).replace(r"\*", ".*"), f"{schema}.{table}.{column}") for one in patterns
    )


@pytest.mark.live("shop")
def test_every_column_that_can_hold_text_has_a_rule(shop: Shop) -> None:
    sinks(shop.admin)
    columns = [".".join(row) for row in shop.admin.execute(TEXTS.encode()).fetchall()]
    assert len(columns) > 150
    assert [name for name in columns if not ruled(name)] == []
    # A new column fails.
    shop.admin.execute("ALTER TABLE refold.incidents ADD remark text")
    columns = [".".join(row) for row in shop.admin.execute(TEXTS.encode()).fetchall()]
    assert [name for name in columns if not ruled(name)] == ["refold.incidents.remark"]


def test_every_rule_is_of_a_column(admin: Connection) -> None:
    columns = {".".join(row) for row in admin.execute(TEXTS.encode()).fetchall()}
    rules = [f"{place.table}.{column}" for place in PLACES for column in place.columns] + list(NEVER)
    dead = [
        rule for rule in rules
        if not any(re.fullmatch(re.escape(rule).replace(r"\*", "[^.]*"), column) for column in columns)
    ]  # fmt: skip
    assert [rule for rule in dead if not rule.startswith("pgmq.")] == []


def sinks(admin: Connection) -> None:
    """A queue, an archive of a queue and a staging table, which exist only when somebody made them."""
    admin.execute("SELECT pgmq.create('refold_sink_1')")
    admin.execute("CREATE TABLE refold_backfill.staged_1 (number bigint, user_id text, metadata jsonb, raw text)")


def filled(admin: Connection) -> None:
    """Writes the person into every column of every place, past all constraints: as a word, in a sentence, in JSON."""
    for place in PLACES:
        columns = admin.execute(
            "SELECT attname, format_type(atttypid, NULL), attidentity <> '' FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (place.table,),
        ).fetchall()
        for (constraint,) in admin.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype IN ('c', 'f')", (place.table,)
        ).fetchall():
            admin.execute(f'ALTER TABLE {place.table} DROP CONSTRAINT "{constraint}"'.encode())
        values = {name: _value(place.columns, name, kind) for name, kind, own in columns if not own}
        values = {name: value for name, value in values.items() if value is not None}
        names, marks = ", ".join(f'"{name}"' for name in values), ", ".join(["%s"] * len(values))
        admin.execute(f"INSERT INTO {place.table} ({names}) VALUES ({marks})".encode(), list(values.values()))


def _value(held: Mapping[str, str], name: str, kind: str) -> Any:
    if name in held:
        if kind == "text[]":
            return [PERSON]
        return json.dumps({"key": {"user_id": PERSON}, "told": f"no {PERSON}."}) if kind == "jsonb" else f"no {PERSON}."
    return {
        "text": "x", "jsonb": "{}", "bigint": 7, "integer": 7, "smallint": 1, "boolean": False, "bytea": b"x" * 32,
        "timestamp with time zone": "2026-01-01T00:00:00Z", "date": "2026-01-01", "text[]": [], "xid8": "7",
        "double precision": 1.0, "integer[]": [1], "bigint[]": [], "bytea[]": [], "pg_snapshot": "1:1:",
        "interval": "1 day", "numeric": 1, "uuid": "00000000-0000-0000-0000-000000000007", "tstzmultirange": "{}",
    }.get(kind)  # fmt: skip


def test_each_place_is_cleaned(database_url: str, admin: Connection, worker: Connection) -> None:
    filled(admin)
    shop = Shop(database_url, admin, worker)
    held = set(shop.holding(PERSON))
    assert held >= {f"{place.table}.{column}" for place in PLACES for column in place.columns}
    done = shop.erase(Person(PERSON))
    assert shop.holding(PERSON) == []
    assert set(done.evidence["cleaned"]) == {place.table for place in PLACES}
    assert set(done.evidence["after"].values()) == {0}


def test_what_waits_for_a_receiver_is_told(database_url: str, admin: Connection, worker: Connection) -> None:
    """A receiver must hear what goes: until then the key stays, and the proof says so."""
    admin.execute(
        "INSERT INTO refold.sinks (name, projection, grain, kind, definition) VALUES ('s', 'm', 'rows', 'webhook', '')"
    )
    admin.execute(
        "INSERT INTO refold.undelivered (sink_id, key, slice, status, error) VALUES (1, %s, 0, '410', 'gone')",
        (json.dumps({"user_id": PERSON}),),
    )
    shop = Shop(database_url, admin, worker)
    proof = shop.erase(Person(PERSON)).evidence["proof"]
    assert proof["waits_for_receivers"] == {"refold.undelivered": 1}
    assert [one["sink"] for one in proof["receivers"]] == ["s"]
