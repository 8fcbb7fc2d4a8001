"""Fault 3: positions that no event will ever have."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import append
from refold.store.log.append import BULK
from tests.support.live import drain, make_live, wrong
from tests.support.making import events, ids, stored

Connection = psycopg.Connection[Any]


@pytest.mark.slow
@pytest.mark.live("shop")
@pytest.mark.usefixtures("impatient")
def test_a_thousand_rolled_back_appends(
    database_url: str, producers: Callable[..., Connection], admin: Connection
) -> None:
    """A reader that waits for gaps to be filled would wait for ever, or for a time-out that is wrong some day."""
    make_live(database_url)
    producer = producers()
    append(producer, events(5, "before"))
    producer.commit()
    for number in range(1000):
        append(producer, events(1 if number % 100 else BULK, f"gone{number}-"))
        producer.rollback()
    append(producer, events(5, "after"))
    producer.commit()
    drain(database_url)
    assert stored(admin) == ids([*events(5, "before"), *events(5, "after")])
    assert wrong(database_url) == {}
    ((gap,),) = admin.execute(
        "SELECT max(position) - min(position) FROM refold.events WHERE event_id IN ('before4', 'after0')"
    ).fetchall()
    assert gap > 1000
    assert admin.execute("SELECT DISTINCT lag_events, lag_seconds FROM metrics.freshness").fetchall() == [(0, 0)]


@pytest.mark.slow
@pytest.mark.live("shop")
@pytest.mark.usefixtures("impatient")
def test_a_gap_that_is_filled_after_all(database_url: str, producers: Callable[..., Connection]) -> None:
    """The same positions, committed late: now they must be read."""
    make_live(database_url)
    slow, quick = producers(), producers()
    append(slow, events(5, "slow"))
    for number in range(20):
        append(quick, events(3, f"quick{number}-"))
        quick.commit()
        drain(database_url)
    slow.commit()
    drain(database_url)
    assert wrong(database_url) == {}
