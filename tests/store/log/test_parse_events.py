"""Events valid at first sight are parsed as `refold.parse_event` does, and a large call is answered as a small one."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import event_cases
from tests.support.making import events, rejected

Connection = psycopg.Connection[Any]

BOTH = """
    SELECT quick, slow
    FROM jsonb_array_elements(%(events)s::jsonb) WITH ORDINALITY AS given (event, place)
    LEFT JOIN refold.parse_events(%(events)s::jsonb) AS quick ON quick.ordinal = given.place
    CROSS JOIN LATERAL refold.parse_event(given.event, given.place) AS slow
    WHERE quick IS DISTINCT FROM slow OR quick::text IS DISTINCT FROM slow::text
"""
ORDINARY = {"id": "a", "action": "b", "ts": "2026-03-01T10:00:00Z"}

texts = st.sampled_from(["u", "", "é" * 255, "x" * 256, "|", "2026-03-01T10:00:00Z|2026-03-01T10:00:00Z"])
things = st.one_of(texts, st.none(), st.booleans(), st.integers(-1, 3), st.just([]), st.just({}), st.just({"a": [1]}))
times = st.one_of(
    st.from_regex(
        r"\A(?:0000|0001|1000|2024|8999|9999)-(?:0[0-3]|1[0-3])-(?:0[01]|2[89]|3[0-2])[Tt ](?:0[09]|2[34]):[056]0"
        r"(?::[056]0(?:[.,][0-9]{0,8})?)?(?:Z|z| UTC|[+-](?:0[09]|1[4-6])(?::?[056]0(?::00)?)?)?\Z"
    ),
    st.sampled_from(["2026-03-01T10:00:00Z|2026-03-01T10:00:00Z", "|", "", "infinity", "now", 1767225600000, 0, 1.5]),
    things,
)
changes = st.fixed_dictionaries(
    {},
    optional={"id": things, "user_id": things, "action": things, "ts": times, "metadata": things, "version": things,
              "x": things},
)  # fmt: skip
offered = st.one_of(st.builds(lambda change: {**ORDINARY, **change}, changes), changes, things)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(offered, max_size=4))
def test_both_parse_alike(conn: Connection, given_events: list[Any]) -> None:
    assert conn.execute(BOTH.encode(), {"events": json.dumps(given_events)}).fetchall() == []


def test_the_cases_of_all_doors(conn: Connection) -> None:
    """Each alone, so that no other's time decides for it."""
    for case in event_cases.load():
        try:
            with conn.transaction():
                conn.execute("SELECT %s::jsonb", (case.raw,))
        except psycopg.Error:
            continue
        assert conn.execute(BOTH.encode(), {"events": f"[{case.raw}]"}).fetchall() == [], case.name


@pytest.mark.parametrize("style", ["German, DMY", "SQL, MDY"])
def test_the_session_does_not_change_what_a_time_means(conn: Connection, style: str) -> None:
    conn.execute("SELECT set_config('DateStyle', %s, true), set_config('TimeZone', 'Asia/Kolkata', true)", (style,))
    row = conn.execute(
        "SELECT ts = timestamptz '2026-03-01 09:00:00+00' FROM refold.parse_events(%s)",
        ('[{"id": "a", "action": "b", "ts": "2026-03-01T10:00:00+01:00"}]',),
    ).fetchone()
    assert row == (True,)


def answers(conn: Connection, offered: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return conn.execute(
        "SELECT ordinal, event_id, answer, reason FROM refold.append(%s)", (json.dumps(offered),)
    ).fetchall()


@pytest.mark.parametrize("known", [0, 1, 50, 99])
def test_a_large_call_answers_as_small_ones_do(conn: Connection, known: int) -> None:
    """One of its events may be known, twice in it, a conflict, or invalid; the order of the log is that of the call."""
    sent: list[dict[str, Any]] = events(100)
    spoilt = [*sent[:30], {**sent[30], "ts": "soon"}, *sent[31:], sent[7], {**sent[8], "action": "other"}]
    for offered in (sent, spoilt):
        with conn.transaction(force_rollback=True):
            answers(conn, [sent[known]])
            whole = answers(conn, offered)
            log = conn.execute("SELECT event_id, action FROM refold.events ORDER BY position").fetchall()
            kept = rejected(conn)
        with conn.transaction(force_rollback=True):
            answers(conn, [sent[known]])
            single = [(at, *answers(conn, [one])[0][1:]) for at, one in enumerate(offered, 1)]
            assert whole == single
            assert log == conn.execute("SELECT event_id, action FROM refold.events ORDER BY position").fetchall()
            assert sorted(one[2:] for one in kept) == sorted(one[2:] for one in rejected(conn))
        assert {answer for _, _, answer, _ in whole} >= {"accepted", "duplicate"}


def test_a_large_call_of_new_and_invalid_events(conn: Connection) -> None:
    sent: list[dict[str, Any]] = events(100)
    sent[40] = {**sent[40], "action": ""}
    found = answers(conn, sent)
    assert [answer for _, _, answer, _ in found].count("accepted") == 99
    assert found[40][2:] == ("invalid", "action: must have 1 to 255 characters, not 0")
    assert conn.execute("SELECT count(*) FROM refold.events").fetchone() == (99,)
