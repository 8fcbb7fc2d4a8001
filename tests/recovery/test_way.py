"""Which way leads back, decided from the bearings alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refold.engine.recovery.strategy import Way, decide, fates
from refold.store.builds.build import Build
from refold.store.schema.cluster import BEGUN, Bearings

SOUND = Bearings(recorded=1, actual=1, oldest=900, next=1000, log=999, cursors=1000, rehashed=False)


@pytest.mark.parametrize(
    ("changed", "way", "why"),
    [
        ({}, "prove", None),
        # The log's own events of now are beyond the oldest open transaction; that says nothing about the cursors.
        ({"recorded": 2, "cursors": 900}, "adopt", "another cluster"),
        ({"recorded": 2, "cursors": 901}, "wait", "another cluster"),
        ({"recorded": 2, "log": 1000}, "rewrite", "another cluster"),
        ({"recorded": 2, "cursors": 1001}, "rewrite", "another cluster"),
        ({"log": 1000}, "rewrite", "the log holds events of transactions up to 1000"),
        ({"cursors": 1001}, "rewrite", "cursors speak of transactions up to 1000"),
        ({"recorded": BEGUN, "log": 2, "cursors": 100}, "rewrite", "was begun"),
        ({"log": 0, "cursors": 0}, "prove", None),
        ({"recorded": 2, "log": 0, "cursors": 0}, "adopt", "another cluster"),
    ],
)
def test_the_way(changed: dict[str, Any], way: Way, why: str | None) -> None:
    found = replace(SOUND, **changed)
    assert decide(found).way == way
    # Workers are refused exactly where there is something to be done.
    assert (found.why() is None) == (way == "prove")
    assert (why or "") in (found.why() or "")


def test_other_hash_functions_are_something_to_be_done_though_the_coordinates_are_sound() -> None:
    found = replace(SOUND, rehashed=True)
    assert decide(found).way == "prove"
    assert "hash functions" in (found.why() or "")


def build(number: int, upstream: int | None = None, **changed: Any) -> Build:
    fields: dict[str, Any] = dict.fromkeys(Build.__dataclass_fields__)
    fields |= {"build_id": number, "upstream_id": upstream, "table_name": f"t{number}", "state": "live", "loaded": True}
    return Build(**fields | changed)


@pytest.mark.parametrize("way", ["prove", "adopt", "rewrite"])
def test_the_fates_of_builds(way: Way) -> None:
    builds = [
        build(1),
        build(2, state="building", loaded=False),
        build(3, state="retired"),
        build(4, state="dropped"),
        build(5),
        build(6, 1),
        build(7, 5),
        build(8, 7, state="building"),
    ]
    decided = fates(builds, {"t1", "t2", "t3", "t6", "t7", "t8"}, way)
    assert decided == {
        1: "audited",
        2: "loaded again",
        5: "lost",
        6: "audited",
        7: "lost",
        8: "lost",
    } | ({} if way == "prove" else {3: "dropped"})
