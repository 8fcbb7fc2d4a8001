"""Contracts and upcasters: a check promises what comes, and every record is counted once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.cli.backfill_report import as_dict
from refold.inspect.backfill.check import answers_of
from refold.store import contracts
from refold.store import file_backfills as store
from tests.support import backfilling
from tests.support.backfilling import LANE_POINTS, command, give, stage, write
from tests.support.contracts import PURCHASE, REASON, contract, register
from tests.support.law import worker_connection
from tests.support.making import events, rejected
from tests.support.scratch import Scratch
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]

DAILY = "SELECT action, count(*) AS n, sum((metadata ->> 'amount')::numeric) AS amount FROM events GROUP BY action"
PAID = """
from pydantic import BaseModel
from refold import Event, transform

class Paid(BaseModel):
    event_id: str
    user_id: str | None
    amount: float

@transform(reads="events")
def paid(event: Event) -> Paid:
    return Paid(event_id=event.event_id, user_id=event.user_id, amount=event.metadata["amount"])
"""
BY_USER = "SELECT user_id, count(*) AS n, max(amount) AS most FROM paid GROUP BY user_id"
CENTS = "metadata - 'cents' || jsonb_build_object('amount', (metadata ->> 'cents')::numeric / 100, 'of', '100%')"


def purchase(event_id: str, amount: Any, **more: Any) -> dict[str, Any]:
    return {**events(1)[0], "id": event_id, "action": "purchase", "metadata": {"amount": amount}, **more}


@pytest.fixture
def shop(scratch: Scratch, admin: Connection) -> Scratch:
    """A metric, two events in the log, one of which breaks the contract that is enforced since."""
    scratch.deploy(daily=DAILY)
    append(admin, [purchase("known", "7"), purchase("other", 7)])
    scratch.drain()
    register(scratch.worker)
    return scratch


@pytest.fixture
def file(tmp_path: Path) -> Path:
    good = [purchase(f"good{at}", at) for at in range(12)]
    bad = [purchase(f"bad{at}", str(at)) for at in range(5)]
    return write(
        tmp_path / "old.jsonl",
        [
            *good[:6], bad[0], "nothing", *good[6:], *bad[1:],
            # In the log already, whatever the contract says; and with other content there.
            purchase("known", "7"), purchase("other", "7"),
            # The first is refused, so the second is the first that counts.
            purchase("twice", "1"), purchase("twice", "1"), purchase("twice", 1), good[3], *events(2, "view"),
        ],
    )  # fmt: skip


def test_a_check_knows_contracts(shop: Scratch, file: Path) -> None:
    found = backfilling.check(shop.url, stage(shop.url, "history", file), shop.folder)
    told = found.answers
    assert (told.new, told.duplicates, told.repeated, told.conflicts, told.invalid) == (15, 1, 1, 1, 8)
    assert (told.breaches, told.too_many_breaches) == (7, False)
    named = {one.line: (one.event_id, one.reason) for one in told.refused}
    assert named[7] == ("bad0", REASON)
    assert named[8][0] is None
    assert {line for line, (_, reason) in named.items() if reason == REASON} == {7, 15, 16, 17, 18, 21, 22}
    assert answers_of(json.loads(json.dumps(found.as_dict(), default=str))) == told


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_what_comes_is_what_was_promised(shop: Scratch, file: Path, admin: Connection, batch: int) -> None:
    made = stage(shop.url, "history", file)
    found = backfilling.check(shop.url, made, shop.folder)
    (effect,) = found.effects
    before = {action: (n, amount) for action, n, amount in shop.rows("daily")}
    done = give(shop.url, made, batch=batch)
    assert (done.accepted, done.duplicates, done.conflicts, done.invalid_so_far) == (15, 2, 1, 8)
    assert (done.state, done.invalid_so_far, as_dict(done)["invalid"]) == ("done", found.answers.invalid, 8)
    shop.drain()
    after = {action: (n, amount) for action, n, amount in shop.rows("daily")}
    assert effect.sums == {
        "n": sum(n for n, _ in after.values()) - sum(n for n, _ in before.values()),
        "amount": sum(a or 0 for _, a in after.values()) - sum(a or 0 for _, a in before.values()),
    }
    assert (effect.added, effect.changed) == (len(after.keys() - before.keys()), 1)
    assert ("history", 7, "invalid", f"{REASON} (old.jsonl)") in rejected(admin)


@pytest.mark.parametrize("at", [f"{point}:2" for point in LANE_POINTS[1:]])
def test_killed_anywhere_every_record_is_counted_once(shop: Scratch, file: Path, admin: Connection, at: str) -> None:
    backfilling.check(shop.url, stage(shop.url, "history", file), shop.folder)
    admin.execute("UPDATE refold.file_backfills SET batch = 7")
    arguments = ("backfill", "run", "history", "--accept-conflicts", "--freshness", "3600s")
    assert command(shop.url, *arguments, env={"REFOLD_CRASH_AT": at}).returncode == -9
    (halfway,) = store.every(admin)
    # The server may see a moment later that the process is gone.
    wait_until(lambda: [one.state for one in store.as_told(admin, [halfway])] == ["interrupted"])
    parts = as_dict(halfway)
    answered = ("accepted", "duplicates", "conflicts", "invalid", "left")
    assert sum(parts[name] for name in answered) == parts["total"] == 26
    again = command(shop.url, *arguments)
    assert again.stdout == "history: done: 26 records = 15 accepted + 2 duplicates + 1 conflicts + 8 invalid\n"


def test_unknown_versions_and_levels(shop: Scratch, file: Path, tmp_path: Path, admin: Connection) -> None:
    path = write(tmp_path / "new.jsonl", [purchase("v2", 1, version=2), purchase("v1", "1"), *events(2, "view")])
    made = stage(shop.url, "history", path)

    def told() -> tuple[int, int]:
        answers = backfilling.check(shop.url, made, shop.folder).answers
        return answers.new, answers.invalid

    assert told() == (3, 1)
    admin.execute("UPDATE refold.settings SET unknown_versions = 'reject'")
    assert told() == (2, 2)
    found = backfilling.check(shop.url, made, shop.folder).answers.refused
    assert [(one.line, one.reason) for one in found] == [
        (1, "version: purchase has no contract for version 2, but for 1"), (2, REASON),
    ]  # fmt: skip
    done = give(shop.url, made)
    assert (done.accepted, done.invalid_so_far) == (2, 2)
    made = stage(shop.url, "again", path)
    contracts.put(shop.worker, contract(PURCHASE, level="warn"))
    assert told() == (1, 1)
    contracts.put(shop.worker, contract(PURCHASE, level="off"))
    assert told() == (2, 0)


@pytest.fixture
def upcasting(tmp_path: Path, database_url: str) -> Iterator[Scratch]:
    """A project whose older purchases have cents, which an upcaster turns into an amount."""
    (tmp_path / "projections").mkdir()
    (tmp_path / "events").mkdir()
    (tmp_path / "events/purchase.v1_to_v2.sql").write_text(CENTS)
    with worker_connection(database_url) as worker:
        yield Scratch(tmp_path / "projections", database_url, worker)


def test_a_transform_gets_events_in_their_newest_form(upcasting: Scratch, tmp_path: Path) -> None:
    upcasting.deploy(paid=PAID, by_user=BY_USER)
    old = [{**one, "action": "purchase", "metadata": {"cents": 250 * at}} for at, one in enumerate(events(6, "old"), 1)]
    made = stage(upcasting.url, "history", write(tmp_path / "old.jsonl", old))
    found = {one.metric: one for one in backfilling.check(upcasting.url, made, upcasting.folder).effects}
    assert [(one.told, one.because) for one in found.values()] == [(True, None)] * 2, found
    give(upcasting.url, made)
    upcasting.drain()
    rows = {metric: upcasting.rows(metric) for metric in found}
    for metric in ("paid", "by_user"):
        assert found[metric].added == len(rows[metric])
    assert found["paid"].sums["amount"] == sum(amount for _, _, amount in rows["paid"]) == 52.5
    assert found["by_user"].sums == {"n": 6, "most": sum(most for _, _, most in rows["by_user"])}
