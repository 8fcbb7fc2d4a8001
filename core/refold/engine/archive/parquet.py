"""Segments of the log as Parquet: the columns of the log, and the metadata as its exact text.

Rows come from COPY and go back to COPY as CSV, which Arrow reads and writes: the same text both times. A row group
holds whole slices, or a part of one if its events are large: so memory is bounded on both ways.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from typing import Any, BinaryIO, TypeVar

import psycopg

from refold.engine.archive.failures import Differs, arrow
from refold.engine.archive.object_store import Beat
from refold.model.stream.slices import POSITION_BITS
from refold.model.upkeep.checksums import EVENT_HASH, identity
from refold.postgres.session import plan_freely
from refold.store.log.seal import SliceChecksum

T = TypeVar("T")
Row = bytes | bytearray | memoryview
"""A row as the server sends it."""
COLUMNS = ("txid", "position", "event_id", "user_id", "action", "ts", "metadata", "version", "recorded_at")
"""The columns of the log, in the order of the table."""
TOGETHER_BITS = POSITION_BITS + 3
"""Bits of a position within a portion: eight slices, which are usually one row group."""
CHUNK = 16 << 20
"""Characters of rows that are parsed at once."""
BLOCK = 1 << 20
"""Characters that one thread parses at once, if no row is longer."""
GROUP = 128 << 20
"""Bytes of columns in memory after which a row group ends."""
_DELTAS = ("txid", "position", "ts", "recorded_at")
_WORDS = ("user_id", "action", "version")
"""Columns whose values repeat."""
_AS_CSV = "FORMAT csv, FORCE_QUOTE (event_id, user_id, action, ts, metadata, recorded_at)"
"""The server quotes what pyarrow quotes when it writes CSV: then there is one text for a row."""
AHEAD = 2
"""Parts of a file that may wait for whoever needs them next, in either direction."""
THREADS = 2
"""How many make CSV of rows at once."""


def schema() -> Any:
    """Return the schema of a file."""
    pa = arrow()
    time = pa.timestamp("us", tz="UTC")
    types = (pa.int64(), pa.int64(), pa.string(), pa.string(), pa.string(), time, pa.string(), pa.int32(), time)
    optional = {"user_id"}
    return pa.schema([pa.field(name, type, name in optional) for name, type in zip(COLUMNS, types, strict=True)])


@dataclass(slots=True)
class Contents:
    """What the rows of a file are.

    Args:
        slices: their checksums by slice.
        first_ts: time of the first event.
        last_ts: time of the last event.
    """

    slices: dict[int, SliceChecksum] = field(default_factory=dict)
    first_ts: datetime | None = None
    last_ts: datetime | None = None

    def add(self, number: int, checksum: SliceChecksum, first: datetime | None, last: datetime | None) -> None:
        """Add rows of a slice.

        Args:
            number: the slice.
            checksum: the checksum of the rows.
            first: time of their first event; None if there is none.
            last: time of their last event.
        """
        self.slices[number] = self.slices.get(number, SliceChecksum()) + checksum
        if first is not None and last is not None:
            self.first_ts = min(first, self.first_ts or first)
            self.last_ts = max(last, self.last_ts or last)


@dataclass(slots=True)
class Written:
    """What was written into a file.

    Args:
        contents: what the rows are, by the server that sent them.
        texts: by portion, the SHA-256 of its rows as the server sent them, which is the text that `Rows.portions`
            makes of them again.
    """

    contents: Contents = field(default_factory=Contents)
    texts: dict[int, bytes] = field(default_factory=dict)

    @property
    def events(self) -> int:
        """How many rows there are."""
        return sum(one.events for one in self.contents.slices.values())


def write(
    conn: psycopg.Connection,
    file: BinaryIO,
    lower: int,
    upper: int,
    slices: Iterable[int],
    about: dict[str, str],
    beat: Beat,
) -> Written:
    """Write the events between two positions into a file.

    The server sends the rows of a slice together with their checksum, of one look at them. While it does, another
    thread makes Parquet of those that have come.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        file: an empty file of this host.
        lower: the first position.
        upper: the first that is too far.
        slices: the slices with events; others are not read.
        about: what the file says of itself.
        beat: gives a sign of life.
    """
    written = Written()
    with writing(file, about) as write_group:

        def work() -> Iterator[Callable[[], None]]:
            for portion, together in itertools.groupby(
                sorted(slices), key=lambda one: one >> (TOGETHER_BITS - POSITION_BITS)
            ):
                group = _Group(write_group)
                text = hashlib.sha256()
                for number in together:
                    low, high = max(number << POSITION_BITS, lower), min((number + 1) << POSITION_BITS, upper)
                    with conn.transaction():
                        sent = _copied(conn, _WITH_CHECKSUM, (low, high))
                        for rows, longest in _chunks(sent, partial(_whole, written.contents, number)):
                            text.update(rows)
                            yield partial(group.add, rows, longest)
                    beat()
                yield group.end
                written.texts[portion] = text.digest()

        for _ in _beside(work(), 1):
            pass
    return written


_WITH_CHECKSUM = f"""
    COPY (
        WITH held AS MATERIALIZED (
            SELECT {", ".join(COLUMNS)} FROM refold.events WHERE position >= %s AND position < %s
        )
        SELECT {", ".join(COLUMNS)} FROM (
            SELECT 0 AS at__, * FROM held
            UNION ALL
            SELECT 1, max(txid), count(*), sum({identity("0")})::text, sum({EVENT_HASH})::text, '', min(ts),
                   '{{}}'::jsonb, 0, max(ts)
            FROM held
        ) AS told
        ORDER BY at__, position, txid
    ) TO STDOUT ({_AS_CSV})
"""
"""The events between two positions, in the order of positions, and in the last row what they are as a whole."""


def _whole(contents: Contents, number: int, row: Row) -> None:
    """Add to some contents what the last row of `_WITH_CHECKSUM` says of a slice."""
    [[upto, events, ids, hash_, _, first, _, _, last]] = csv.reader([bytes(row).decode()])
    if int(events):
        checksum = SliceChecksum(int(events), int(upto), int(ids), int(hash_))
        contents.add(number, checksum, datetime.fromisoformat(first), datetime.fromisoformat(last))


class _Group:
    """The tables of a row group.

    Args:
        write_group: writes them.
    """

    def __init__(self, write_group: Callable[[list[Any]], None]) -> None:
        self._write, self._tables = write_group, list[Any]()

    def add(self, rows: bytes, longest: int) -> None:
        """Add rows, as `_parsed` takes them; a group that is large enough ends."""
        self._tables.append(_parsed(rows, longest))
        if sum(one.nbytes for one in self._tables) >= GROUP:
            self.end()

    def end(self) -> None:
        """Write the group."""
        self._write(self._tables)
        self._tables = []


def _beside(work: Iterable[Callable[[], T]], threads: int) -> Iterator[T]:
    """Yield the results of some work, in its order; so many threads do it while this one goes for more."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for one in work:
            waiting.append(pool.submit(one))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        for done in waiting:
            yield done.result()


@contextmanager
def writing(file: BinaryIO, about: dict[str, str]) -> Iterator[Callable[[list[Any]], None]]:
    """Provide a function that writes tables as a row group of a new file.

    Args:
        file: an empty file of this host.
        about: what the file says of itself.
    """
    parquet = arrow("pyarrow.parquet")
    with parquet.ParquetWriter(
        file,
        schema().with_metadata(about),
        compression="zstd",
        use_dictionary=list(_WORDS),
        column_encoding=dict.fromkeys(_DELTAS, "DELTA_BINARY_PACKED"),
        store_schema=False,
    ) as writer:

        def write_group(group: list[Any]) -> None:
            if any(one.num_rows for one in group):
                table = arrow().concat_tables(group).combine_chunks()
                writer.write_table(table, row_group_size=table.num_rows)

        yield write_group
    file.flush()


def read(conn: psycopg.Connection, table: str) -> list[Any]:
    """Return all rows of a table with the columns of the log, in the order of positions."""
    query = f"COPY (SELECT {', '.join(COLUMNS)} FROM {table} ORDER BY position, txid) TO STDOUT ({_AS_CSV})"
    with conn.transaction():
        return [_parsed(*chunk) for chunk in _chunks(_copied(conn, query))]


def _copied(conn: psycopg.Connection, query: str, parameters: Sequence[int] = ()) -> Iterator[Row]:
    """Yield what a COPY sends, row by row; the caller's transaction."""
    plan_freely(conn)
    with conn.cursor() as cursor, cursor.copy(query.encode(), parameters) as copy:
        yield from copy


def _parsed(rows: bytes, longest: int) -> Any:
    """Return CSV as a table.

    Args:
        rows: the rows.
        longest: length of the longest, bytes.
    """
    csv_ = arrow("pyarrow.csv")
    form = schema()
    return csv_.read_csv(
        arrow().BufferReader(rows),
        # A row must not reach over two borders of what Arrow parses at once.
        read_options=csv_.ReadOptions(column_names=list(COLUMNS), block_size=max(BLOCK, longest)),
        parse_options=csv_.ParseOptions(newlines_in_values=True),
        convert_options=csv_.ConvertOptions(
            column_types=form,
            null_values=[""],
            strings_can_be_null=True,
            # An empty text is quoted, and NULL is not.
            quoted_strings_can_be_null=False,
        ),
    ).cast(form)


def _chunks(rows: Iterable[Row], last: Callable[[Row], None] | None = None) -> Iterator[tuple[bytes, int]]:
    """Yield rows together, and how long the longest is; the server sends each by itself.

    Args:
        rows: the rows.
        last: takes the last one, which is none of them.
    """
    together: list[bytes] = []
    size = longest = 0
    for row in rows:
        if size >= CHUNK:
            yield b"".join(together), longest
            together, size, longest = [], 0, 0
        # Bytes are put together several times faster than views of them.
        together.append(bytes(row))
        length = len(row)
        size += length
        if length > longest:
            longest = length
    if last is not None:
        last(together.pop())
    if together:
        yield b"".join(together), longest


def copy_back(conn: psycopg.Connection, portion: Iterable[bytes], table: str) -> int:
    """Copy rows as `Rows.portions` yields them into a table with the columns of the log; return how many.

    Args:
        conn: may write the table; the caller's transaction.
        portion: the rows.
        table: the table, qualified, as SQL.
    """
    with conn.cursor() as cursor:
        with cursor.copy(f"COPY {table} ({', '.join(COLUMNS)}) FROM STDIN (FORMAT csv)".encode()) as copy:
            for rows in portion:
                copy.write(rows)
        return cursor.rowcount


class Rows:
    """The rows of a file, to be copied back.

    Args:
        file: a file of this host, which holds Parquet.
        where: its name in the store, for messages.

    Raises:
        Differs: it is not Parquet, or has other columns.
    """

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._where = where
        with self._reading():
            self._parquet = arrow("pyarrow.parquet").ParquetFile(file)
            found = self._parquet.schema_arrow
        if not found.equals(schema()):
            raise Differs(f"{where} has other columns than the log: {', '.join(found.names)}")

    def texts(self) -> dict[int, bytes]:
        """Return by portion the SHA-256 of its rows as CSV."""
        found: dict[int, bytes] = {}
        for portion, rows in self.portions():
            text = hashlib.sha256()
            for some in rows:
                text.update(some)
            found[portion] = text.digest()
        return found

    def portions(self, wanted: Callable[[int], bool] = lambda portion: True) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Yield for each portion (eight slices) its number and its rows, as CSV for COPY.

        Args:
            wanted: returns whether a portion is to be read.
        """
        groups = ((self._portion(number), number) for number in range(self._parquet.num_row_groups))
        for portion, together in itertools.groupby(groups, key=lambda one: one[0]):
            if wanted(portion):
                yield portion, itertools.chain.from_iterable(self._csv(number) for _, number in together)

    def about(self) -> dict[str, str]:
        """Return what the file says of itself."""
        found = self._parquet.schema_arrow.metadata or {}
        return {name.decode(): value.decode() for name, value in found.items() if name.startswith(b"refold.")}

    def groups(self) -> Iterator[tuple[int, int, int]]:
        """Yield the number of each row group, and its first and last position."""
        with self._reading():
            for number in range(self._parquet.num_row_groups):
                positions = self._parquet.read_row_group(number, columns=["position"])["position"]
                if len(positions):
                    yield number, positions[0].as_py(), positions[-1].as_py()

    def group(self, number: int) -> Any:
        """Return the rows of a row group."""
        with self._reading():
            return self._parquet.read_row_group(number).cast(schema())

    def copy(self, conn: psycopg.Connection, number: int, table: str) -> None:
        """Copy a row group into a table with the columns of the log."""
        copy_back(conn, self._csv(number), table)

    def find(self, event_id: str) -> dict[str, Any] | None:
        """Return the row with an id; None if there is none. Only the column of ids is read as a whole."""
        pa, compute = arrow(), arrow("pyarrow.compute")
        with self._reading():
            for number in range(self._parquet.num_row_groups):
                ids = self._parquet.read_row_group(number, columns=["event_id"])["event_id"]
                at = compute.index(ids, pa.scalar(event_id, ids.type)).as_py()
                if at >= 0:
                    found: dict[str, Any] = self._parquet.read_row_group(number).slice(at, 1).to_pylist()[0]
                    return found
        return None

    def ids(self) -> Iterator[tuple[list[int], list[str]]]:
        """Yield positions and ids of all rows, a row group at a time."""
        with self._reading():
            for number in range(self._parquet.num_row_groups):
                rows = self._parquet.read_row_group(number, columns=["position", "event_id"]).to_pydict()
                yield rows["position"], rows["event_id"]

    def at(self, positions: Sequence[int]) -> Iterator[tuple[list[int], list[str], list[str | None], list[str]]]:
        """Yield positions, ids, user ids and metadata (JSON) of the rows at some positions, a row group at a time."""
        pa, compute = arrow(), arrow("pyarrow.compute")
        wanted = pa.array(positions, pa.int64())
        columns = ["position", "event_id", "user_id", "metadata"]
        for number, lowest, highest in self.groups():
            if any(lowest <= one <= highest for one in positions):
                with self._reading():
                    found = self._parquet.read_row_group(number, columns=columns)
                    rows = found.filter(compute.is_in(found["position"], wanted)).to_pydict()
                yield tuple(rows[name] for name in columns)

    def of_user(self, user_id: str, signs: Sequence[str] = ()) -> Iterator[tuple[int, str, bool, str | None]]:
        """Yield position, id, whether it is a user's, and metadata of the rows of the user, or with certain texts.

        Args:
            user_id: the user.
            signs: texts of which the metadata of others' rows must hold one; without any, metadata is not read.
        """
        pa, compute = arrow(), arrow("pyarrow.compute")
        searched = ["user_id", *(["metadata"] if signs else [])]
        with self._reading():
            for number in range(self._parquet.num_row_groups):
                columns = self._parquet.read_row_group(number, columns=searched)
                users = columns["user_id"]
                own = compute.fill_null(compute.equal(users, pa.scalar(user_id, users.type)), False)
                wanted = own
                for sign in signs:
                    wanted = compute.or_(wanted, compute.match_substring(columns["metadata"], sign))
                at = compute.indices_nonzero(wanted)
                if not len(at):
                    continue
                rows = self._parquet.read_row_group(number, columns=["position", "event_id"]).take(at).to_pydict()
                metadata = columns["metadata"].take(at).to_pylist() if signs else [None] * len(at)
                yield from zip(rows["position"], rows["event_id"], own.take(at).to_pylist(), metadata, strict=True)

    def _portion(self, group: int) -> int:
        """Return the portion to which a row group belongs, by its first position."""
        with self._reading():
            table = self._parquet.read_row_group(group, columns=["position"])
        return table["position"][0].as_py() >> TOGETHER_BITS if table.num_rows else -1

    def _csv(self, group: int) -> Iterator[bytes]:
        with self._reading():
            batches = self._parquet.iter_batches(1 << POSITION_BITS, row_groups=[group])
            yield from _beside((partial(_as_csv, batch) for batch in batches), THREADS)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Raise what pyarrow says of the file as a Differs."""
        try:
            yield
        except (OSError, ValueError) as error:
            raise Differs(f"{self._where} cannot be read: {str(error).splitlines()[0][:200]}") from error


def _as_csv(batch: Any) -> bytes:
    csv_ = arrow("pyarrow.csv")
    sink = arrow().BufferOutputStream()
    csv_.write_csv(_with_texts(batch), sink, csv_.WriteOptions(include_header=False))
    written: bytes = sink.getvalue().to_pybytes()
    return written


def _with_texts(batch: Any) -> Any:
    """Return rows with times as text: pyarrow needs four fifths of the time of a file to format them."""
    pa = arrow()
    for at, column in enumerate(batch.schema):
        if pa.types.is_timestamp(column.type):
            batch = batch.set_column(at, column.name, _texts(batch.column(at)))
    return batch


def _texts(times: Any) -> Any:
    """Return times (UTC, microseconds) as PostgreSQL writes them, each put together from its day, second and rest."""
    pa, compute = arrow(), arrow("pyarrow.compute")
    days = compute.floor_temporal(times, unit="day").cast(pa.date32())
    rest = compute.subtract(times.cast(pa.int64()), compute.multiply(days.cast(pa.int32()).cast(pa.int64()), _DAY_US))
    seconds = compute.divide(rest, 1_000_000)
    fraction = compute.subtract(rest, compute.multiply(seconds, 1_000_000)).cast(pa.string())
    # A file has few days.
    known = days.dictionary_encode()
    texts = known.dictionary.cast(pa.string()).take(known.indices), _seconds().take(seconds)
    # ".5", and nothing at all for a whole second.
    point = compute.utf8_rtrim(
        compute.binary_join_element_wise("", compute.utf8_lpad(fraction, 6, "0"), "."), characters="0"
    )
    return compute.binary_join_element_wise(*texts, compute.utf8_rtrim(point, characters="."), "+00", "")


_DAY_US = 86_400_000_000


@cache
def _seconds() -> Any:
    """Return the seconds of a day as text, with a blank before."""
    return arrow().array([f" {one // 3600:02}:{one // 60 % 60:02}:{one % 60:02}" for one in range(86_400)])
