"""The metric that would keep what a view computes at each read."""

from __future__ import annotations

import pytest

from refold.model.projection.keepable import keepable, streams_read
from refold.model.projection.plan import LOG, LOG_COLUMNS

STREAMS = {LOG: LOG_COLUMNS, "visits": ("event_id", "user_id", "page", "ts")}
VISITS = "FROM metrics.visits"


@pytest.mark.parametrize(
    ("query", "metric", "whole"),
    [
        (f"SELECT page, count(*) {VISITS} GROUP BY 1", "SELECT page, COUNT(*) AS count FROM visits GROUP BY 1", True),
        (
            f"SELECT page, count(*) AS n {VISITS} GROUP BY page ORDER BY n DESC LIMIT 3",
            "SELECT page, COUNT(*) AS n FROM visits GROUP BY page",
            False,
        ),
        (
            "SELECT count(*) AS n FROM refold.events",
            "SELECT 'all' AS scope, COUNT(*) AS n FROM refold.events GROUP BY scope",
            False,
        ),
        (
            f"WITH seen AS (SELECT DISTINCT page, user_id {VISITS}) SELECT page, count(*) FROM seen GROUP BY 1",
            "SELECT page, user_id FROM visits GROUP BY 1, 2",
            False,
        ),
        (
            f"SELECT p.name, v.n FROM (SELECT page, count(*) AS n {VISITS} GROUP BY 1) AS v JOIN public.pages AS p"
            " ON p.id = v.page",
            "SELECT page, COUNT(*) AS n FROM visits GROUP BY 1",
            False,
        ),
        (f"SELECT page, count(*) {VISITS} WHERE ts > now() - interval '7 days' GROUP BY 1", None, False),
        (f"SELECT event_id, page {VISITS} WHERE page = '/'", None, False),
        ("SELECT page, n FROM metrics.pages", None, False),
        ("WITH visits AS (SELECT 1 AS one) SELECT one, count(*) FROM visits GROUP BY 1", None, False),
    ],
)
def test_the_largest_part_that_can_be_kept(query: str, metric: str | None, whole: bool) -> None:
    options = " WITH (security_barrier, check_option = local)"
    for head in ("CREATE VIEW metrics.v AS", f'-- What.\nDROP VIEW x;\ncreate or replace view metrics."v"{options} AS'):
        found = keepable(f"{head} {query};\nCOMMENT ON VIEW metrics.v IS 'a;b';", STREAMS)
        if metric is None:
            assert found is None
        else:
            assert found is not None
            assert (" ".join(found.sql.split()), found.whole) == (metric.replace("refold.events", "events"), whole)


def test_streams_that_a_view_names() -> None:
    both = "CREATE VIEW metrics.v AS SELECT 1 AS one FROM metrics.visits CROSS JOIN refold.events"
    assert streams_read(both, STREAMS) == ("events", "visits")
    assert streams_read("CREATE VIEW v AS SELECT * FROM public.events, other.visits", STREAMS) == ()
    for nothing in ("", "SELEKT", "CREATE VIEW", "CREATE TABLE metrics.visits AS SELECT 1", "'"):
        assert streams_read(nothing, STREAMS) == ()
        assert keepable(nothing, STREAMS) is None
