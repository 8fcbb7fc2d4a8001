"""A declared key: the rows of one key must depend on the events of that key alone."""

from __future__ import annotations

import pytest

from refold.errors import DefinitionError
from refold.model.projection.keys import declared_key
from refold.model.projection.plan import LOG_COLUMNS, KeyPart, Plan
from refold.model.projection.query import analyse


def plan(query: str, key: str = "user_id") -> Plan:
    return analyse("metric", f"-- key: {key}\n{query}", {"events": LOG_COLUMNS})


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("-- key: user_id\nSELECT", ("user_id",)),
        ("-- Sessions.\n--  Key :  user_id ,action  \nSELECT", ("user_id", "action")),
        ("SELECT 1 -- key: user_id", None),
        ("SELECT user_id", None),
    ],
)
def test_the_declaration(source: str, key: tuple[str, ...] | None) -> None:
    assert declared_key(source) == key


@pytest.mark.parametrize(
    "query",
    [
        "SELECT user_id, rank() OVER (PARTITION BY user_id ORDER BY ts) AS r FROM events",
        "SELECT DISTINCT user_id, action FROM events",
        "SELECT DISTINCT ON (user_id) user_id, action FROM events ORDER BY user_id, ts, event_id",
        "SELECT user_id, max(n) AS n FROM (SELECT user_id, ts, count(*) AS n FROM events GROUP BY 1, 2) x GROUP BY 1",
        "WITH a AS (SELECT * FROM events) SELECT user_id, count(*) AS n FROM a GROUP BY user_id",
        "SELECT a.user_id, b.action AS x FROM events AS a JOIN events AS b USING (user_id)",
        "SELECT a.user_id, b.action FROM events a LEFT JOIN events b ON a.user_id = b.user_id AND a.ts < b.ts",
        "SELECT user_id, ts FROM events WHERE user_id IN (SELECT user_id FROM events WHERE action = 'buy')",
    ],
)
def test_queries_that_fall_apart_by_the_key(query: str) -> None:
    kept = plan(query)
    assert kept.upkeep == "recompute"
    assert kept.key == (KeyPart("user_id", "user_id"),)
    assert not kept.unique


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT user_id, rank() OVER (ORDER BY ts) AS r FROM events", "PARTITION BY lacks the key user_id"),
        ("SELECT DISTINCT ON (action) user_id, action FROM events ORDER BY action, event_id", "DISTINCT ON lacks"),
        (
            "SELECT user_id, n FROM (SELECT max(user_id) AS user_id, count(*) AS n FROM events GROUP BY action) AS x",
            "select the key user_id unchanged",
        ),
        (
            "SELECT max(user_id) AS user_id, count(*) AS n FROM (SELECT user_id FROM events) AS x",
            "select the key user_id unchanged",
        ),
        (
            "SELECT upper(user_id) AS user_id, rank() OVER (PARTITION BY user_id ORDER BY ts) AS r FROM events",
            "select the key",
        ),
        ("SELECT a.user_id, b.ts FROM events AS a JOIN events AS b ON a.ts = b.ts", "the join lacks the key"),
        (
            "SELECT a.user_id, b.ts FROM events AS a JOIN events AS b ON a.user_id = b.user_id OR a.ts = b.ts",
            "the join lacks",
        ),
        ("SELECT a.user_id, b.ts FROM events AS a CROSS JOIN events AS b", "the join lacks the key"),
        ("SELECT a.user_id, b.ts FROM events AS a, events AS b WHERE a.user_id = b.user_id", "the join lacks the key"),
        ("SELECT user_id, (SELECT count(*) FROM events) AS n FROM events", "key"),
        ("SELECT user_id, ts FROM events WHERE ts > (SELECT min(ts) FROM events)", "key"),
        (
            "SELECT user_id, ts FROM events WHERE user_id NOT IN (SELECT user_id FROM events WHERE action = 'buy')",
            "mixes",
        ),
        (
            "SELECT action, rank() OVER (PARTITION BY action ORDER BY ts) AS r FROM events",
            "is not a column of the SELECT",
        ),
        ("SELECT usr_id AS user_id, rank() OVER (ORDER BY ts) AS r FROM events", "no column usr_id"),
    ],
)
def test_queries_that_mix_keys(query: str, message: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        plan(query)
    assert message in str(refused.value)
    assert refused.value.line is not None and refused.value.line >= 1


def test_a_key_must_come_from_the_stream() -> None:
    with pytest.raises(DefinitionError, match="not a column of the stream"):
        plan("SELECT upper(action) AS act, rank() OVER (PARTITION BY action ORDER BY ts) AS r FROM events", key="act")


def test_a_misspelt_key_is_guessed() -> None:
    with pytest.raises(DefinitionError, match=r"usr_id .*Did you mean user_id\?"):
        plan("SELECT user_id, rank() OVER (PARTITION BY user_id ORDER BY ts) AS r FROM events", key="usr_id")


def test_several_columns_make_a_key() -> None:
    query = "SELECT user_id, action, rank() OVER (PARTITION BY action, user_id ORDER BY ts) AS r FROM events"
    assert [part.name for part in plan(query, key="user_id, action").key] == ["user_id", "action"]
    with pytest.raises(DefinitionError, match="PARTITION BY lacks the key action"):
        plan(query.replace("action, user_id ORDER", "user_id ORDER"), key="user_id, action")
