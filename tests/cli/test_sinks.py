"""`refold deploy` with sinks, `refold deliver`, and `refold sinks`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from refold.model.sink import state as steps
from refold.postgres.connect import connect
from refold.store import sinks
from tests.support.delivering import Connection

from .conftest import Refold

TOML = """
projection = "counts"
kind = "postgres"

[postgres]
url = "env:TARGET"
table = "counts"
schema = "copies"
"""


@pytest.fixture
def worker(database_url: str) -> Iterator[Connection]:
    with connect(database_url, "refold_worker", autocommit=True) as conn:
        yield conn


@pytest.fixture
def shop(refold: Refold, database_url: str, admin: Connection, monkeypatch: pytest.MonkeyPatch) -> Refold:
    """A project with one sink, not deployed, into another schema of the same database."""
    Path("projections").mkdir()
    Path("projections/counts.sql").write_text("SELECT action, count(*) AS events FROM events GROUP BY action")
    Path("sinks").mkdir()
    Path("sinks/copy.toml").write_text(TOML)
    admin.execute("CREATE SCHEMA copies")
    monkeypatch.setenv("TARGET", database_url)
    return refold


def events(shop: Refold, number: int, action: str = "a") -> None:
    lines = [f'{{"id": "{action}{at}", "action": "{action}", "ts": "2026-03-02T08:00:00Z"}}\n' for at in range(number)]
    Path("events.ndjson").write_text("".join(lines))
    assert shop("ingest", "events.ndjson").status == 0
    assert shop("worker", "--drain").status == 0


def test_from_a_file_to_a_table(shop: Refold, admin: Connection) -> None:
    planned = shop("deploy", "--dry-run")
    assert planned.status == 0, planned.err
    assert "copy  new     rows of counts → postgres" in planned.out
    assert admin.execute("SELECT FROM refold.sinks").rowcount == 0
    done = shop("deploy")
    assert done.status == 0, done.err
    assert "copy: a sink, delivered by workers and `refold deliver`" in done.out
    events(shop, 3)
    assert "comparing slices" in shop("sinks", "list").out
    assert shop("deliver", "--drain").status == 0
    assert admin.execute("SELECT action, events FROM copies.counts").fetchall() == [("a", 3)]
    [listed] = shop("sinks", "list", "--json").json
    assert (listed["state"], listed["delivered"], listed["messages"]) == ("following", 1, 0)
    events(shop, 4, "b")
    assert "1 message" in shop("sinks", "show", "copy").out
    assert shop("deliver", "--drain", "--sink", "copy").status == 0
    assert admin.execute("SELECT action, events FROM copies.counts ORDER BY 1").fetchall() == [("a", 3), ("b", 4)]
    again = shop("deploy", "--json").json["sinks"]
    assert [(one["sink"], one["action"]) for one in again] == [("copy", "unchanged")]


def test_audits_of_receivers(shop: Refold, admin: Connection) -> None:
    shop("deploy")
    events(shop, 3)
    shop("deliver", "--drain")
    clean = shop("reconcile", "--sinks")
    assert clean.status == 0, clean.err
    assert "copy: the receiver has what counts says (1 slice)" in clean.out
    admin.execute("UPDATE copies.counts SET events = 7")
    found = shop("reconcile", "--sinks", "--dry-run")
    assert found.status == 1
    assert "not delivered again (--dry-run)" in found.out
    assert admin.execute("SELECT events FROM copies.counts").fetchall() == [(7,)]
    healed = shop("reconcile", "--sinks", "--json")
    assert healed.status == 1
    assert len(healed.json["sinks"][0]["wrong"]) == 1
    assert admin.execute("SELECT events FROM copies.counts").fetchall() == [(3,)]
    assert shop("reconcile", "--sinks").status == 0


def test_a_missing_secret_gives_up_nothing(shop: Refold, monkeypatch: pytest.MonkeyPatch) -> None:
    shop("deploy")
    events(shop, 3)
    monkeypatch.delenv("TARGET")
    assert shop("deliver", "--drain").status == 0
    shown = shop("sinks", "show", "copy").out
    assert "TARGET" in shown
    assert "open" in shown
    assert "sink      copy: rows of counts → postgres, open" in shop("status").out
    tested = shop("sinks", "test", "copy")
    assert tested.status == 2
    assert "TARGET" in tested.err
    doctor = shop("doctor")
    # A slow machine has time for a second try.
    assert re.search(r"copy: failed \d+ times? in a row; the receiver says: .*TARGET", doctor.out)


def test_pause_resume_replay_claim_drop(shop: Refold, admin: Connection) -> None:
    shop("deploy")
    events(shop, 3)
    assert shop("sinks", "pause", "copy").out == "copy: paused\n"
    shop("deliver", "--drain")
    assert admin.execute("SELECT to_regclass('copies.counts')").fetchone() == (None,)
    assert "(`refold sinks show copy`)" in shop("status").out
    assert shop("sinks", "resume", "copy").out == "copy: active\n"
    shop("deliver", "--drain")
    admin.execute("DELETE FROM copies.counts")
    assert shop("sinks", "replay", "copy").status == 0
    shop("deliver", "--drain")
    assert admin.execute("SELECT events FROM copies.counts").fetchall() == [(3,)]
    before = admin.execute("SELECT epoch FROM copies.refold_sinks").fetchone()
    admin.execute("UPDATE copies.refold_sinks SET owner = 'another', epoch = epoch + 1000")
    events(shop, 3, "b")
    shop("deliver", "--drain")
    # The receiver is another database's: nothing is delivered until somebody claims it.
    assert "refold sinks claim copy" in shop("sinks", "show", "copy").out
    assert admin.execute("SELECT count(*) FROM copies.counts").fetchone() == (1,)
    assert shop("sinks", "claim", "copy").status == 0
    shop("deliver", "--drain")
    assert admin.execute("SELECT count(*) FROM copies.counts").fetchone() == (2,)
    after = admin.execute("SELECT epoch FROM copies.refold_sinks").fetchone()
    assert before is not None and after is not None and after[0] > before[0] + 1000
    assert "would drop" in shop("sinks", "drop", "copy", "--dry-run").out
    dropped = shop("sinks", "drop", "copy")
    assert dropped.status == 0
    assert "still defines it" in dropped.err
    assert admin.execute("SELECT FROM refold.sink_states").rowcount == 0
    assert admin.execute("SELECT FROM pgmq.meta").rowcount == 0
    assert admin.execute("SELECT sinks FROM refold.builds WHERE state = 'live'").fetchall() == [([],)]


def test_mistakes_in_files(shop: Refold) -> None:
    Path("sinks/copy.toml").write_text(TOML.replace("counts", "cuonts", 1))
    Path("sinks/two.toml").write_text('projection = "counts"\nkind = "webook"\ngrain = "event"\ncolour = 1')
    Path("sinks/three.toml").write_text(
        'projection = "counts"\nkind = "postgres"\n[postgres]\nurl = "postgresql://u:p@h/d"\ntabel = "x"'
    )
    Path("sinks/bad-name.toml").write_text(TOML)
    done = shop("deploy", "--dry-run")
    assert done.status == 2
    for part in (
        "sinks/copy.toml:2: projection: there is no metric 'cuonts'. Did you mean counts?",
        "sinks/two.toml:2: kind: 'webook' is not known. Did you mean webhook?",
        "sinks/two.toml:3: grain: must be rows or events, not 'event'",
        "sinks/two.toml:4: colour: is not known",
        "sinks/three.toml:4: postgres.url: must not hold a password",
        "sinks/three.toml:5: postgres.tabel: is not known",
        "sinks/three.toml: postgres.table: is missing",
        "'bad-name' cannot name a sink",
    ):
        assert part in done.err.replace("\n  ", " "), (part, done.err)
    assert "u:p@h" not in done.err


def test_events(shop: Refold, admin: Connection) -> None:
    Path("projections/plain.sql").write_text("SELECT event_id, action FROM events")
    Path("sinks/copy.toml").write_text('grain = "events"\n' + TOML)
    refused = shop("deploy")
    assert refused.status == 2
    assert "counts is no stream: its rows change, so none can be given once" in refused.err
    Path("sinks/copy.toml").write_text('grain = "events"\n' + TOML.replace("counts", "plain"))
    assert shop("deploy").status == 0
    events(shop, 3)
    [listed] = shop("sinks", "list", "--json").json
    assert (listed["behind"], listed["messages"]) == (True, 0)
    assert "rows of the stream" in shop("sinks", "list").out
    shop("deliver", "--drain")
    assert admin.execute("SELECT event_id FROM copies.plain ORDER BY 1").fetchall() == [("a0",), ("a1",), ("a2",)]
    assert "nothing" in shop("sinks", "show", "copy").out
    [listed] = shop("sinks", "list", "--json").json
    assert listed["behind"] is False
    Path("sinks/copy.toml").write_text(TOML.replace("counts", "plain"))
    refused = shop("deploy")
    assert refused.status == 2
    assert "the grain of a sink stays" in refused.err
    assert "refold sinks drop copy" in refused.err
    Path("sinks/copy.toml").write_text('grain = "events"\n' + TOML.replace("counts", "plain"))
    assert "the receiver has what plain says" in shop("reconcile", "--sinks").out


def test_metrics_whose_rows_cannot_be_told_apart(shop: Refold) -> None:
    Path("sinks/copy.toml").unlink()
    numbered = "row_number() OVER (PARTITION BY user_id ORDER BY ts, event_id)"
    Path("projections/counts.sql").write_text(f"-- key: user_id\nSELECT user_id, {numbered} AS n FROM events")
    assert shop("deploy").status == 0
    Path("sinks/copy.toml").write_text(TOML)
    refused = shop("deploy")
    assert refused.status == 2
    assert "several rows for a key (user_id)" in refused.err


def test_renamed_metrics_keep_their_sinks(shop: Refold, admin: Connection) -> None:
    shop("deploy")
    events(shop, 3)
    shop("deliver", "--drain")
    Path("projections/counts.sql").rename("projections/totals.sql")
    renamed = shop("rename", "counts", "totals")
    assert renamed.status == 0
    assert 'copy.toml still delivers counts: write projection = "totals" there' in " ".join(renamed.err.split())
    events(shop, 3, "b")
    shop("deliver", "--drain")
    assert admin.execute("SELECT count(*) FROM copies.counts").fetchone() == (2,)
    [listed] = shop("sinks", "list", "--json").json
    assert listed["projection"] == "totals"


def test_refused_rows(shop: Refold, database_url: str, admin: Connection) -> None:
    shop("deploy")
    events(shop, 3)
    shop("deliver", "--drain")
    admin.execute("ALTER TABLE copies.counts ADD CHECK (action <> 'b')")
    events(shop, 3, "b")
    events(shop, 3, "c")
    shop("deliver", "--drain")
    assert admin.execute("SELECT action FROM copies.counts ORDER BY 1").fetchall() == [("a",), ("c",)]
    listed = shop("sinks", "undelivered", "copy")
    assert '"action": "b"' in listed.out
    assert "23514" in listed.out
    assert "1 row refused" in shop("status").out
    assert shop("sinks", "undelivered", "copy", "--drop").status == 2
    admin.execute("ALTER TABLE copies.counts DROP CONSTRAINT counts_action_check")
    assert "1 row will be delivered again" in shop("sinks", "undelivered", "copy", "--retry").out
    shop("deliver", "--drain")
    assert admin.execute("SELECT count(*) FROM copies.counts").fetchone() == (3,)
    assert "refused no row" in shop("sinks", "undelivered", "copy").err


def test_two_sinks_cannot_share_a_table(shop: Refold) -> None:
    shop("deploy")
    events(shop, 3)
    shop("deliver", "--drain")
    Path("sinks/second.toml").write_text(TOML)
    shop("deploy")
    shop("deliver", "--drain")
    assert "belongs to the sink copy" in shop("sinks", "show", "second").out.replace("\n", " ")


def test_a_lost_message_is_found(shop: Refold, admin: Connection, worker: Connection) -> None:
    from refold.service.duties import sinks as duty
    from refold.store.builds.compiled import Compiler

    shop("deploy")
    events(shop, 3)
    shop("deliver", "--drain")
    duty.run(worker, Compiler(None))
    sink = sinks.known(worker, "copy")
    assert sinks.state(worker, sink.sink_id)[0].following
    events(shop, 3, "b")
    admin.execute(f"TRUNCATE pgmq.q_refold_sink_{sink.sink_id}".encode())
    duty.run(worker, Compiler(None))
    assert not sinks.state(worker, sink.sink_id)[0].following
    shop("deliver", "--drain")
    assert admin.execute("SELECT count(*) FROM copies.counts").fetchone() == (2,)
    duty.run(worker, Compiler(None))
    assert sinks.state(worker, sink.sink_id)[0].following


def test_too_many_messages_collapse(shop: Refold, admin: Connection, worker: Connection) -> None:
    from refold.service.duties import sinks as duty
    from refold.store.builds.compiled import Compiler
    from refold.store.incidents import open_incidents

    shop("deploy")
    events(shop, 3)
    shop("deliver", "--drain")
    sink = sinks.known(worker, "copy")
    admin.execute("UPDATE refold.settings SET outbox_messages = 2")
    for action in "bcd":
        events(shop, 1, action)
    duty.run(worker, Compiler(None))
    [incident] = open_incidents(worker, "outbox_collapsed")
    assert (incident.subject, incident.evidence["because"]) == ("copy", "more than 2 messages")
    assert admin.execute(f"SELECT FROM pgmq.q_refold_sink_{sink.sink_id}".encode()).rowcount == 0
    # Pages send nothing while slices are to be compared anyway.
    events(shop, 1, "e")
    assert admin.execute(f"SELECT FROM pgmq.q_refold_sink_{sink.sink_id}".encode()).rowcount == 0
    shop("deliver", "--drain")
    duty.run(worker, Compiler(None))
    assert open_incidents(worker, "outbox_collapsed") == []
    assert admin.execute("SELECT count(*) FROM copies.counts").fetchone() == (5,)


def test_a_receiver_that_fails_for_a_minute_is_an_incident(shop: Refold, worker: Connection) -> None:
    from refold.service.duties import sinks as duty
    from refold.store.builds.compiled import Compiler
    from refold.store.incidents import open_incidents

    shop("deploy")
    events(shop, 3)
    sink = sinks.known(worker, "copy")

    def fail(ago: int) -> None:
        with worker.transaction():
            sinks.step(
                worker,
                sink.sink_id,
                lambda now, at: steps.failed(steps.resumed(now), at - steps.LEASE * ago, "no", "503", chance=1.0),
            )

    fail(0)
    duty.run(worker, Compiler(None))
    assert open_incidents(worker, "sink") == []
    fail(2)
    duty.run(worker, Compiler(None))
    [incident] = open_incidents(worker, "sink")
    assert (incident.subject, incident.evidence["status"], incident.evidence["error"]) == ("copy", "503", "no")
    assert "the receiver says: no" in shop("incidents", "--open").out
    shop("sinks", "resume", "copy")
    shop("deliver", "--drain")
    duty.run(worker, Compiler(None))
    assert open_incidents(worker, "sink") == []


def test_an_observer_sees_sinks_without_what_they_say(shop: Refold, admin: Connection, database_url: str) -> None:
    shop("deploy")
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("SET ROLE refold_observer")
        from refold.inspect.sinks import sink_statuses

        [seen] = sink_statuses(conn)
        assert (seen.sink, seen.error, seen.messages) == ("copy", None, None)
        for statement in ("SELECT definition FROM refold.sinks", "SELECT error, tokens FROM refold.sink_states"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())
