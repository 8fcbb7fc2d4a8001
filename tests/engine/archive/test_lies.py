"""A store that fails, lies or loses a file is found out, named, and believed nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa  # type: ignore[import-untyped]
import pytest

from refold.engine.archive import parquet, write
from refold.engine.archive.failures import Differs, NotOwner, StoreFailed
from refold.engine.archive.object_store import Content, LocalStore
from refold.engine.archive.verify import verify
from refold.store.log.integrity import LogDamaged
from tests.engine.archive.conftest import SLICE, Shop
from tests.support.tampering import tamper

FIRST = "refold.events_000000000000001"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def another(path: Path) -> None:
    """What another segment's file holds."""
    path.write_bytes(max(path.parent.glob("*.parquet")).read_bytes())


def lost(path: Path) -> None:
    path.unlink()


LIES = [truncated, one_bit, another, lost]


class Liar(LocalStore):
    """Says that it has taken a file, and has something else then."""

    def __init__(self, folder: Path, lie: Callable[[Path], None]) -> None:
        super().__init__(folder)
        self.root, self.lie, self.lies = folder, lie, True

    def put(self, name: str, file: BinaryIO, beat: Callable[[], None]) -> Content:
        sent = super().put(name, file, beat)
        if self.lies:
            self.lie(self.root / name)
        return sent


@pytest.mark.parametrize("lie", [truncated, one_bit, lost])
def test_what_the_store_makes_of_a_file_is_not_believed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, lie: Callable[[Path], None]
) -> None:
    shop.claim()
    liar = Liar(Path(shop.location), lie)
    monkeypatch.setattr(write, "open_store", lambda location: liar)
    with pytest.raises(Differs, match=r"not what was written|no such file"):
        shop.run()
    assert shop.states() == [(1, "gone")]
    assert shop.incidents() == [("archive_damage", FIRST)]
    assert shop.admin.execute("SELECT count(*) FROM refold.archive_slices").fetchone() == (0,)
    liar.lies = False
    assert len(shop.run().verified) == 3
    assert shop.states() == [(1, "gone"), (2, "verified"), (1, "verified"), (1, "verified")]
    assert shop.incidents() == []


def test_rows_are_compared_and_not_only_bytes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that gives back what was sent, but what was sent is not what was sealed."""
    shop.claim()
    original = parquet.write

    def careless(conn, file, lower, upper, slices, about, beat):  # type: ignore[no-untyped-def]
        return original(conn, file, lower + 2, upper, slices, about, beat)

    monkeypatch.setattr(parquet, "write", careless)
    with pytest.raises(Differs, match="not those that were sealed"):
        shop.run()
    assert shop.states() == [(1, "gone")]
    monkeypatch.undo()
    assert len(shop.run().verified) == 3


@pytest.mark.parametrize("column, value", [("action", "forged"), ("ts", datetime(2026, 1, 1, tzinfo=UTC))])
def test_what_arrow_makes_of_a_row_is_not_believed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, column: str, value: object
) -> None:
    shop.claim()
    original = parquet._parsed

    def wrong(rows: bytes, longest: int) -> Any:
        table = original(rows, longest)
        at = table.schema.get_field_index(column)
        changed = [value, *table[column].to_pylist()[1:]]
        return table.set_column(at, table.schema.field(at), pa.array(changed, table.schema.field(at).type))

    monkeypatch.setattr(parquet, "_parsed", wrong)
    with pytest.raises(Differs, match="not those that were sealed"):
        shop.run()
    assert shop.states() == [(1, "gone")]
    monkeypatch.undo()
    assert len(shop.run().verified) == 3


@pytest.mark.parametrize("group", [1, 1 << 20])
def test_rows_of_a_whole_file_are_the_text_that_was_sent(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    """They need not go into a table again for their checksums, whatever is in them and wherever a row group ends."""
    shop.claim()
    monkeypatch.setattr(write, "thaw", None)
    monkeypatch.setattr(parquet, "GROUP", group)
    monkeypatch.setattr(parquet, "CHUNK", 700)
    assert len(shop.run().verified) == 3
    monkeypatch.undo()
    assert verify(shop.worker, by="the test", deep=True).wrong == []


def test_a_host_without_room_for_the_file_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shop.claim()
    monkeypatch.setattr(parquet, "write", full)
    with pytest.raises(StoreFailed, match="cannot write a file of this host: No space left on device"):
        shop.run()
    assert shop.states() == [(1, "begun")]
    monkeypatch.undo()
    assert len(shop.run().verified) == 3


def test_a_damaged_log_is_not_archived(shop: Shop) -> None:
    shop.claim()
    tamper(shop.admin, "UPDATE refold.events SET action = 'forged' WHERE event_id = 's1-2'")
    with pytest.raises(LogDamaged):
        shop.run()
    assert [one.state for one in shop.manifest()] == ["verified", "gone"]
    assert shop.incidents() == [("log_damage", f"refold.events_{SLICE:015}")]


@pytest.mark.parametrize("deep", [False, True], ids=["bytes", "rows"])
@pytest.mark.parametrize("lie", LIES)
def test_what_the_store_loses_later_is_found_and_written_again(
    shop: Shop, lie: Callable[[Path], None], deep: bool
) -> None:
    shop.claim()
    shop.run()
    assert verify(shop.worker, by="the test", deep=deep).wrong == []
    lie(Path(shop.location) / shop.manifest()[0].location)
    found = verify(shop.worker, by="the test", deep=deep)
    assert [one.segment for one in found.wrong] == [FIRST]
    assert shop.incidents() == [("archive_damage", FIRST)]
    assert shop.run().verified == [FIRST]
    assert shop.states() == [(1, "gone"), (2, "verified"), (1, "verified"), (1, "verified")]
    assert shop.incidents() == []
    assert verify(shop.worker, by="the test", deep=deep).wrong == []


def test_other_rows_under_the_right_sums_are_found_by_a_deep_look_only(shop: Shop) -> None:
    """Somebody who changes a file and the manifest's SHA-256 is found by the rows."""
    shop.claim()
    shop.run()
    first, second, _ = shop.manifest()
    path = Path(shop.location) / first.location
    path.write_bytes((Path(shop.location) / second.location).read_bytes())
    shop.admin.execute(
        "UPDATE refold.archives SET sha256 = sha256(%s), bytes = %s WHERE lower_position = 1",
        (path.read_bytes(), path.stat().st_size),
    )
    assert verify(shop.worker, by="the test").wrong == []
    assert [one.segment for one in verify(shop.worker, by="the test", deep=True).wrong] == [FIRST]


def test_a_folder_that_is_not_mounted_has_lost_nothing(shop: Shop) -> None:
    shop.claim()
    shop.run()
    Path(shop.location).rename(f"{shop.location}-elsewhere")
    with pytest.raises(NotOwner, match="not mounted"):
        verify(shop.worker, by="the test")
    with pytest.raises(NotOwner, match="not mounted"):
        shop.run()
    assert shop.states() == [(1, "verified")] * 3


def test_a_store_that_fails_half_way_leaves_nothing_that_is_believed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.claim()
    calls: list[str] = []

    class Failing(LocalStore):
        def fetch(self, name: str, file: BinaryIO, beat: Callable[[], None]) -> Content:
            calls.append(name)
            if len(calls) == 2:
                raise StoreFailed("503 slow down")
            return super().fetch(name, file, beat)

    failing = Failing(Path(shop.location))
    monkeypatch.setattr(write, "open_store", lambda location: failing)
    with pytest.raises(StoreFailed, match="slow down"):
        shop.run()
    assert shop.states() == [(1, "verified"), (1, "written")]
    # The file is used, and not written once more.
    assert len(shop.run().verified) == 2
    assert shop.states() == [(1, "verified")] * 3
    assert len(set(calls)) == 3
