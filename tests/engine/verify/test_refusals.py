"""A query that cannot be kept correct is refused with its reason, and leaves no build behind."""

from __future__ import annotations

import pytest

from refold.errors import DefinitionError
from refold.store.builds.build import find
from tests.support.scratch import Scratch

KEY = "-- key: user_id\n"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT jsonb_array_elements(metadata -> 'i') AS v FROM events", "several rows"),
        ("SELECT ts < 'now' AS v FROM events", "time of evaluation"),
        ("SELECT 'today'::date AS v FROM events", "time of evaluation"),
        ("SELECT pg_postmaster_start_time() AS v FROM events", "more than its arguments"),
        ("SELECT action, stddev((metadata ->> 'x')::float) AS v FROM events GROUP BY action", "adds floats"),
        ("SELECT action, corr(version, version) AS v FROM events GROUP BY action", "adds floats"),
        ("SELECT event_id, version::bit(4) AS v FROM events", "which has no hash"),
        ("SELECT event_id, to_tsvector('simple', action) AS v FROM events", "v is tsvector, which has no hash"),
        ("SELECT action, avg(ts - timestamptz '2026-01-01Z') AS v FROM events GROUP BY action", "cannot cast"),
        ("SELECT (metadata ->> 'n')::int AS n, stddev(version) AS s FROM events GROUP BY n", "then refuse events"),
        ("SELECT date_trunc('day', ts, 'UTC') AS n, stddev(version) AS s FROM events GROUP BY n", "refuse events"),
        (KEY + "SELECT DISTINCT ON (action) user_id, ts FROM events ORDER BY action, event_id", "DISTINCT ON"),
        (
            KEY + "SELECT a.user_id, b.ts FROM events a JOIN events b ON a.user_id = b.user_id OR a.ts = b.ts",
            "the join lacks",
        ),
        (
            KEY + "SELECT b.user_id FROM events a"
            " LEFT JOIN (SELECT user_id FROM events WHERE action = 'b') b ON a.user_id = b.user_id",
            "is NULL where",
        ),
        (
            KEY + "SELECT user_id, ts FROM events a"
            " WHERE EXISTS (SELECT user_id FROM events b WHERE b.action = a.action AND b.ts < a.ts)",
            "mixes the events",
        ),
        (
            KEY + "SELECT user_id, action FROM (SELECT user_id, action FROM events"
            " UNION ALL SELECT action, user_id FROM events) AS both_ways",
            "not the same column",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(scratch: Scratch, query: str, reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        scratch.deploy(query=query)
    assert find(scratch.worker) == []
