"""Copies of a database only read, until a person claims the store; nobody writes over or removes another's files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from refold.engine.archive.failures import NotOwner
from refold.engine.archive.object_store import open_store
from refold.engine.archive.verify import verify
from refold.postgres.connect import connect as connect_as
from tests.conftest import ServerUnderTest
from tests.engine.archive.conftest import Shop, shop_of


@pytest.fixture
def clone(shop: Shop, server: ServerUnderTest) -> Iterator[list[Shop]]:
    """Makes a copy of the database when it is told to: an element is added."""
    made: list[Shop] = []
    name = f"{shop.admin.info.dbname}_clone"

    class Clones(list[Shop]):
        def make(self) -> Shop:
            url = server.url_of(name)
            database = shop.admin.info.dbname
            with psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as maintenance:
                shop.worker.close()
                shop.admin.close()
                maintenance.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(database))
                )
            shop.admin = psycopg.connect(server.url_of(database), autocommit=True)
            shop.worker = connect_as(server.url_of(database), "refold_worker", autocommit=True)
            admin = psycopg.connect(url, autocommit=True)
            made.append(shop_of(url, admin, connect_as(url, "refold_worker", autocommit=True), shop.location))
            return made[-1]

    yield Clones()
    for one in made:
        one.worker.close()
        one.admin.close()
        one_name = sql.Identifier(name)
        with psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as maintenance:
            maintenance.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(one_name))
    shop.admin.close()
    shop.worker.close()


def content(shop: Shop) -> dict[str, bytes]:
    root = Path(shop.location)
    return {str(path): path.read_bytes() for path in sorted((root / "log").rglob("*")) if path.is_file()}


def test_a_copy_only_reads_when_the_original_has_gone_on(shop: Shop, clone: list[Shop]) -> None:
    shop.claim()
    copy = clone.make()  # type: ignore[attr-defined]
    assert len(shop.run().verified) == 3
    before = content(shop)
    with pytest.raises(NotOwner, match="a copy of this database, or its original"):
        copy.run()
    assert content(shop) == before
    # A person says that the copy goes on: its files are others, and the original only reads.
    copy.claim()
    assert len(copy.run().verified) == 3
    assert {name: copied for name, copied in content(shop).items() if name in before} == before
    assert len(content(shop)) == 6
    with pytest.raises(NotOwner):
        shop.run()
    assert verify(shop.worker, by="the test", deep=True).wrong == []
    assert verify(copy.worker, by="the test", deep=True).wrong == []


def test_a_copy_that_has_the_manifest_keeps_the_originals_files(shop: Shop, clone: list[Shop]) -> None:
    shop.claim()
    shop.run()
    copy = clone.make()  # type: ignore[attr-defined]
    assert verify(copy.worker, by="the test", deep=True).wrong == []
    copy.claim()
    # A file of the original is lost: the copy writes its own, and removes nothing.
    lost = Path(shop.location) / shop.manifest()[1].location
    lost.unlink()
    before = content(shop)
    assert len(verify(copy.worker, by="the test").wrong) == 1
    assert len(copy.run().verified) == 1
    after = content(shop)
    assert {name: after.get(name) for name in before} == before
    assert len(after) == len(before) + 1


def test_what_the_original_began_is_not_removed_by_the_copy(shop: Shop, clone: list[Shop]) -> None:
    """The copy is taken while the original sends a file, whose name both manifests have."""
    shop.claim()
    shop.run()
    shop.admin.execute("DELETE FROM refold.archive_slices")
    shop.admin.execute(
        "UPDATE refold.archives SET state = 'begun', proved_at = NULL, verified_at = NULL, sha256 = NULL"
    )
    copy = clone.make()  # type: ignore[attr-defined]
    assert shop.run().verified == [one.segment for one in shop.manifest()]
    before = content(shop)
    with pytest.raises(NotOwner):
        copy.run()
    copy.claim()
    Path(shop.location, copy.manifest()[0].location).write_bytes(b"not whole")
    copy.run()
    assert content(shop).keys() >= before.keys()


def test_another_store_has_none_of_the_files_unless_they_were_copied(shop: Shop, tmp_path: Path) -> None:
    shop.claim()
    shop.run()
    copied = tmp_path / "copied"
    shutil.copytree(shop.location, copied)
    shop.location = str(tmp_path / "empty")
    shop.store = open_store(shop.location)
    shop.claim()
    assert shop.states() == [(1, "replaced")] * 3
    assert len(shop.run().verified) == 3
    shop.admin.execute("DELETE FROM refold.archives WHERE state = 'verified'")
    shop.admin.execute("UPDATE refold.archives SET state = 'verified'")
    shop.location = str(copied)
    shop.store = open_store(shop.location)
    shop.claim()
    assert shop.states() == [(1, "written")] * 3
    done = shop.run()
    assert (len(done.written), len(done.verified)) == (0, 3)
    assert shop.incidents() == []
