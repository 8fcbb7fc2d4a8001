"""Averages are kept as a sum and a count: two of them may make one column."""

from __future__ import annotations

from tests.support.scratch import Scratch


def test_two_averages_in_one_column(scratch: Scratch) -> None:
    scratch.append(2, user_id="u")
    scratch.deploy(gap="SELECT action, avg(version) - avg(length(user_id)) AS gap FROM events GROUP BY action")
    assert scratch.rows("gap") == [("a", 0)]
