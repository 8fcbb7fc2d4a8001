"""An order has no ties where it tells the rows of its level apart; and nothing is taken for unique that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from refold.errors import DefinitionError
from refold.model.projection.plan import LOG_COLUMNS
from refold.model.projection.query import analyse

DAY = "(ts AT TIME ZONE 'UTC')::date"
DAYS = f"SELECT user_id, {DAY} AS day, count(*) AS n FROM events GROUP BY user_id, {{}}"
GROUPED = DAYS.format(2)
LEAD = "lead(day) OVER (PARTITION BY user_id ORDER BY day) AS next"


def analysed(query: str) -> None:
    analyse("metric", f"-- key: user_id\n{query}", {"events": LOG_COLUMNS}, path=Path("metric.sql"))


@pytest.mark.parametrize(
    "query",
    [
        *(f"SELECT user_id, day, {LEAD} FROM ({DAYS.format(term)}) AS d" for term in ("day", "2", DAY)),
        f"SELECT d.user_id, lag(d.day) OVER (PARTITION BY d.user_id ORDER BY d.day DESC) AS x FROM ({GROUPED}) AS d",
        f"WITH days AS ({DAYS.format('day')}) SELECT user_id, {LEAD} FROM days",
        f"WITH a AS ({GROUPED}), b AS (SELECT user_id, day FROM a WHERE n > 1) SELECT user_id, {LEAD} FROM b",
        f"SELECT user_id, {LEAD} FROM (SELECT DISTINCT user_id, {DAY} AS day FROM events) AS d",
        f"SELECT user_id, sum(n) OVER (PARTITION BY user_id ORDER BY day ROWS 2 PRECEDING) AS x FROM ({GROUPED}) AS d",
        f"SELECT user_id, {DAY} AS day, lag(count(*)) OVER (PARTITION BY user_id ORDER BY {DAY}) AS x"
        f" FROM events GROUP BY user_id, {DAY}",
    ],
)  # fmt: skip
def test_an_order_by_all_that_rows_are_grouped_by_has_no_ties(query: str) -> None:
    analysed(query)


@pytest.mark.parametrize(
    "query",
    [
        # The events themselves, or too few columns.
        "SELECT user_id, lead(ts) OVER (PARTITION BY user_id ORDER BY ts) AS x FROM events",
        f"SELECT user_id, lead(n) OVER (PARTITION BY user_id ORDER BY n) AS x FROM ({GROUPED}) AS d",
        f"SELECT user_id, {LEAD} FROM (SELECT user_id, action, {DAY} AS day FROM events GROUP BY 1, 2, 3) AS d",
        # One of the groups is not handed through, or under another name.
        f"SELECT user_id, {LEAD} FROM (SELECT user_id, max(version) AS day FROM events GROUP BY user_id, {DAY}) AS d",
        f"SELECT user_id, {LEAD} FROM (SELECT user_id, day FROM (SELECT user_id, action, {DAY} AS day FROM events"
        " GROUP BY 1, 2, 3) AS a) AS d",
        # `version` in GROUP BY is the column of the log, not what the SELECT calls so.
        "SELECT user_id, lead(version) OVER (PARTITION BY user_id ORDER BY version) AS x"
        " FROM (SELECT user_id, 1 AS version, count(*) AS n FROM events GROUP BY user_id, version) AS d",
        f"SELECT user_id, lead(ts) OVER (PARTITION BY user_id ORDER BY ts) AS x"
        f" FROM (SELECT user_id, {DAY} AS ts FROM events GROUP BY user_id, ts) AS d",
        # Rows that are doubled after they were grouped.
        f"SELECT user_id, {LEAD} FROM (SELECT user_id, {DAY} AS day, unnest(ARRAY[1, 2]) AS x"
        " FROM events GROUP BY 1, 2) AS d",
        f"SELECT user_id, {LEAD} FROM (SELECT user_id, {DAY} AS day, my.many(user_id) AS x"
        " FROM events GROUP BY 1, 2) AS d",
        f"WITH d AS ({GROUPED}) SELECT a.user_id, lead(a.day) OVER (PARTITION BY a.user_id ORDER BY a.day) AS x"
        " FROM d AS a JOIN d AS b USING (user_id)",
        f"SELECT user_id, {LEAD} FROM ({GROUPED} UNION ALL {GROUPED}) AS d",
        f"SELECT user_id, {LEAD} FROM (SELECT user_id, {DAY} AS day FROM events GROUP BY ROLLUP (1, 2)) AS d",
    ],
)  # fmt: skip
def test_what_may_have_ties_is_refused(query: str) -> None:
    with pytest.raises(DefinitionError, match="depends on how ties are ordered"):
        analysed(query)
