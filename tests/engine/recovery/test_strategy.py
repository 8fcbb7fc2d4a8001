"""Which way leads back, decided from the cluster alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refold.engine.recovery.strategy import Strategy, decide, outcomes
from refold.store.builds.build import Build
from refold.store.schema.cluster import REWRITE_IN_PROGRESS, ClusterState

SOUND = ClusterState(recorded=1, actual=1, oldest=900, next=1000, log=999, cursors=1000, rehashed=False)


@pytest.mark.parametrize(
    ("changed", "strategy", "why"),
    [
        ({}, "prove", None),
        # The log's own events of now are beyond the oldest open transaction; that says nothing about the cursors.
        ({"recorded": 2, "cursors": 900}, "adopt", "another cluster"),
        ({"recorded": 2, "cursors": 901}, "wait", "another cluster"),
        ({"recorded": 2, "log": 1000}, "rewrite", "another cluster"),
        ({"recorded": 2, "cursors": 1001}, "rewrite", "another cluster"),
        ({"log": 1000}, "rewrite", "the log has events of transactions up to 1000"),
        ({"cursors": 1001}, "rewrite", "cursors include transaction ids up to 1000"),
        ({"recorded": REWRITE_IN_PROGRESS, "log": 2, "cursors": 100}, "rewrite", "was started"),
        ({"log": 0, "cursors": 0}, "prove", None),
        ({"recorded": 2, "log": 0, "cursors": 0}, "adopt", "another cluster"),
    ],
)
def test_the_strategy(changed: dict[str, Any], strategy: Strategy, why: str | None) -> None:
    found = replace(SOUND, **changed)
    assert decide(found).strategy == strategy
    # Workers are refused exactly where there is something to be done.
    assert (found.why() is None) == (strategy == "prove")
    assert (why or "") in (found.why() or "")


def test_other_hash_functions_are_something_to_be_done_though_the_coordinates_are_sound() -> None:
    found = replace(SOUND, rehashed=True)
    assert decide(found).strategy == "prove"
    assert "hash functions" in (found.why() or "")


def build(number: int, upstream: int | None = None, **changed: Any) -> Build:
    fields: dict[str, Any] = dict.fromkeys(Build.__dataclass_fields__)
    fields |= {"build_id": number, "upstream_id": upstream, "table_name": f"t{number}", "state": "live", "loaded": True}
    return Build(**fields | changed)


@pytest.mark.parametrize("strategy", ["prove", "adopt", "rewrite"])
def test_the_outcomes_of_builds(strategy: Strategy) -> None:
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
    decided = outcomes(builds, {"t1", "t2", "t3", "t6", "t7", "t8"}, strategy)
    assert decided == {
        1: "audited",
        2: "loaded again",
        5: "lost",
        6: "audited",
        7: "lost",
        8: "lost",
    } | ({} if strategy == "prove" else {3: "dropped"})
