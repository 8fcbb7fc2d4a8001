"""Fault 15: a file five times, shuffled, over eight connections."""

from __future__ import annotations

import io
import random
from typing import Any

import psycopg

from refold import Log
from refold.sources.files.mapper import Mapper
from refold.sources.files.mapping import Mapping
from refold.sources.files.readers import open_source
from refold.sources.files.run import Tally, ingest
from tests.support.at_once import at_once
from tests.support.live import drain, make_live, wrong

Connection = psycopg.Connection[Any]
ROWS = [f"row-{n},u{n % 50},{('view', 'cart', 'purchase')[n % 3]},{1_700_000_000 + 977 * n}" for n in range(2_000)]
HEADER = "id,user_id,action,ts"


def feed(url: str, rows: list[str], tally: Tally) -> None:
    text = "\n".join([HEADER, *rows]) + "\n"
    with open_source("-", format="csv", name="file", stdin=io.BytesIO(text.encode())) as source, Log(url) as log:
        ingest(log, source, Mapper(Mapping.parse(ts_format="epoch_s"), source), tally, batch=100)


def storm(url: str) -> Tally:
    """Five copies of the file, shuffled together and dealt to eight connections at once."""
    chance = random.Random(15)
    deck = ROWS * 5
    chance.shuffle(deck)
    tallies = [Tally() for _ in range(8)]
    at_once(*(lambda n=n: feed(url, deck[n::8], tallies[n]) for n in range(8)))
    return Tally(
        *(
            sum(getattr(t, name) for t in tallies)
            for name in ("received", "stored", "duplicates", "conflicts", "invalid")
        )
    )


def log_of(conn: Connection) -> tuple[Any, ...] | None:
    return conn.execute(
        "SELECT count(*), count(DISTINCT event_id), sum(hash_record_extended(e, 0)) FROM refold.events AS e"
    ).fetchone()


def test_each_row_is_one_event(database_url: str, conn: Connection) -> None:
    conn.autocommit = True
    make_live(database_url)
    assert storm(database_url) == Tally(received=10_000, stored=2_000, duplicates=8_000)
    drain(database_url)
    before = log_of(conn)
    assert before is not None
    assert before[:2] == (2_000, 2_000)
    assert wrong(database_url) == {}
    # And when everything is there already, nothing changes at all.
    assert storm(database_url) == Tally(received=10_000, duplicates=10_000)
    assert log_of(conn) == before
    drain(database_url)
    assert wrong(database_url) == {}
