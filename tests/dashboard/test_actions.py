"""What people do on the dashboard: it is done once, it is recorded, and the page says what came of it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from refold import append
from refold.postgres.connect import connect
from refold.store.incidents import detect
from refold.store.outbox import create
from refold.store.sinks import every
from tests.support.dashboard import ACTIONS, Reply, Running
from tests.support.live import drain
from tests.support.making import events

pytestmark = [pytest.mark.live("shop"), pytest.mark.slow]

Connection = psycopg.Connection[Any]


def act(running: Running, path: str, **fields: Any) -> Reply:
    """Acts, and follows the redirection to the page that says what came of it."""
    reply = running.post(path, fields)
    assert reply.status == 303, reply.text
    return running.get(reply.headers["location"], ACTIONS)


def groups(running: Running, metric: str) -> list[dict[str, Any]]:
    found = running.get("/dead-letters.json?fresh=" + metric, ACTIONS).body["groups"]
    return [one for one in found if one["metric"] == metric]


def actions(conn: Connection) -> list[tuple[Any, ...]]:
    return conn.execute(
        "SELECT command, arguments, outcome, incident_id FROM refold.actions ORDER BY action_id"
    ).fetchall()


def test_letters_are_retried_and_dropped(dashboard: Running, admin: Connection) -> None:
    first, second = groups(dashboard, "purchases")
    assert (first["number"], second["number"]) == (3, 1)
    one = act(dashboard, "/dead-letters/retry", build=first["build_id"], cause=first["cause"], seen=3)
    assert "0 of 3 events applied, 3 failed again" in one.text
    assert "reason is empty" in dashboard.post("/dead-letters/drop", {"build": first["build_id"]}).text
    two = act(dashboard, "/dead-letters/drop", build=first["build_id"], cause=first["cause"], seen=3, reason="a test")
    assert "3 of 3 events dropped" in two.text
    for seen in ("²", "9" * 5000):
        wrong = {"build": second["build_id"], "cause": second["cause"], "seen": seen}
        assert dashboard.post("/dead-letters/retry", wrong).status == 409
    again = dashboard.post("/dead-letters/retry", {"build": first["build_id"], "cause": first["cause"]})
    assert again.status == 409 and "waits any more" in again.text
    assert [group["number"] for group in groups(dashboard, "purchases")] == [1]
    told = actions(admin)
    assert told == [
        ("deadletters retry", {"projection": "purchases", "letters": 3, "seen": 3},
         "0 of 3 events applied, 3 failed again", None),
        ("deadletters drop", {"projection": "purchases", "letters": 3, "seen": 3, "reason": "a test"},
         "3 of 3 events dropped", None),
    ]  # fmt: skip
    assert "12,50" not in str(told)


def test_letters_whose_error_has_line_breaks_or_is_long(dashboard: Running, eventful: str) -> None:
    with psycopg.connect(eventful, autocommit=True) as conn:
        amounts = ("one\ntwo", "\u00e9" * 10_000)
        for number, amount in enumerate(amounts):
            append(conn, events(1, f"odd{number}", action="purchase", metadata={"amount": amount}))
    drain(eventful)
    page = groups(dashboard, "purchases&odd")
    page = [one for one in groups(dashboard, "purchases") if "two" in one["error"] or "\u00e9" in one["error"]]
    assert len(page) == 2
    for group in page:
        fields = {"build": group["build_id"], "cause": group["cause"], "seen": 1}
        said = act(dashboard, "/dead-letters/retry", **fields)
        assert "0 of 1 event applied, 1 failed again" in said.text
        html = dashboard.get("/dead-letters", ACTIONS).text
        assert f'name="cause" value="{group["cause"]}"' in html and 'name="error"' not in html


def test_an_incident_is_taken_on_once(dashboard: Running, eventful: str, admin: Connection) -> None:
    with connect(eventful, "refold_worker", autocommit=True) as conn:
        number = detect(conn, "stalled", "daily", by="lag and stall", evidence={})
    page = act(dashboard, "/incidents/ack", incident=number, note="I look")
    assert "took it on" in page.text
    row = admin.execute("SELECT acknowledged_by = session_user FROM refold.incidents WHERE incident_id = %s", (number,))
    assert row.fetchone() == (True,)
    assert actions(admin) == [("incidents ack", {"number": number, "note": "I look"}, "taken on", number)]
    over = dashboard.post("/incidents/ack", {"incident": 10**9})
    assert over.status == 409 and "is over already" in over.text
    assert actions(admin)[1][2] == "failed: InputError"
    for wrong in ("", "x", "9" * 30, "1; DROP"):
        assert dashboard.post("/incidents/ack", {"incident": wrong}).status == 409


def test_a_sink_is_paused_and_resumed(dashboard: Running, eventful: str, admin: Connection) -> None:
    with connect(eventful, "refold_worker", autocommit=True) as conn:
        conn.execute(
            """
        WITH made AS (INSERT INTO refold.sinks (name, projection, grain, kind, definition)
                      VALUES ('crm', 'daily', 'rows', 'files', '') RETURNING sink_id)
        INSERT INTO refold.sink_states (sink_id, number, condition, following, epoch, batch, tokens)
        SELECT sink_id, 1, 'active', true, 1, 100, '{}' FROM made
        """
        )
        for sink in every(conn):
            create(conn, sink.sink_id)
    assert "paused" in act(dashboard, "/sinks/pause", sink="crm").text
    assert dashboard.get("/sinks.json?1", ACTIONS).body["sinks"][0]["condition"] == "paused"
    assert "resumed" in act(dashboard, "/sinks/resume", sink="crm").text
    assert [one[:3] for one in actions(admin)] == [
        ("sinks pause", {"name": "crm"}, "paused"),
        ("sinks resume", {"name": "crm"}, "resumed"),
    ]
    unknown = dashboard.post("/sinks/pause", {"sink": "cmr"})
    assert unknown.status == 409 and "crm" in unknown.text


def test_a_form_has_a_bound(dashboard: Running) -> None:
    assert dashboard.post("/incidents/ack", {"note": "x" * 20_000}).status == 413
