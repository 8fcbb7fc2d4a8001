"""After a restore from a backup from before an erasure, the erasure is done again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import sql

from refold.engine.erasure.again import export
from refold.engine.erasure.restored import apply
from refold.errors import InputError
from refold.postgres.connect import connect as connect_as
from refold.store.builds.compiled import Compiler
from tests.conftest import ServerUnderTest
from tests.engine.erasure.conftest import ALICE, Shop, of_alice
from tests.engine.erasure.test_erasure import SIGNS, whole
from tests.support.clusters import dump, restore
from tests.support.live import SHOP

pytestmark = pytest.mark.live("shop")


@pytest.fixture
def backup(shop: Shop, server: ServerUnderTest) -> Iterator[Shop]:
    """The shop as a backup has it from before the erasure, restored as another database."""
    name = f"{shop.admin.info.dbname}_restored"
    copied = dump(shop.url)
    shop.admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = server.url_of(name)
    restore(copied, url)
    with (
        closing(psycopg.connect(url, autocommit=True)) as admin,
        connect_as(url, "refold_worker", autocommit=True) as worker,
    ):
        yield Shop(url, admin, worker)
    shop.admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def again(shop: Shop, content: dict[str, Any]) -> list[Any]:
    return [done.step for done in apply(shop.worker, Compiler(SHOP), content)]


def test_an_export_is_applied_to_an_older_backup(shop: Shop, backup: Shop) -> None:
    # What the backup does not have of the person.
    shop.append([of_alice()[0] | {"id": "after the backup"}])
    shop.drain()
    shop.erase()
    told = export(shop.worker)
    assert ALICE not in str(told)
    # The person is also in what only a search by name finds.
    backup.append([{"id": "bad", "user_id": ALICE, "action": "", "ts": 1}])
    assert backup.holding(ALICE)
    assert again(backup, told) == ["done"]
    assert backup.holding(*SIGNS) == []
    whole(backup)
    # It refuses all of these ids, also the one that it never had.
    retried = [*of_alice(), of_alice()[0] | {"id": "after the backup"}]
    assert backup.append(retried) == ["duplicate"] * 5
    assert again(backup, told) == []


def test_a_database_that_knows_the_erasure_leaves_it_alone(shop: Shop) -> None:
    shop.erase()
    assert again(shop, export(shop.worker)) == []


def test_an_export_of_another_key_or_form_is_refused(shop: Shop) -> None:
    shop.erase()
    told = export(shop.worker)
    wrong_ones: list[dict[str, Any]] = [{**told, "key": "00"}, {"erasures": []}, {**told, "refold_erasures": 2}]
    for wrong in wrong_ones:
        with pytest.raises(InputError):
            again(shop, wrong)
