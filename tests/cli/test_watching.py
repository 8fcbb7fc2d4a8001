"""`refold deploy` with notices.toml and `-- watch:`, `refold notices`, and `refold anomalies`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.postgres.connect import connect
from refold.service.duties import anomalies
from refold.store import notices, series
from refold.store.builds.compiled import Compiler
from refold.store.incidents import detect
from tests.support.http_receiver import Receiver, answers
from tests.support.processes import worker as worker_process
from tests.support.waiting import wait_until
from tests.support.watching import put_history

from .conftest import Refold

Connection = psycopg.Connection[Any]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SQL = """-- watch: events by action
SELECT (ts AT TIME ZONE 'UTC')::date AS day, action, count(*) AS events FROM events GROUP BY day, action
"""


@pytest.fixture
def worker(database_url: str) -> Iterator[Connection]:
    with connect(database_url, "refold_worker", autocommit=True) as conn:
        yield conn


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def project(refold: Refold, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Refold:
    Path("projections").mkdir()
    Path("projections/daily.sql").write_text(SQL)
    Path("notices.toml").write_text(
        '[pager]\nkind = "webhook"\nurl = "env:PAGER_URL"\nsecrets = ["env:PAGER_SECRET"]\nallow_private = true\n'
        'least = "page"\n[dead_man]\nkind = "heartbeat"\nurl = "env:PAGER_URL"\nallow_private = true\n'
    )
    monkeypatch.setenv("PAGER_URL", receiver.url)
    monkeypatch.setenv("PAGER_SECRET", SECRET)
    return refold


def test_from_a_file_to_a_receiver(project: Refold, receiver: Receiver, worker: Connection, database_url: str) -> None:
    assert project("deploy", "--dry-run").status == 0
    assert notices.routes(worker) == []
    done = project("deploy")
    assert done.status == 0, done.err
    assert "pager: a route of notices, changed" in done.out
    assert "notices" not in project("deploy").out
    tested = project("notices", "test")
    assert tested.status == 0, tested.err
    assert [one.json["type"] for one in receiver.requests] == ["refold.heartbeat", "refold.ping"]
    detect(worker, "log_damage", "segment 1", by="a test", evidence={})
    with worker_process(database_url, Path("projections"), drain=False, deliver=True):
        wait_until(lambda: any(one.json["type"] == "incident.opened" for one in receiver.requests), 60)
        wait_until(lambda: notices.latest(worker, 1)[0].sent_at is not None)
    listed = project("notices", "list")
    assert "log_damage segment 1" in listed.out
    assert SECRET not in listed.out + listed.err + "".join(one.definition for one in notices.routes(worker))
    Path("notices.toml").write_text("")
    assert project("deploy").status == 0
    assert notices.routes(worker) == []


def test_a_receiver_that_does_not_confirm_a_test(project: Refold, receiver: Receiver) -> None:
    assert project("deploy").status == 0
    receiver.behaviour = answers(500, b"no")
    told = project("notices", "test", "pager", "--json")
    assert told.status == 1
    assert json.loads(told.out)[0]["confirmed"] is False
    unknown = project("notices", "test", "pagr")
    assert unknown.status == 2 and "pager" in unknown.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[pager]\nkind = "webhook"\nurl = "https://a.example/"\n', "secrets"),
        ('[pager]\nkind = "pigeon"\nurl = "https://a.example/"\n', "kind"),
        ('[pager]\nkind = "heartbeat"\nurl = "https://a.example/"\nurgent = true\n', "urgent"),
        ('[pager]\nkind = "webhook"\nurl = "https://a.example/"\nsecrets = ["whsec_very-secret"]\n', "holds a secret"),
        ('[Pager]\nkind = "heartbeat"\nurl = "https://a.example/"\n', "cannot name a route"),
        ("pager = 3\n", "must be a table"),
        ("[pager\n", "is not TOML"),
    ],
)
def test_mistakes_in_the_file_are_refused_with_the_line(
    project: Refold, worker: Connection, text: str, expected: str
) -> None:
    Path("notices.toml").write_text(text)
    told = project("deploy")
    assert told.status == 2
    assert expected in told.err and "notices.toml" in told.err and "very-secret" not in told.err
    assert notices.routes(worker) == []


@pytest.mark.parametrize(
    ("comment", "expected"),
    [("event by action", "there is no column event"), ("events by", "neither"), ("events by user", "no column user")],
)
def test_a_column_that_cannot_be_watched_is_refused(project: Refold, comment: str, expected: str) -> None:
    Path("projections/daily.sql").write_text(SQL.replace("events by action", comment))
    told = project("deploy")
    assert told.status == 2 and expected in told.err
    Path("projections/daily.sql").write_text(
        "-- watch: events\nSELECT action, count(*) AS events FROM events GROUP BY action"
    )
    assert "no row for each day" in project("deploy").err


def test_columns_of_metrics_are_series_with_their_past(project: Refold, worker: Connection, admin: Connection) -> None:
    assert project("deploy").status == 0
    today = datetime.now(UTC)
    lines = [
        json.dumps({"id": f"{day}-{at}", "action": "buy", "ts": (today - timedelta(days=day)).isoformat()})
        for day in range(40)
        for at in range(6 if day != 1 else 60)
    ]
    Path("events.ndjson").write_text("\n".join(lines))
    anomalies.run(worker, Compiler(None))
    assert project("ingest", "events.ndjson").status == 0
    assert project("worker", "--drain").status == 0
    anomalies.run(worker, Compiler(None))
    found = {one.title: one for one in series.every(worker)}
    buys = found["metric:daily.events: buy"]
    assert buys.began_on == today.date() - timedelta(days=39)
    values = [
        value
        for (value,) in worker.execute(
            "SELECT value FROM refold.series_values WHERE series_id = %s ORDER BY at", (buys.series_id,)
        )
    ]
    assert values == [6.0] * 38 + [60.0]
    assert found["old"].kind == "old"


def test_the_list_says_what_learns_and_what_is_unusual_and_a_series_can_be_muted(
    project: Refold, worker: Connection, admin: Connection
) -> None:
    assert "no series yet" in project("anomalies").err
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    put_history(
        admin,
        {"view": 300.0, "cart": 60.0, "buy": 25.0},
        days=85,
        change=lambda name, at, count: 0 if (name, at.date()) == ("cart", yesterday) else count,
    )
    worker.execute("INSERT INTO refold.series (kind, name, began_on) VALUES ('action', 'new', current_date)")
    anomalies.run(worker, Compiler(None))
    told = project("anomalies")
    assert told.status == 0, told.err
    assert "unusual: action:cart has an unusual value" in told.out and "learning until" in told.out
    assert "wrong" not in told.out
    rows = {one["title"]: one for one in json.loads(project("anomalies", "--json").out)}
    assert rows["action:cart"]["unusual"] and not rows["action:view"]["unusual"]
    assert "action:cart" in project("incidents", "--open").out
    assert project("anomalies", "mute", "action:crt", "--until", "2999-01-01").status == 2
    assert project("anomalies", "mute", "action:cart", "--until", "2001-01-01").status == 2
    assert project("anomalies", "mute", "action:cart", "--until", "2999-01-01").status == 0
    assert "muted until 2999" in project("anomalies").out
    assert "action:cart" not in project("incidents", "--open").out
    [muted] = worker.execute("SELECT resolved_by FROM refold.incidents WHERE kind = 'anomaly'").fetchall()
    assert muted == ("anomalies mute",)
    assert project("anomalies", "unmute", "action:cart").status == 0
    assert "muted" not in project("anomalies").out
    actions = [one for (one,) in worker.execute("SELECT command FROM refold.actions ORDER BY action_id")]
    assert actions[-2:] == ["anomalies mute", "anomalies unmute"]


def test_the_report_has_toil(project: Refold) -> None:
    assert "interrupts" in project("report").out
    assert json.loads(project("report", "--json").out)["toil"]["autonomy"] is None
