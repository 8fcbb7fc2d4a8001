"""A file into the log: whole batches, every record accounted for, and a second run changes nothing."""

from __future__ import annotations

import gzip
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import Answer, Log
from refold.errors import InputError
from refold.sources.files.mapper import Mapper
from refold.sources.files.mapping import Mapping
from refold.sources.files.readers import open_source
from refold.sources.files.records import Record, Records
from refold.sources.files.run import Tally, ingest
from refold.store.log.append import Receipt
from tests.conftest import ServerUnderTest
from tests.support.making import rejected, stored
from tests.support.proxy import Proxy, reply_lost

Connection = psycopg.Connection[Any]
ByRow = Callable[..., Tally]
MAPPING = {"map": ["user_id=who,action=what,ts=at"], "ts_format": "epoch_s", "id_from": "row"}


def table(count: int, changed: dict[int, str] | None = None) -> str:
    """A CSV file of so many rows; some of them different."""
    rows = {n: f"u{n % 3},view,{1_700_000_000 + n}" for n in range(1, count + 1)} | (changed or {})
    return "\n".join(["who,what,at", *rows.values()]) + "\n"


@contextmanager
def opened(text: str | bytes, url: str, **options: Any) -> Iterator[tuple[Log, Any, Mapper]]:
    data = text.encode() if isinstance(text, str) else text
    with open_source("-", format="csv", name="visits", stdin=io.BytesIO(data)) as source, Log(url) as log:
        yield log, source, Mapper(Mapping.parse(**{**MAPPING, **options}), source)


@pytest.fixture
def run(database_url: str) -> ByRow:
    """Ingests a text, in batches of ten."""

    def run(text: str | bytes, *, tally: Tally | None = None, batch: int = 10, **told: Any) -> Tally:
        with opened(text, database_url) as (log, source, mapper):
            return ingest(log, source, mapper, tally if tally is not None else Tally(), batch=batch, **told)

    return run


@pytest.fixture
def admin(conn: Connection) -> Connection:
    conn.autocommit = True
    return conn


def test_a_second_run_stores_nothing(run: ByRow, admin: Connection) -> None:
    assert run(table(25)) == Tally(received=25, stored=25)
    assert run(table(25)) == Tally(received=25, duplicates=25)
    assert len(stored(admin)) == 25


def test_a_grown_file_adds_its_new_rows(run: ByRow, admin: Connection) -> None:
    run(table(15))
    assert run(table(37)) == Tally(received=37, stored=22, duplicates=15)
    assert stored(admin) == sorted(f"visits:{n}" for n in range(1, 38))


def test_a_changed_row_is_a_conflict(run: ByRow, admin: Connection) -> None:
    run(table(15))
    assert run(table(15, {7: "u7,other,7"})) == Tally(received=15, duplicates=14, conflicts=1)
    assert rejected(admin) == [("visits", 8, "conflict", "the log holds an event with this id and other content")]
    assert admin.execute("SELECT raw FROM refold.rejected").fetchone() == ("u7,other,7",)
    assert admin.execute("SELECT action FROM refold.events WHERE event_id = 'visits:7'").fetchone() == ("view",)


def test_identical_rows_are_separate_events(run: ByRow) -> None:
    same = dict.fromkeys(range(1, 31), "u,buy,1700000000")
    assert run(table(30, same)) == Tally(received=30, stored=30)


def test_every_record_is_accounted_for_at_every_moment(run: ByRow, admin: Connection) -> None:
    """Bad rows stop no others; each is kept with its raw text, its line and the reason."""
    run(table(5))
    bad = {2: "u,,7", 3: "u,view", 11: "u,view,soon", 12: '"u', 13: "u,view,1"}
    seen: list[Tally] = []
    aside: list[tuple[int, str]] = []

    def look(tally: Tally) -> None:
        (row,) = admin.execute(
            "SELECT (SELECT count(*) FROM refold.events), (SELECT count(*) FROM refold.rejected)"
        ).fetchall()
        assert row == (5 + tally.stored, tally.rejected)
        assert tally.received == tally.stored + tally.duplicates + tally.rejected
        seen.append(Tally(tally.received, tally.stored, tally.duplicates, tally.conflicts, tally.invalid))

    def on_rejected(record: Record, receipt: Receipt) -> None:
        assert receipt.answer is Answer.invalid
        aside.append((record.line, receipt.reason or ""))

    text = table(20, bad).replace('"u\n', '"u,view,9\n')
    tally = run(text, progress=look, on_rejected=on_rejected)
    assert seen[-1] == tally
    assert [one.received for one in seen] == [10, tally.received]
    assert tally.stored + tally.duplicates == tally.received - tally.invalid
    assert aside == [(line, reason) for _, line, _, reason in rejected(admin)]
    assert [line for line, _ in aside] == [3, 4, 12, 13]
    assert [reason for _, reason in aside] == [
        "action: the column 'what' is empty",
        "the row has 2 values for 3 columns",
        "ts: 'soon' is not a number in the unit that --ts-format names",
        "the row opens a quote that is never closed",
    ]
    # The same file again: what was rejected is not kept twice.
    run(text)
    assert admin.execute("SELECT count(*), sum(times) FROM refold.rejected").fetchone() == (4, 8)


def test_interrupted_between_any_two_batches_it_is_completed_by_the_next_run(run: ByRow, admin: Connection) -> None:
    for stop in range(1, 4):
        tally = Tally()

        def progress(now: Tally, stop: int = stop) -> None:
            if now.received >= stop * 10:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(table(35), tally=tally, progress=progress)
        assert tally.received == stop * 10
        assert len(stored(admin)) == stop * 10
    assert run(table(35)) == Tally(received=35, stored=5, duplicates=30)


def test_interrupted_inside_a_batch_it_leaves_none_of_it(database_url: str, admin: Connection) -> None:
    class Interrupted(Mapper):
        def wire(self, records: Records | list[Record]) -> Any:
            if any(record.row == 25 for record in records):
                raise KeyboardInterrupt
            return super().wire(records)

    tally = Tally()
    with opened(table(35), database_url) as (log, source, _):
        mapper = Interrupted(Mapping.parse(**MAPPING), source)  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            ingest(log, source, mapper, tally, batch=10)
    assert tally == Tally(received=20, stored=20)
    assert len(stored(admin)) == 20


def test_what_came_before_a_damage_is_stored(run: ByRow, admin: Connection, tmp_path: Path, database_url: str) -> None:
    whole = gzip.compress("".join(f"u,view,{n}\n" for n in range(20_000)).encode())
    broken = tmp_path / "visits.csv.gz"
    broken.write_bytes(gzip.compress(b"who,what,at\n") + whole[: len(whole) // 2])
    tally = Tally()
    with open_source(broken) as source, Log(database_url) as log:
        mapper = Mapper(Mapping.parse(**MAPPING), source)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="end early"):
            ingest(log, source, mapper, tally, batch=1000)
    assert 1000 < tally.received == tally.stored < 20_000
    assert len(stored(admin)) == tally.stored


@pytest.mark.parametrize("reply", ["COMMIT", "COPY 100", "BEGIN", "SELECT 1"])
def test_a_lost_reply_stores_nothing_twice(
    server: ServerUnderTest, database_url: str, admin: Connection, reply: str
) -> None:
    text = table(300, {150: "bad"})
    with Proxy(server, reply_lost(reply)) as proxy:
        with opened(text, proxy.url_of(admin.info.dbname)) as (log, source, mapper):
            tally = ingest(log, source, mapper, Tally(), batch=100)
        assert proxy.cuts == 1
    assert (tally.received, tally.stored + tally.duplicates, tally.invalid) == (300, 299, 1)
    assert len(stored(admin)) == 299
    assert len(rejected(admin)) == 1


def test_long_lines_make_small_batches(run: ByRow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays flat: a batch is bounded by its text too."""
    monkeypatch.setattr("refold.sources.files.run.BATCH_CHARACTERS", 1000)
    rows = {n: f"{'x' * 240},view,{n:05}" for n in range(1, 10)}
    sizes: list[int] = []
    run(table(9, rows), batch=1000, progress=lambda now: sizes.append(now.received))
    assert sizes == [4, 8, 9]


def test_the_next_batch_of_a_file_is_made_while_one_is_stored(
    database_url: str, admin: Connection, tmp_path: Path
) -> None:
    """An error in what comes next does not stop the batch before it, and the thread ends with the run."""
    path = tmp_path / "visits.csv"
    path.write_text(table(35))
    made: list[tuple[int, str]] = []

    class Watched(Mapper):
        def wire(self, records: Records | list[Record]) -> Any:
            made.append((len(records), threading.current_thread().name))
            if any(record.row == 31 for record in records):
                raise ValueError("broken")
            return super().wire(records)

    tally = Tally()
    with open_source(path) as source, Log(database_url) as log:
        mapper = Watched(Mapping.parse(**MAPPING), source)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="broken"):
            ingest(log, source, mapper, tally, batch=10)
    assert tally == Tally(received=30, stored=30)
    assert len(stored(admin)) == 30
    assert {thread.split("_")[0] for _, thread in made} == {"ahead"}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_a_pipe_is_read_without_a_thread(run: ByRow, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for a pipe could not be interrupted."""
    monkeypatch.setattr("refold.sources.files.run.ahead", None)
    assert run(table(25)) == Tally(received=25, stored=25)
