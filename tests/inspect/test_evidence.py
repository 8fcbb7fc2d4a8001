"""What incidents have seen and done, as sentences."""

from __future__ import annotations

from typing import Any

import pytest

from refold.inspect.evidence import done, seen
from refold.store.incidents import KINDS, Kind

AT = "2026-03-02T10:00:00.123456+00:00"


@pytest.mark.parametrize(
    ("kind", "evidence", "sentence"),
    [
        ("drift", {"slices": ["daily__1: 2026-03-02"], "depth": "deep"},
         "rows differ from the stored checksums in daily__1: 2026-03-02;"
         " a deep audit found rows that differ from the query over the log"),
        ("lag", {"projection": "daily", "seconds": 61.5, "limit": 60, "oldest_event": "e7", "recorded_at": AT},
         "event e7 has waited for 1 min to be applied; the limit is 1 min"),
        ("stalled", {"loaded": True, "moved_at": AT, "oldest_event": "e7", "error": "division by zero",
                     "written_by": [], "waits_for": None},
         "applying fails: division by zero; no event was applied since 2026-03-02 10:00:00 UTC;"
         " the oldest waiting event is e7"),
        ("dead_letters", {"projection": "daily", "waiting": 1, "error": "no number"},
         "1 event could not be processed and is excluded; latest error: no number"),
        ("held_back", {"pid": 17, "application": "psql", "role": "ann", "seconds": 90.0, "limit": 60},
         "pid 17 of ann (psql) has had a transaction open for 2 min; its events are visible when it ends"),
        ("held_back", {"pid": 17, "application": "psql", "role": "ann", "seconds": 90.0, "limit": 60, "waiting": [8],
                       "locks": ["refold.deployments"], "query": "LOCK TABLE refold.deployments"},
         "pid 17 of ann (psql) has had a transaction open for 2 min; refold waits until it ends; it holds locks on"
         " refold.deployments; its latest query: LOCK TABLE refold.deployments"),
        ("held_back", {"gid": "g1", "role": None, "seconds": None},
         "the prepared transaction g1 is open; its events are visible when it ends"),
        ("held_snapshot", {"application": "psql", "role": "ann", "transactions": 7000, "seconds": 90.0,
                           "remedy": "SELECT pg_terminate_backend(17)"},
         "psql of ann has held a snapshot for 2 min; 7,000 transactions started since;"
         " to end it: SELECT pg_terminate_backend(17)"),
        ("missed_notification", {"event": "e7", "recorded_at": AT, "queue_usage": 0.5, "worker_pid": 3},
         "no notification came for event e7, appended at 2026-03-02 10:00:00 UTC;"
         " the server's queue of notifications is 50% full; detected by the worker with pid 3"),
        ("log_damage", {"damage": [{"event_id": None, "fault": "checksums", "detail": "slice 3"}], "found": 1},
         "1 fault, the log differs from what was written: slice 3 (checksums)"),
        ("impure_transform", {"events": ["e1", "e2"], "fields": ["price"]},
         "the transform returns other rows when it runs again, for the events e1, e2; they differ in price"),
        ("foreign_cluster", {"strategy": "adopt", "because": "no cursor goes beyond", "cluster": {"log": 7}},
         "no cursor goes beyond"),
        ("hot_key", {"key": {"user_id": "u"}, "events": 5000, "share": 0.4, "page_seconds": 2.3,
                     "without": "WHERE user_id IS DISTINCT FROM 'u'"},
         "user_id=u has 5,000 events (40% of all), and each new one reads them all again; a page takes 2.3 s;"
         " WHERE user_id IS DISTINCT FROM 'u' leaves them out"),
        ("hidden", {"stood": " SELECT 1 AS n\n   FROM t;", "not_healed": None},
         "its view was replaced by: SELECT 1 AS n FROM t"),
        ("capture_gap", {"error": "disk full", "paused": True, "statements": 1, "more": False},
         "the log could not take an event: disk full; 1 statement on its table made no events, and it is paused"),
        ("capture_gap", {"error": None, "paused": False, "statements": 1000, "more": True},
         "at least 1,000 statements on its table made no events"),
        ("hidden", {"stood": None, "not_healed": "a session holds it"},
         "its view was dropped; it could not be recreated: a session holds it"),
        # What another version has written down.
        ("lag", {"odd": [1, 2, 3, 4, 5, 6], "empty": None}, "odd 1 2 3 4 5 and 1 more"),
    ],
)  # fmt: skip
def test_seen(kind: Kind, evidence: dict[str, Any], sentence: str) -> None:
    assert seen(kind, evidence) == sentence


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_told_whatever_it_has_seen(kind: Kind) -> None:
    for value in (None, "", "x", 7, [], [1], {}, {"a": 1}):
        fields = dict.fromkeys(("found", "damage", "key", "keys", "healed", "seconds", "waiting", "moved_at"), value)
        assert isinstance(seen(kind, fields) + done(kind, fields), str)


@pytest.mark.parametrize(
    ("kind", "outcome", "sentence"),
    [
        ("drift", {"healed": {"daily__1: drifted": 1}, "keys": [{"relation": "daily__1", "day": "2026-03-02"}]},
         "1 row of daily__1 was wrong and corrected; keys: day=2026-03-02"),
        ("lag", {"because": "it is over"}, "it is over"),
        ("hidden", {"because": "its view is made again"}, "its view is made again"),
        ("missed_notification", {"because": "the bell rang", "pid": 7}, "the bell rang"),
        ("log_damage", {"found": "intact"}, "verified again: it is intact"),
        ("log_damage", {"accepted": "archive", "missing": 2, "changed": 0, "unknown": 0},
         "damage accepted (2 missing, 0 changed, 0 unknown), reason: archive"),
        ("dead_letters", {"waiting": 0}, "no dead letter is waiting any more"),
    ],
)  # fmt: skip
def test_done(kind: Kind, outcome: dict[str, Any], sentence: str) -> None:
    assert done(kind, outcome) == sentence
