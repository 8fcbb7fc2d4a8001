"""What a query says is what Postgres computes: intervals keep their parts, names their case."""

from __future__ import annotations

from tests.support.scratch import Scratch


def test_an_interval_keeps_all_its_parts(scratch: Scratch) -> None:
    scratch.append()
    scratch.deploy(later="SELECT event_id, ts + interval '1 day 12:00:00' AS due FROM events")
    assert str(scratch.rows("later")[0][1]) == "1970-01-02 12:00:00+00:00"


def test_names_without_quotes_are_in_lower_case(scratch: Scratch) -> None:
    scratch.append()
    scratch.deploy(
        ranks="-- key: user_id\nSELECT User_Id, row_number() OVER (PARTITION BY user_id ORDER BY event_id) AS Rank"
        " FROM events"
    )
    assert scratch.rows("ranks") == [(None, 1)]
