"""Healing a stream: its readers get what they had folded wrongly, and what they have yet to read they get once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from refold.engine.deployment.deploy import rebuild
from refold.engine.reconcile.audit import audit
from refold.engine.reconcile.heal import heal
from refold.postgres.connect import connect as connect_as
from refold.store.builds.build import find, live
from refold.store.builds.compiled import Compiler
from tests.support.live import SHOP
from tests.support.reconcile_shop import Shop
from tests.support.sessions import somebody_waits
from tests.support.waiting import wait_until

pytestmark = pytest.mark.live("shop")

STREAMS = {"purchases": ("amount", "1000", ("totals",)), "graded": ("grade", "'huge'", ("grades", "grade_paths"))}
"""Of each stream: a column, a wrong value for it, and who reads it."""

DAMAGES = {
    "changed": "UPDATE {stream} SET user_id = 'u4', {column} = {value} WHERE event_id IN {two}",
    "removed": "DELETE FROM {stream} WHERE event_id IN {two}",
    "added": "INSERT INTO {stream} (txid, position, ordinal, event_id, user_id, ts, {column})"
    " SELECT txid, position, ordinal + 1, 'forged-' || event_id, user_id, ts, {column}"
    " FROM {stream} WHERE event_id IN {two}",
}
every_stream = pytest.mark.parametrize("stream", STREAMS)


def bring(shop: Shop, kind: str) -> None:
    """Six purchases, big ones and small ones."""
    shop.append(
        [
            {
                "id": f"{kind}{n}",
                "user_id": f"u{n % 3}",
                "action": "purchase",
                "ts": 86_400_000 * n,
                "metadata": {"amount": 40 * n},
            }
            for n in range(6)
        ]
    )


def damage(shop: Shop, stream: str, kind: str) -> None:
    column, value, _ = STREAMS[stream]
    two = f"('{kind}2', '{kind}5')"
    statement = DAMAGES[kind].format(stream=shop.tables[stream], column=column, value=value, two=two)
    assert shop.worker.execute(statement.encode()).rowcount == 2


def drifted(shop: Shop, *names: str) -> set[str]:
    return {projection for projection, _, _ in shop.reconcile(*names).counts}


@every_stream
def test_readers_that_had_folded_the_wrong_rows(shop: Shop, stream: str) -> None:
    """Healing the stream alone heals what stands on it, in one go."""
    readers = STREAMS[stream][2]
    for kind in DAMAGES:
        bring(shop, kind)
        shop.apply(stream)
        damage(shop, stream, kind)
        shop.drain()
        assert set(shop.wrong()) == {stream, *readers}, kind
        assert drifted(shop, stream) == {stream, *readers}, kind
        assert shop.wrong() == {}, kind
        assert shop.reconcile().drift == 0, kind


@every_stream
def test_readers_that_had_not_read_them_yet(shop: Shop, stream: str) -> None:
    """The healed rows come back under their old coordinates, where the readers find them, once."""
    for kind in DAMAGES:
        bring(shop, kind)
        shop.apply(stream)
        damage(shop, stream, kind)
        assert drifted(shop, stream) == {stream}, kind
        shop.drain()
        assert shop.wrong() == {}, kind
        assert shop.reconcile().drift == 0, kind


@every_stream
def test_readers_that_had_folded_the_right_rows(shop: Shop, stream: str) -> None:
    for kind in DAMAGES:
        bring(shop, kind)
        shop.drain()
        before = {reader: shop.content()[shop.tables[reader]] for reader in STREAMS[stream][2]}
        damage(shop, stream, kind)
        assert drifted(shop) == {stream}, kind
        # Not even rewritten.
        assert before == {reader: shop.content()[shop.tables[reader]] for reader in STREAMS[stream][2]}, kind
        assert shop.wrong() == {}, kind


def test_readers_of_a_damaged_stream_that_is_rebuilt_alone(shop: Shop) -> None:
    for kind in DAMAGES:
        bring(shop, kind)
        shop.apply("graded")
        damage(shop, "graded", kind)
        shop.drain()
        assert set(shop.wrong()) == {"graded", "grades", "grade_paths"}, kind
        [build] = rebuild(shop.worker, SHOP, ["graded"], lambda progress: None)
        shop.tables["graded"] = f"refold_builds.{build.table_name}"
        assert shop.wrong() == {}, kind
        assert shop.reconcile().drift == 0, kind


def test_one_reader_ahead_of_another(shop: Shop) -> None:
    """Each is healed as of its own cursor."""
    stream, readers = "graded", STREAMS["graded"][2]
    for kind in DAMAGES:
        bring(shop, kind)
        shop.apply(stream)
        damage(shop, stream, kind)
        shop.apply(readers[0])
        assert drifted(shop, stream) == {stream, readers[0]}, kind
        shop.drain()
        assert shop.wrong() == {}, kind
        assert shop.reconcile().drift == 0, kind


def test_a_reader_that_is_made_while_its_stream_is_healed(
    shop: Shop, connect: Callable[..., psycopg.Connection]
) -> None:
    """It must not load the rows as they were: nobody would bring it the ones that come."""
    shop.tamper("UPDATE {purchases} SET amount = 1000 WHERE event_id = 'e002'")
    looker = connect(autocommit=True)

    def rebuilding() -> None:
        with connect_as(shop.url, "refold_worker", autocommit=True) as other:
            rebuild(other, SHOP, ["totals"], lambda progress: None)

    def waits_or_has_read() -> bool:
        return somebody_waits(looker) or bool(find(looker, "b.projection = 'totals' AND b.number = 2 AND b.loaded"))

    thread = threading.Thread(target=rebuilding)
    compiler = Compiler(SHOP)
    stream = live(shop.worker, "purchases")
    assert stream is not None
    suspects = audit(shop.worker, compiler.of(shop.worker, stream)).suspects
    with shop.worker.transaction():
        heal(shop.worker, compiler, stream, suspects)
        thread.start()
        wait_until(waits_or_has_read)
    thread.join(60)
    rebuilt = live(shop.worker, "totals")
    assert rebuilt is not None and rebuilt.number == 2
    assert shop.wrong() == {}
