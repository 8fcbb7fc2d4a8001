"""Names, types and values: the receiver holds what the metric holds."""

from __future__ import annotations

import json
import secrets

import psycopg
import pytest

from refold.sinks import read
from refold.sinks.audit import audit
from refold.sinks.deliver import Deliverer
from refold.store import sinks
from refold.store.builds.build import live
from refold.store.builds.compiled import Compiler
from tests.support.delivering import Connection, deliver, deploy_sink, follow, insist, to_postgres, url_of
from tests.support.scratch import Scratch


@pytest.mark.parametrize(
    "name", ["key", "slice", "own", "pair", "order", 'we"ird', "Capital Letters", "message", "a'b", "{x}", "c0"]
)
def test_odd_names_of_keys(scratch: Scratch, target: Connection, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    follow(scratch, target, "m", f"SELECT user_id AS {quoted}, count(*) AS n FROM events GROUP BY 1")
    scratch.append(1, user_id="ben")
    scratch.append(1, user_id="ann")
    scratch.drain()
    insist(scratch, target, "m")


@pytest.mark.parametrize("name", ["key", "slice"])
def test_odd_names_of_columns(scratch: Scratch, target: Connection, name: str) -> None:
    follow(scratch, target, "m", f'SELECT user_id, count(*) AS "{name}" FROM events GROUP BY 1')
    scratch.append(1, user_id="ben")
    scratch.append(1, user_id="ann")
    scratch.drain()
    insist(scratch, target, "m")


@pytest.mark.parametrize(
    ("expression", "one", "other"),
    [("(metadata->>'n')::numeric", "1.0", "1.00"), ("(metadata->>'n')::float8", "-0", "0")],
)
@pytest.mark.parametrize("upkeep", ["count(DISTINCT user_id)", "count(*)"])
def test_keys_that_are_equal_and_look_different(
    scratch: Scratch, target: Connection, expression: str, one: str, other: str, upkeep: str
) -> None:
    scratch.deploy_one("m", f"SELECT {expression} AS k, {upkeep} AS path FROM events WHERE metadata ? 'n' GROUP BY 1")
    scratch.append(1, user_id="ann", metadata={"n": one})
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_postgres("m", url_of(scratch, target)))
    deliver(scratch.worker, scratch.folder, "copy")
    for number in range(6):
        scratch.append(1, metadata={"n": (one, other)[number % 2]})
        scratch.drain()
    insist(scratch, target, "m")


TYPES = {
    "(metadata->>'n')::numeric": ["NaN", "Infinity", "1e-20", "1" * 300],
    "(metadata->>'n')::float8": ["NaN", "-Infinity", "0.1", "1e-300", "5e-324"],
    "(metadata->>'n')::date": ["infinity", "-infinity", "0044-03-15 BC", "12345-01-01"],
    "(metadata->>'n')::timestamptz": ["infinity", "0044-03-15 BC", "12345-01-01", "2020-01-01 00:00:00.000001+02"],
    "decode(metadata->>'n', 'hex')": ["", "00", "5c5c", "ff"],
    "(metadata->>'n')::uuid": ["00000000-0000-0000-0000-00000000000A"],
    "(metadata->>'n')::inet": ["::1", "10.0.0.1/8"],
    "(metadata->>'n')::int4range": ["[1,3)", "empty"],
    "(metadata->>'n')::boolean": ["t", "false"],
    "metadata->>'n'": ['": null', "{", '\\"', "\u2028", "%s", "NULL", "", "{NULL}", "\t\n\r", "\U0001f600"],
    "string_to_array(metadata->>'n', ';')": ["a;;b", "NULL;null", '"', "{;}"],
    "(metadata->>'n')::time": ["24:00:00"],
}
# As keys, they are refused by `refold deploy`: equal values of them can be told apart.
VALUES_ONLY = {
    "(metadata->>'n')::char(5)": ["a", "ab   ", ""],
    "(metadata->>'n')::interval": ["-1 day 3:04:05", "1 year -2 mons"],
    "metadata->'n'": ["null", "1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("expression", TYPES)
def test_types_of_keys(scratch: Scratch, target: Connection, expression: str) -> None:
    _insist_on_values(
        scratch, target, TYPES[expression],
        f"SELECT {expression} AS k, count(*) AS n FROM events WHERE metadata ? 'n' GROUP BY 1",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("expression", TYPES | VALUES_ONLY)
def test_types_of_values(scratch: Scratch, target: Connection, expression: str) -> None:
    _insist_on_values(
        scratch, target, (TYPES | VALUES_ONLY)[expression],
        f"SELECT event_id, {expression} AS v FROM events WHERE metadata ? 'n'",
    )  # fmt: skip


def _insist_on_values(scratch: Scratch, target: Connection, texts: list[str], metric: str) -> None:
    scratch.deploy_one("m", metric)
    for one in texts:
        scratch.append(1, metadata={"n": one})
    scratch.drain()
    deploy_sink(scratch.worker, "copy", to_postgres("m", url_of(scratch, target)))
    insist(scratch, target, "m")
    for one in [*texts, *texts]:
        scratch.append(1, metadata={"n": one})
        scratch.append(1, metadata={"n": None})
        scratch.drain()
        insist(scratch, target, "m")
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "auditor")
    found = audit(scratch.worker, deliverer, sinks.known(scratch.worker, "copy"))
    deliverer.release()
    assert (found.wrong, found.skipped) == ([], None)


def test_types_of_a_schema(scratch: Scratch, target: Connection) -> None:
    with psycopg.connect(scratch.url, autocommit=True) as admin:
        for conn in (admin, target):
            conn.execute("CREATE DOMAIN public.word AS text; GRANT USAGE ON TYPE public.word TO PUBLIC")
    follow(scratch, target, "m", "SELECT user_id::public.word AS user_id, count(*) AS n FROM events GROUP BY 1")


def test_long_keys(scratch: Scratch, target: Connection) -> None:
    follow(scratch, target, "m", "SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    scratch.append(1, user_id=secrets.token_hex(3000))
    scratch.append(1, user_id="ben")
    scratch.drain()
    insist(scratch, target, "m")


def test_rows_of_many_columns_as_json(scratch: Scratch, target: Connection) -> None:
    many = ", ".join(f"count(*) AS c{n}" for n in range(60))
    follow(scratch, target, "m", f"SELECT user_id, {many} FROM events GROUP BY user_id")
    build = live(scratch.worker, "m")
    assert build is not None
    source = read.source(scratch.worker, "copy", "rows", build, Compiler(scratch.folder).of(scratch.worker, build))
    with scratch.worker.transaction():
        [change] = read.changes_of(scratch.worker, source, [(0, '{"user_id": "ann"}')], json=True)
    assert set(json.loads(change.json)) == {column.name for column in source.shape.columns}
