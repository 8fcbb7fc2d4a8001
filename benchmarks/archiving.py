"""What the archive costs: a segment written, and proved by reading it back, beside a bare COPY to Parquet."""

from __future__ import annotations

import io
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psycopg
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv as csv  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from benchmarks.report import Figure
from benchmarks.rounds import alternate
from benchmarks.server import Server
from benchmarks.workbench import Workbench
from refold.engine.archive import ownership, write
from refold.engine.archive.object_store import open_store
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.connect import connect
from refold.store.log.seal import seal

ROUNDS = 3
BLOCK = 16 << 20
"""Characters that the bare COPY parses at once."""
TIME = pa.timestamp("us", tz="UTC")
TYPES = {
    "txid": pa.int64(), "position": pa.int64(), "event_id": pa.string(), "user_id": pa.string(), "action": pa.string(),
    "ts": TIME, "metadata": pa.string(), "version": pa.int32(), "recorded_at": TIME,
}  # fmt: skip


def measure(server: Server, events: int) -> list[Figure]:
    """Archives a full segment again and again, as workers do, and copies it to a Parquet file by hand."""
    with TemporaryDirectory() as folder, server.database("archiving") as url:
        size = max(events >> POSITION_BITS, 1) << POSITION_BITS
        bench = Workbench(url, size)
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("UPDATE refold.settings SET segment_size = %s", (size,))
            for (segment,) in admin.execute("SELECT segment::text FROM refold.segments").fetchall():
                admin.execute(f"DROP TABLE {segment}".encode())
            admin.execute("SELECT refold.ensure_segments()")
            bench.fill(size)
            admin.execute("VACUUM ANALYZE refold.events")
        bench.close()
        with connect(url, "refold_worker", autocommit=True) as worker:
            until_sealed(worker, size >> POSITION_BITS)
            location = str(Path(folder) / "archive")
            ownership.claim(worker, open_store(location), location)
            done: list[write.Archived] = []

            def forget() -> None:
                worker.execute("DELETE FROM refold.archives")

            compared = alternate(
                ROUNDS,
                size,
                lambda at: done.append(write.run(worker, by="benchmark", older_than_s=0)),
                lambda at: by_hand(worker, Path(folder) / f"{at}.parquet", size),
                before=forget,
            )
            written = median(one.seconds for one in done)
            proved = median(one.proving_seconds for one in done)
            assert all(len(one.verified) == 1 for one in done)
    note = f"of which {written:.2f} s to write and {proved:.2f} s to prove; {done[0].bytes / size:.0f} bytes an event"
    return [
        Figure("archiving", f"a segment of {size:,} events", compared.measured, "events/s", compared.baseline,
               compared.ratio, at_least=0.5, note=note),
        Figure("archiving", "of it, writing alone", size / written, "events/s"),
        Figure("archiving", "of it, proving alone", size / proved, "events/s"),
    ]  # fmt: skip


def until_sealed(worker: psycopg.Connection, slices: int) -> None:
    """Seals until the whole segment is."""
    query = "SELECT count(*) FROM refold.sealed_slices WHERE sealed_at IS NOT NULL"
    while (worker.execute(query).fetchone() or (0,))[0] < slices:
        seal(worker)


def by_hand(conn: psycopg.Connection, path: Path, size: int) -> None:
    """COPY of the segment to Parquet, as one writes it without a thought of what may go wrong."""
    copied = f"COPY (SELECT * FROM refold.events WHERE position < {size}) TO STDOUT (FORMAT csv)".encode()
    with (
        conn.cursor() as cursor,
        pq.ParquetWriter(path, pa.schema(TYPES.items()), compression="zstd") as writer,
        cursor.copy(copied) as copy,
    ):
        block, length = [], 0
        for row in copy:
            block.append(bytes(row))
            length += len(row)
            if length >= BLOCK:
                writer.write_table(_parsed(block))
                block, length = [], 0
        if block:
            writer.write_table(_parsed(block))


def _parsed(block: list[bytes]) -> pa.Table:
    return csv.read_csv(
        io.BytesIO(b"".join(block)),
        read_options=csv.ReadOptions(column_names=list(TYPES)),
        convert_options=csv.ConvertOptions(column_types=TYPES, strings_can_be_null=True),
    )
