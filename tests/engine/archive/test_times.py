"""Rows of a file as text, of which refold puts the times together itself: they are what PostgreSQL writes."""

from __future__ import annotations

import psycopg
import pyarrow as pa  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from refold.engine.archive.parquet import _texts
from refold.postgres.connect import connect

FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The first and the last microsecond of the years 1 to 9999."""
DAY = 86_400_000_000
EDGES = [FIRST, LAST, 0, -1, DAY - 1, DAY, -DAY, -DAY - 1, 1_000_000, 100_000, 10, 120_000]


def test_times_are_what_postgres_writes(database_url: str) -> None:
    with connect(database_url, "refold_worker", autocommit=True) as worker:

        @given(st.lists(st.integers(FIRST, LAST) | st.sampled_from(EDGES), min_size=1))
        def same(values: list[int]) -> None:
            times = pa.array(values, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
            assert _texts(times).to_pylist() == written(worker, values)

        same()


def written(conn: psycopg.Connection, values: list[int]) -> list[str]:
    """What a COPY of these times gives."""
    query = (
        "COPY (SELECT timestamptz '1970-01-01 00:00:00Z' + microseconds / 86400000000 * interval '1 day'"
        " + microseconds %% 86400000000 * interval '1 microsecond'"
        " FROM unnest(%s::bigint[]) WITH ORDINALITY AS t (microseconds, at) ORDER BY at) TO STDOUT (FORMAT csv)"
    )
    with conn.cursor() as cursor, cursor.copy(query, (values,)) as copy:
        return b"".join(bytes(row) for row in copy).decode().splitlines()
