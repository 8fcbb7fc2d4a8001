"""An erasure beside everything else: pages, other erasures, dead letters, backfills, retired builds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from refold.engine.deployment.deploy import rebuild
from refold.engine.erasure import log as log_part
from refold.engine.erasure.places import clean_ids
from refold.engine.erasure.run import erase, look
from refold.model.erasure import Person
from refold.postgres.connect import connect as connect_as
from refold.store import file_backfills
from refold.store.builds import dead_letters
from refold.store.builds.build import find
from tests.engine.erasure.conftest import ALICE, MAIL, Shop
from tests.engine.erasure.test_erasure import SIGNS, whole
from tests.support.live import SHOP
from tests.support.processes import rebuilding
from tests.support.waiting import wait_until

pytestmark = pytest.mark.live("shop")


def test_pages_go_on_beside_it(shop: Shop) -> None:
    """Unread events of the person are changed before a build reads them, and read ones in the build, too."""
    shop.append([
        {"id": f"x{n}", "user_id": [ALICE, "bob"][n % 2], "action": "purchase", "ts": n * 86_400,
         "metadata": {"amount": n}}
        for n in range(40)
    ])  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        draining = pool.submit(shop.drain)
        shop.erase(mode="delete")
        draining.result()
    shop.drain()
    assert shop.holding(*SIGNS) == []
    whole(shop)


def test_two_at_once(shop: Shop) -> None:
    def one(user_id: str, mode: Any) -> str:
        with connect_as(shop.url, "refold_worker", autocommit=True) as conn:
            return erase(conn, SHOP, Person(user_id, (("email", MAIL),)), mode=mode, keeps=[], reason="asked").step

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(one, [ALICE, "bob"], ["anonymise", "delete"]))
    assert done == ["done", "done"]
    assert shop.holding(*SIGNS, "bob") == []
    whole(shop)


@pytest.mark.slow
def test_a_build_that_is_being_loaded_starts_again(shop: Shop) -> None:
    with rebuilding(shop.url, SHOP, ["daily", "graded"], env={"REFOLD_CRASH_AT": "load_indexes"}) as process:
        assert process.wait(60) == -9
    assert [build.loaded for build in find(shop.worker, "b.state = 'building'")].count(False) >= 1
    shop.erase(mode="delete")
    assert shop.holding(*SIGNS) == []
    with rebuilding(shop.url, SHOP, ["daily", "graded"]) as process:
        assert process.wait(60) == 0
    shop.drain()
    whole(shop)


def test_tables_of_retired_builds_go(shop: Shop) -> None:
    rebuild(shop.worker, SHOP, ["totals"], lambda progress: None)
    shop.drain()
    wait_until(lambda: bool(find(shop.worker, "b.state = 'retired'")))
    [retired] = find(shop.worker, "b.state = 'retired'")
    assert look(shop.worker, Person(ALICE)).retired == [retired.table_name]
    shop.erase()
    assert find(shop.worker, "b.state = 'retired'") == []
    assert shop.holding(*SIGNS) == []


@pytest.mark.parametrize("mode", ["anonymise", "delete"])
def test_dead_letters_of_the_person(shop: Shop, mode: Any) -> None:
    shop.append([{"id": f"{ALICE}!", "user_id": ALICE, "action": "purchase", "ts": 1, "metadata": {"amount": MAIL}}])
    shop.drain()
    waiting = dead_letters.letters(shop.worker, waiting=True)
    assert {letter.projection for letter in waiting} >= {"daily", "purchases"}
    assert any(MAIL in letter.error for letter in waiting)
    done = shop.erase(mode=mode)
    assert shop.holding(*SIGNS) == []
    left = dead_letters.letters(shop.worker)
    assert {letter.state for letter in left} == (set() if mode == "delete" else {"dropped"})
    assert done.evidence["dead_letters"] == (0 if mode == "delete" else len(waiting))
    for build in find(shop.worker, "b.state = 'live'"):
        assert build.dead_letters == sum(letter.build_id == build.build_id for letter in left)


def test_records_that_are_staged_become_no_events(shop: Shop) -> None:
    with connect_as(shop.url, "refold_backfill", autocommit=True) as conn:
        with conn.transaction():
            staged = file_backfills.begin(conn, "history", {})
        conn.execute(
            f"INSERT INTO {staged.staging} (number, characters, file, line, event_id, user_id, action, ts, metadata,"
            f" version, raw) VALUES (1, 1, 1, 1, 'h1', %s, 'a', now(), '{{}}', 1, NULL),"
            " (2, 2, 1, 2, 'h2', 'bob', 'a', now(), %s, 1, NULL)".encode(),
            (ALICE, f'{{"email": "{MAIL}"}}'),
        )
    shop.erase()
    assert shop.holding(*SIGNS) == []
    rows = shop.admin.execute(f"SELECT number, problem, raw FROM {staged.staging} ORDER BY 1".encode()).fetchall()
    assert rows == [(1, "erased", ""), (2, "erased", "")]


def test_ids_that_hold_a_person_whom_nobody_names(shop: Shop) -> None:
    with connect_as(shop.url, "refold_backfill", autocommit=True) as conn:
        with conn.transaction():
            staged = file_backfills.begin(conn, "history", {})
        conn.execute(
            f"INSERT INTO {staged.staging} (number, characters, file, line, event_id, user_id, action, ts, metadata,"
            " version, raw, problem) VALUES (1, 1, 1, 1, 'zoe-1', 'bob', 'a', now(), '{}', 1, NULL, NULL),"
            " (2, 2, 1, 2, NULL, NULL, NULL, NULL, NULL, NULL, 'no ts: zoe-2', 'x'),"
            # A user who is called like an event is another person.
            " (3, 1, 1, 3, 'h3', 'zoe-1', 'a', now(), '{}', 1, NULL, NULL)".encode()
        )
    shop.admin.execute("UPDATE refold.duties SET error = 'zoe-2 fails, zoe-3 does not'")
    with shop.worker.transaction():
        clean_ids(shop.worker, ["zoe-1", "zoe-2"])
    rows = shop.admin.execute(f"SELECT number, user_id, problem FROM {staged.staging} ORDER BY 1".encode()).fetchall()
    assert rows == [(1, None, "erased"), (2, None, "erased"), (3, "zoe-1", None)]
    errors = shop.admin.execute("SELECT DISTINCT error FROM refold.duties").fetchall()
    assert errors in ([], [("erased fails, zoe-3 does not",)])


def test_many_portions(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every event has its portion; the person is known until the last of them."""
    monkeypatch.setattr("refold.engine.erasure.run.PORTION", 1)
    portions: list[int] = []

    def counted(*given: Any) -> Any:
        portions.append(len(given[3]))
        return log_part.change(*given)

    monkeypatch.setattr("refold.engine.erasure.run.change", counted)
    shop.append([{"id": f"x{n}", "user_id": ALICE, "action": "visit", "ts": n} for n in range(5)])
    shop.drain()
    shop.erase()
    assert len(portions) >= 4 and sum(portions) == 9
    assert shop.holding(*SIGNS) == []
    tokens = shop.admin.execute("SELECT DISTINCT user_id FROM refold.events WHERE user_id LIKE 'erased:%'").fetchall()
    assert len(tokens) == 1
    whole(shop)
