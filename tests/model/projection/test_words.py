"""What is refused is quoted as its author wrote it, not as sqlglot would."""

from __future__ import annotations

import pytest

from refold.errors import DefinitionError
from refold.model.projection.plan import LOG_COLUMNS
from refold.model.projection.query import analyse
from refold.model.projection.sqlglot_compat import expression, in_words_of

TEXT = """-- A comment with ts::date in it.
SELECT Date_Trunc('month',
           e.ts) AS "Month", e.metadata ->> 'a' AS x,
       sum( (metadata->>'x')::float8 ) + 1 AS y,
       now() - INTERVAL '1 day 2:00' AS z, ts :: date AS d
FROM events AS e"""


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("date_trunc('month', ts)", "Date_Trunc('month', e.ts)"),
        ("metadata->>'a'", "metadata ->> 'a'"),
        ("sum((metadata ->> 'x')::double precision)", "sum( (metadata->>'x')::float8 )"),
        ("current_timestamp", "now()"),
        ("CAST('1 day 2:00' AS interval)", "INTERVAL '1 day 2:00'"),
        ("CAST(ts AS date)", "ts :: date"),
        ("ts", "ts"),
        # Nowhere in it.
        ("count(DISTINCT ts)", "COUNT(DISTINCT ts)"),
    ],
)
def test_the_words_of_the_author(part: str, words: str) -> None:
    assert in_words_of(TEXT, expression(part)) == words


@pytest.mark.parametrize(
    ("selected", "words"),
    [
        ("ts::date AS x", "ts::date"),
        ("now() AS x", "now()"),
        ("(extract(hour from ts)) AS x", "extract(hour from ts)"),
        ("to_char(ts, 'YYYY-MM') AS x", "to_char(ts, 'YYYY-MM')"),
        ("gen_random_uuid() AS x", "gen_random_uuid()"),
        ("coalesce(metadata->>'a', 'b')", "coalesce(metadata->>'a', 'b')"),
        ("'today'::date AS x", "'today'"),
    ],
)
def test_refusals_speak_them(selected: str, words: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        analyse("metric", f"SELECT event_id, {selected} FROM events", {"events": LOG_COLUMNS})
    assert str(refused.value).startswith(f"{words} ")


def test_a_long_text_does_not_take_long_to_search() -> None:
    """The number of pieces that are read is bounded; what is not found by then is as sqlglot writes it."""
    columns = ", ".join(f"(a{at} + b) * (c - d) AS n{at}" for at in range(300))
    assert in_words_of(f"SELECT {columns} FROM events", expression("count(b - c)")) == "COUNT(b - c)"
