"""Upcasters: a metric sees each event in its newest form, and a changed upcaster is a new build beside the live one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.engine.reconcile.reconcile import reconcile
from refold.errors import DefinitionError
from refold.model.projection.definition import load_directory
from refold.model.projection.upcast import Upcasts, upcast_file
from refold.store.builds.compiled import Compiler
from tests.support.law import worker_connection
from tests.support.scratch import Scratch

Connection = psycopg.Connection[Any]

TOTALS = """\
-- What each user paid.
SELECT user_id, sum((metadata ->> 'amount')::numeric) AS amount
FROM events WHERE action = 'purchase' GROUP BY user_id
"""
FACTS = "SELECT event_id, e.metadata, version FROM events AS e"
PAID = """
from pydantic import BaseModel
from refold import Event, transform

class Paid(BaseModel):
    event_id: str
    amount: float

@transform(reads="events")
def paid(event: Event) -> Paid:
    return Paid(event_id=event.event_id, amount=event.metadata["amount"])
"""
CENTS = "metadata - 'cents' || jsonb_build_object('amount', (metadata ->> 'cents')::numeric / 100)"


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Iterator[Scratch]:
    """A project with a folder of events; v1 of purchases has cents, v2 an amount."""
    (tmp_path / "projections").mkdir()
    (tmp_path / "events").mkdir()
    with worker_connection(database_url) as worker:
        yield Scratch(tmp_path / "projections", database_url, worker)


def upcast(shop: Scratch, sql: str, name: str = "purchase.v1_to_v2") -> None:
    (shop.folder.parent / f"events/{name}.sql").write_text(sql)


def purchases(shop: Scratch) -> None:
    shop.append(action="purchase", user_id="u", metadata={"cents": 250})
    shop.append(action="purchase", user_id="u", metadata={"amount": 2}, version=2)


def test_every_kind_of_projection_sees_the_newest_form(shop: Scratch) -> None:
    upcast(shop, CENTS)
    purchases(shop)
    shop.deploy(totals=TOTALS, facts=FACTS, paid=PAID)
    purchases(shop)
    shop.drain()
    assert shop.rows("totals") == [("u", 9)]
    amounts = [metadata["amount"] for _, metadata, _ in shop.rows("facts")]
    assert [float(one) for one in amounts] == [2.5, 2, 2.5, 2]
    assert [amount for _, amount in shop.rows("paid")] == [2.5, 2, 2.5, 2]
    # Audits ask the same question.
    compiler = Compiler(shop.folder)
    assert reconcile(shop.worker, compiler, [], depth="deep", by="test").findings == []


MEDIAN = """\
SELECT metadata ->> 'sku' AS sku, percentile_disc(0.5) WITHIN GROUP (ORDER BY version) AS middle
FROM events {where} GROUP BY sku
"""


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("WHERE action = 'view'", True),
        ("WHERE version > 0 AND (action IN ('view', 'refund'))", True),
        ("AS e WHERE e.action = 'view'", True),
        ("WHERE action IN ('view', 'purchase')", False),
        ("WHERE action = 'view' OR version > 1", False),
        ("WHERE action <> 'purchase'", False),
        ("", False),
    ],
)
def test_a_key_that_no_step_concerns(shop: Scratch, where: str, kept: bool) -> None:
    upcast(shop, CENTS)
    purchases(shop)
    shop.append(action="view", user_id="u", metadata={"sku": "s", "cents": 1})
    if not kept:
        with pytest.raises(DefinitionError, match="the key reads metadata through an upcaster"):
            shop.deploy(middle=MEDIAN.format(where=where))
        return
    shop.deploy(middle=MEDIAN.format(where=where))
    shop.drain()
    assert shop.rows("middle") == [("s", 1)]


def test_a_condition_on_something_else_called_action() -> None:
    step = upcast_file("purchase.v1_to_v2", CENTS, Path("events/purchase.v1_to_v2.sql"))
    written = Upcasts({"purchase": (step,)}).rewritten(
        "SELECT event_id, (SELECT max(e.metadata ->> 'amount') FROM (VALUES ('view')) AS t (action)"
        " WHERE t.action = 'view') AS amount FROM events AS e"
    )
    assert "no_upcast" in written


def test_postgres_refuses_what_a_step_makes(shop: Scratch) -> None:
    upcast(shop, "'abc'")
    with pytest.raises(DefinitionError) as refused:
        shop.deploy(paid=PAID)
    assert "upcasters of the folder events" in (refused.value.remedy or "")


def test_steps_are_composed(shop: Scratch) -> None:
    upcast(shop, CENTS)
    upcast(shop, "metadata || jsonb_build_object('amount', (metadata ->> 'amount')::numeric * 2)", "purchase.v2_to_v3")
    purchases(shop)
    shop.append(action="purchase", user_id="u", metadata={"amount": 1}, version=3)
    shop.deploy(totals=TOTALS)
    assert shop.rows("totals") == [("u", 10)]


def test_a_changed_step_is_a_new_build(shop: Scratch) -> None:
    purchases(shop)
    shop.deploy(totals=TOTALS, other="SELECT action, count(*) AS n FROM events GROUP BY action")
    before = shop.build("totals")
    assert shop.rows("totals") == [("u", 2)]
    upcast(shop, CENTS)
    shop.deploy()
    after = shop.build("totals")
    assert after.build_id != before.build_id
    assert shop.rows("totals") == [("u", 4.5)]
    # A comment changes nothing; what reads no metadata is not built again.
    upcast(shop, f"-- cents\n{CENTS}\n")
    shop.deploy()
    assert shop.build("totals").build_id == after.build_id
    assert shop.build("other").number == 1
    # Lines and comments stay where the author put them.
    assert after.definition.splitlines()[0] == "-- What each user paid."
    assert after.definition.splitlines()[2] == TOTALS.splitlines()[2]


@pytest.mark.parametrize("kind", ["totals", "paid"])
def test_an_upcast_that_raises_is_a_dead_letter_of_the_build(shop: Scratch, kind: str) -> None:
    upcast(shop, CENTS)
    shop.write(**{kind: {"totals": TOTALS, "paid": PAID}[kind]})
    shop.deploy()
    shop.append(action="purchase", user_id="u", metadata={"cents": "free"})
    purchases(shop)
    shop.drain()
    (letter,) = shop.worker.execute("SELECT event_id, error FROM refold.dead_letters").fetchall()
    assert letter[0] == "e0"
    assert "free" in letter[1]
    purchases(shop)
    shop.drain()
    assert sum(row[1] for row in shop.rows(kind)) == 9
    assert reconcile(shop.worker, Compiler(shop.folder), [], depth="deep", by="test").findings == []


NULLS = {
    "jsonb_set": {"purchase.v1_to_v2": "jsonb_set(metadata, '{amount}', metadata -> 'cents')"},
    "a part that is missing": {"purchase.v1_to_v2": "metadata -> 'inner'"},
    "a later step": {"purchase.v1_to_v2": "metadata", "purchase.v2_to_v3": "metadata || to_jsonb(metadata ->> 'no')"},
    "hidden by a later step": {
        "purchase.v1_to_v2": "metadata -> 'inner'",
        "purchase.v2_to_v3": "jsonb_build_object('amount', metadata -> 'amount')",
    },
}


@pytest.mark.parametrize("kind", ["totals", "paid", "facts"])
@pytest.mark.parametrize("steps", NULLS)
def test_null_is_no_metadata(shop: Scratch, kind: str, steps: str) -> None:
    """Every field of the event would be gone, and the metric would never say so."""
    for name, text in NULLS[steps].items():
        upcast(shop, text, name)
    shop.write(**{kind: {"totals": TOTALS, "paid": PAID, "facts": FACTS}[kind]})
    shop.append(action="purchase", user_id="u", metadata={"amount": 7})
    shop.deploy()
    shop.append(action="purchase", user_id="u", metadata={"amount": 7})
    shop.append(action="purchase", user_id="u", version=9, metadata={"amount": 2})
    shop.drain()
    letters = shop.worker.execute("SELECT event_id, error FROM refold.dead_letters ORDER BY 1").fetchall()
    assert [event_id for event_id, _ in letters] == ["e0", "e1"]
    version = 2 if steps == "a later step" else 1
    assert all(f"the upcaster of purchase v{version} makes NULL of the metadata" in error for _, error in letters)
    assert len(shop.rows(kind)) == 1
    assert reconcile(shop.worker, Compiler(shop.folder), [], depth="deep", by="test").findings == []


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("metadata || jsonb_build_object('at', now())", "now"),
        ("metadata || to_jsonb(user_id)", "reads user_id, but a step may read metadata alone"),
        ("SELECT metadata", "must be one expression"),
        ("metadata || (SELECT to_jsonb(1))", "without a query"),
        ("metadata ||", "is no expression"),
    ],
)
def test_a_step_that_is_refused(shop: Scratch, sql: str, message: str) -> None:
    upcast(shop, sql)
    shop.write(totals=TOTALS)
    with pytest.raises(DefinitionError, match=message) as raised:
        load_directory(shop.folder)
    assert raised.value.path is not None
    assert raised.value.path.name == "purchase.v1_to_v2.sql"


def test_names_and_gaps(shop: Scratch) -> None:
    shop.write(totals=TOTALS)
    upcast(shop, CENTS, "purchase.v1_to_v3")
    with pytest.raises(DefinitionError, match="says the action, a version, and the next one"):
        load_directory(shop.folder)
    (shop.folder.parent / "events/purchase.v1_to_v3.sql").unlink()
    upcast(shop, CENTS)
    upcast(shop, CENTS, "purchase.v3_to_v4")
    with pytest.raises(DefinitionError, match="there is no step from v2 to v3"):
        load_directory(shop.folder)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT event_id, to_jsonb(e) AS row FROM events AS e",
        "-- key: user_id\nSELECT user_id, count(*) AS n"
        " FROM (SELECT user_id, metadata -> 'a' AS metadata FROM events) AS x"
        " WHERE metadata IS NOT NULL GROUP BY user_id",
        "-- key: user_id\nSELECT user_id, count(*) AS n FROM (SELECT user_id, metadata FROM events) AS x"
        " WHERE metadata IS NOT NULL GROUP BY user_id",
    ],
)
def test_what_would_hide_the_metadata_is_refused(shop: Scratch, query: str) -> None:
    shop.write(hidden=query)
    upcast(shop, CENTS)
    with pytest.raises(DefinitionError) as raised:
        load_directory(shop.folder)
    assert "hidden.sql" in str(raised.value)
