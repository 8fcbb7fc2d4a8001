"""Times of a file as text, which refold puts together itself: they are what pyarrow writes."""

from __future__ import annotations

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv as csv  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from refold.engine.archive.parquet import _texts

FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The first and the last microsecond of the years 1 to 9999."""
DAY = 86_400_000_000


@given(
    st.lists(st.integers(FIRST, LAST) | st.sampled_from([FIRST, LAST, 0, -1, DAY - 1, DAY, -DAY, -DAY - 1]), min_size=1)
)
def test_they_are_what_pyarrow_writes(values: list[int]) -> None:
    times = pa.array(values, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.table({"ts": times}), sink, csv.WriteOptions(include_header=False))
    assert _texts(times).to_pylist() == sink.getvalue().to_pybytes().decode().splitlines()
