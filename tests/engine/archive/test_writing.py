"""Sealed segments become files that others can read, and count only when their rows were read back."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from refold import append
from refold.engine.archive.failures import NotOwner, StoreFailed
from refold.engine.archive.parquet import COLUMNS
from refold.engine.archive.verify import verify
from refold.errors import BuildError, InputError
from refold.model.event.jsonb_limits import MAX_BYTES
from refold.store import archives
from refold.store.log.seal import SliceChecksum, sealed
from tests.engine.archive.conftest import SLICE, Shop, segments_of
from tests.support.law import worker_connection
from tests.support.making import events
from tests.support.waiting import wait_until


def test_what_is_sealed_is_archived_and_proved(shop: Shop) -> None:
    shop.claim()
    done = shop.run()
    assert done.written == done.verified == [f"refold.events_{lower:015}" for lower in (1, SLICE, 2 * SLICE)]
    assert shop.states() == [(1, "verified")] * 3
    for number, one in enumerate(shop.manifest()):
        assert archives.slices_of(shop.worker, one) == sealed(shop.worker, number, number)
    # A second run finds nothing to do.
    assert shop.run().written == []
    assert shop.incidents() == []


def test_duckdb_and_pyarrow_read_what_the_log_has(shop: Shop) -> None:
    shop.claim()
    shop.run()
    paths = [str(Path(shop.location) / one.location) for one in shop.manifest()]
    exactly = (
        "SELECT txid::text::bigint, position, event_id, user_id, action, (extract(epoch FROM ts) * 1000000)::bigint,"
        " metadata::text, version, (extract(epoch FROM recorded_at) * 1000000)::bigint FROM refold.events"
        f" WHERE position < {3 * SLICE} ORDER BY position"
    )
    log = shop.admin.execute(exactly.encode()).fetchall()
    assert len(log) == 19
    found = duckdb.execute(
        "SELECT txid, position, event_id, user_id, action, epoch_us(ts), metadata, version, epoch_us(recorded_at)"
        f" FROM read_parquet({paths}) ORDER BY position"
    )
    assert found.fetchall() == log
    tables = [pq.read_table(path) for path in paths]
    assert tables[0].column_names == list(COLUMNS)
    assert [row["event_id"] for table in tables for row in table.to_pylist()] == [row[2] for row in log]
    assert pq.ParquetFile(paths[0]).metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("char", ['"', "\\", "\n", ",", "x", "é"])
def test_events_of_the_largest_size_are_archived(shop: Shop, char: str) -> None:
    """CSV doubles quotes: the row of such an event is half as long again as its metadata."""
    written = json.dumps(char, ensure_ascii=False)[1:-1].encode()
    large = {"text": char * ((MAX_BYTES - 32) // len(written))}
    told = [one for at in range(4) for one in (*events(20, f"small{at}-"), *events(1, f"large{at}-", metadata=large))]
    assert {one.answer.value for one in append(shop.admin, told)} == {"accepted"}
    shop.admin.execute("SELECT setval('refold.events_position', %s, false)", (4 * SLICE,))
    shop.admin.execute("SELECT refold.ensure_segments()")
    shop.seal(4)
    shop.claim()
    assert len(shop.run().verified) == 4
    assert verify(shop.worker, by="the test", deep=True).wrong == []


def test_nothing_is_written_before_its_time(shop: Shop) -> None:
    shop.claim()
    from refold.engine.archive.write import run

    assert run(shop.worker, by="the test").written == []
    shop.admin.execute("UPDATE refold.settings SET archive_after = 0")
    shop.admin.execute("UPDATE refold.sealed_slices SET sealed_at = NULL, events = NULL, upto = NULL, ids = NULL,"
                       " hash = NULL WHERE slice = 1")  # fmt: skip
    assert run(shop.worker, by="the test").written == [f"refold.events_{lower:015}" for lower in (1, 2 * SLICE)]


def test_without_a_claim_nothing_is_written(shop: Shop) -> None:
    with pytest.raises(InputError, match="no archive is set"):
        shop.run()
    shop.admin.execute("UPDATE refold.settings SET archive = %s", (shop.location,))
    with pytest.raises(NotOwner, match="has not claimed"):
        shop.run()


def test_one_process_writes_at_a_time(shop: Shop) -> None:
    shop.claim()
    assert archives.take(shop.worker, "another") is not None
    with pytest.raises(BuildError, match="another process writes"):
        shop.run()
    # It was killed, and its time is over.
    shop.admin.execute("UPDATE refold.archive_store SET leased_until = now() - interval '1 s'")
    assert len(shop.run().written) == 3
    with pytest.raises(archives.LeaseLost):
        archives.keep(shop.worker, "another")


def test_a_lease_ends_with_the_session_of_its_holder(shop: Shop, database_url: str) -> None:
    shop.claim()
    with worker_connection(database_url) as other, worker_connection(database_url) as third:
        assert archives.take(other, "other") is not None
        assert archives.take(shop.worker, "mine") is None
        # A pool gave it another session since.
        archives.keep(third, "other")
        other.close()
        assert archives.take(shop.worker, "mine") is None
    assert wait_until(lambda: archives.take(shop.worker, "mine")) is not None
    archives.let_go(shop.worker, "mine")
    # An older version says nothing of its session.
    shop.admin.execute("UPDATE refold.archive_store SET holder = 'old', leased_until = now() + interval '1 minute'")
    assert archives.take(shop.worker, "mine") is None


def test_halves_of_a_slice_are_verified_together(shop: Shop) -> None:
    """Segments of older versions cut slices: the parts in both files must add up."""
    shop.claim()
    shop.admin.execute("DELETE FROM refold.sealed_slices")
    shop.admin.execute("ALTER TABLE refold.events DISABLE TRIGGER USER")
    segments_of(shop.admin, SLICE + 3, 2 * SLICE + 100, 3 * SLICE, 5 * SLICE)
    shop.admin.execute("ALTER TABLE refold.event_ids DISABLE TRIGGER USER")
    shop.admin.execute("DELETE FROM refold.event_ids")
    shop.admin.execute("ALTER TABLE refold.event_ids ENABLE TRIGGER USER")
    shop.admin.execute("ALTER TABLE refold.events ENABLE TRIGGER USER")
    shop.admin.execute("SELECT refold.arm_guards()")
    shop.admin.execute("SELECT setval('refold.events_position', 1, false)")
    shop.fill(3)
    shop.seal(3)
    # Only the first is old enough.
    shop.admin.execute("UPDATE refold.sealed_slices SET sealed_at = now() - interval '1 day' WHERE slice < 2")
    from refold.engine.archive.write import run

    assert run(shop.worker, by="the test", older_than_s=3600).written == ["refold.events_000000000000001"]
    assert shop.states() == [(1, "written")]
    assert sum(archives.slices_of(shop.worker, shop.manifest()[0]).values(), SliceChecksum()).events == 9 + 3
    assert len(shop.run().verified) == 3
    assert shop.states() == [(1, "verified")] * 3


def test_files_are_never_written_over(shop: Shop) -> None:
    shop.claim()
    shop.run()
    with (Path(shop.location) / "new").open("w+b") as file:
        file.write(b"other")
        file.seek(0)
        with pytest.raises(StoreFailed):
            shop.store.put(shop.manifest()[0].location, file, lambda: None)
    assert len(shop.store.read(shop.manifest()[0].location) or b"") == shop.manifest()[0].size
