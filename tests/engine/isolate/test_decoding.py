"""Events whose content Python cannot read or write: each is a dead letter, and everything else goes on.

No door lets them in any more; what was stored before, or by a superuser, must not stop anybody.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from refold.cli.app import app
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.release import release
from refold.service.duties import purity
from refold.store.builds.compiled import Compiler

from .prices import Prices

UNREADABLE = {
    "an integer of 131,001 digits": '{"price": 1e131000}',
    "an integer of 5,000 digits": '{"price": ' + "9" * 5000 + "}",
}
if sys.version_info < (3, 13):  # from then on Python decodes all that Postgres can hold
    UNREADABLE["3,000 levels"] = '{"price": ' + "[" * 3000 + "]" * 3000 + "}"
ENRICHED = '''
from pydantic import BaseModel
from refold import Event, transform

class Row(BaseModel):
    event_id: str
    price: int
    more: dict

@transform()
def enriched(event: Event) -> Row:
    """Every event, with its price."""
    price = event.metadata.get("price")
    return Row(event_id=event.event_id, price=price if isinstance(price, int) else 0, more=event.metadata)
'''
WRITTEN = ENRICHED.replace('price = event.metadata.get("price")', "price = 10 ** event.metadata.get('digits', 1)")


def store(prices: Prices, event_id: str, metadata: str) -> None:
    """What a superuser can."""
    with prices.admin.transaction():
        prices.admin.execute("ALTER TABLE refold.events DISABLE TRIGGER within_limits")
        prices.admin.execute(
            "INSERT INTO refold.events (event_id, action, ts, metadata) VALUES (%s, 'view', now(), %s)",
            (event_id, metadata),
        )
        # Else the table cannot be altered: triggers of this transaction are pending.
        prices.admin.execute("SET CONSTRAINTS ALL IMMEDIATE")
        prices.admin.execute("ALTER TABLE refold.events ENABLE ALWAYS TRIGGER within_limits")


@pytest.fixture
def enriched(shop: Prices, tmp_path: Path) -> Path:
    (tmp_path / "enriched.py").write_text(ENRICHED)
    (tmp_path / "raw.sql").write_text("SELECT event_id, metadata FROM events")
    return tmp_path


@pytest.mark.parametrize("metadata", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("when", ["a page", "a first load"])
def test_it_is_quarantined_and_the_others_are_applied(shop: Prices, enriched: Path, metadata: str, when: str) -> None:
    if when == "a page":
        shop.deploy(enriched)
    shop.sell(5)
    store(shop, "x", metadata)
    shop.sell(5, "later")
    if when == "a page":
        compiled = Compiler(enriched)
        shop.compiler = compiled
        shop.apply("enriched", "raw")
    else:
        shop.deploy(enriched)
    assert shop.waiting() == [("enriched", "x")]
    assert shop.admin.execute("SELECT count(*) FROM metrics.enriched").fetchone() == (10,)
    assert shop.admin.execute("SELECT count(*) FROM metrics.raw").fetchone() == (11,)
    [letter] = shop.letters()
    assert letter.error.startswith(("ValueError", "RecursionError"))
    # Nor does it stop a duty, an audit, a heal or who tries it again.
    compiler = Compiler(enriched)
    purity.run(shop.worker, compiler)
    assert release(shop.worker, compiler, letter).answer == "failed"
    table = shop.build("enriched").table_name
    shop.admin.execute(f"DELETE FROM refold_builds.{table}; UPDATE refold_builds.{shop.build('raw').table_name}"
                       " SET metadata = '{}' WHERE event_id = 'x'".encode())  # fmt: skip
    report = reconcile(shop.worker, enriched, depth="deep")
    assert (report.skipped, report.drift) == ([], 11)
    assert reconcile(shop.worker, enriched).clean


@pytest.mark.slow
@pytest.mark.parametrize("metadata", UNREADABLE.values(), ids=UNREADABLE)
def test_it_can_be_shown(shop: Prices, enriched: Path, metadata: str) -> None:
    store(shop, "x", metadata)
    shop.deploy(enriched)
    [letter] = shop.letters()
    run = CliRunner()
    shown = run.invoke(app, ["deadletters", "show", str(letter.dead_letter_id), "--database-url", shop.url])
    assert shown.exit_code == 0, shown.output
    assert "enriched could not process event x" in shown.output
    told = run.invoke(app, ["deadletters", "show", str(letter.dead_letter_id), "--json", "--database-url", shop.url])
    event: Any = json.loads(told.stdout)["event"]
    # What is too deep for a document is shown as text.
    assert event["event_id"] == "x" if isinstance(event, dict) else '"event_id": "x"' in event
    query = run.invoke(app, ["query", "SELECT * FROM metrics.raw", "--database-url", shop.url])
    assert query.exit_code == 0, query.output


def test_what_a_function_returns_and_nobody_can_write(shop: Prices, tmp_path: Path) -> None:
    (tmp_path / "enriched.py").write_text(WRITTEN)
    shop.deploy(tmp_path)
    shop.compiler = Compiler(tmp_path)
    store(shop, "good", '{"digits": 3}')
    store(shop, "too many for a text", '{"digits": 5000}')
    store(shop, "too many for the column", '{"digits": 30}')
    shop.apply("enriched")
    assert shop.waiting() == [("enriched", "too many for a text"), ("enriched", "too many for the column")]
    with psycopg.connect(shop.url) as conn:
        assert conn.execute("SELECT price FROM metrics.enriched").fetchall() == [(1000,)]
