"""Records go when they are old, and what reports count of them stays counted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.deployment.deploy import deploy
from refold.engine.deployment.rollback import plan, rollback
from refold.errors import BuildError
from refold.inspect.report import report
from refold.inspect.status import read as status
from refold.model.projection.definition import load_directory
from refold.service.duties import retention
from refold.service.duties.registry import DUTIES
from refold.service.duties.retention import run
from refold.store.builds.compiled import Compiler

Connection = psycopg.Connection[Any]
NOBODYS = Compiler(None)
LONG = timedelta(days=5000)


def kept(admin: Connection, table: str, what: str) -> list[Any]:
    return [value for (value,) in admin.execute(f"SELECT {what} FROM refold.{table} ORDER BY 1".encode()).fetchall()]


def reported(worker: Connection) -> tuple[Any, ...]:
    found = report(worker, LONG)
    return found.conflicts, found.invalid, found.healed, found.incidents, status(worker).rejected


@pytest.fixture
def records(admin: Connection, worker: Connection, tmp_path: Path) -> None:
    """Old records, new ones, and old ones that still matter."""
    (tmp_path / "counts.sql").write_text("SELECT action, count(*) AS events FROM events GROUP BY action")
    deploy(worker, tmp_path, load_directory(tmp_path), lambda progress: None)
    admin.execute(
        """
        INSERT INTO refold.rejected (source, line, answer, reason, raw, first_seen, last_seen)
        SELECT 'old', n, CASE WHEN n % 3 = 0 THEN 'conflict' ELSE 'invalid' END, 'x', 'x', at, at
        FROM generate_series(1, 30) AS n, (SELECT now() - interval '91 days') AS t (at)
        UNION ALL SELECT 'again', 1, 'invalid', 'x', 'x', now() - interval '91 days', now()
        UNION ALL SELECT 'new', 1, 'invalid', 'x', 'x', now(), now();

        INSERT INTO refold.repairs (build_id, projection, relation, kind, key, repaired_at)
        SELECT build_id, 'counts', relation, 'drifted', '{}', at
        FROM refold.builds, (VALUES ('old', now() - interval '401 days'), ('old', now() - interval '500 days'),
                                    ('new', now())) AS t (relation, at);

        INSERT INTO refold.incidents (kind, subject, started_at, detected_at, detected_by, resolved_at, resolved_by)
        SELECT 'lag', subject, at, at + interval '10 s', 'x', at + took, 'x'
        FROM (VALUES ('old', now() - interval '402 days', interval '40 s'),
                     ('old', now() - interval '402 days', interval '60 s'),
                     ('long', now() - interval '402 days', interval '10 days'),
                     ('new', now() - interval '2 days', interval '1 hour')) AS t (subject, at, took);
        INSERT INTO refold.incidents (kind, subject, started_at, detected_at, detected_by)
        VALUES ('stalled', 'open', now() - interval '900 days', now() - interval '900 days', 'x');

        INSERT INTO refold.dead_letters (build_id, event_id, txid, position, ordinal, error, state, ended_at, reason,
                                         first_failed_at)
        SELECT build_id, event_id, '3', 1, 0, 'x', how, ended, 'x', now() - interval '500 days'
        FROM refold.builds, (VALUES ('waiting', 'waiting', NULL::timestamptz),
                                    ('dropped', 'dropped', now() - interval '450 days'),
                                    ('released', 'released', now() - interval '450 days'),
                                    ('lately', 'released', now())) AS t (event_id, how, ended)
        """
    )


@pytest.mark.parametrize("portion", [1, 4, 1000])
def test_what_is_old_and_over_goes_and_stays_counted(
    records: None, admin: Connection, worker: Connection, portion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PORTION", portion)
    before = reported(worker)
    assert before[:3] == (10, 22, 3)
    for _ in range(2):
        run(worker, NOBODYS)
        assert kept(admin, "rejected", "source") == ["again", "new"]
        assert kept(admin, "repairs", "relation") == ["new"]
        assert kept(admin, "incidents", "subject") == ["long", "new", "open"]
        assert kept(admin, "dead_letters", "event_id") == ["dropped", "lately", "waiting"]
        assert reported(worker) == before


def test_what_somebody_has_locked_is_left_for_the_next_time(
    records: None, admin: Connection, worker: Connection, connect: Callable[..., Connection]
) -> None:
    other = connect()
    other.execute("SELECT FROM refold.rejected WHERE line <= 3 AND source = 'old' FOR UPDATE")
    other.execute("LOCK TABLE refold.incidents")
    run(worker, NOBODYS)
    other.rollback()
    assert len(kept(admin, "rejected", "source")) == 5
    assert len(kept(admin, "incidents", "subject")) == 5
    run(worker, NOBODYS)
    assert len(kept(admin, "rejected", "source")) == 2
    assert len(kept(admin, "incidents", "subject")) == 3


def test_it_is_a_duty() -> None:
    assert retention.NAME in [duty.name for duty in DUTIES]


def versions(worker: Connection, folder: Path, *texts: str) -> None:
    for text in texts:
        (folder / "counts.sql").write_text(text)
        deploy(worker, folder, load_directory(folder), lambda progress: None)


COUNTS = "SELECT action, count(*) + {} AS events FROM events GROUP BY action"


def test_builds_that_were_dropped_go_with_their_letters(admin: Connection, worker: Connection, tmp_path: Path) -> None:
    from refold.engine.publish.switch import drop_superseded

    versions(worker, tmp_path, *(COUNTS.format(n) for n in range(6)))
    drop_superseded(worker)
    admin.execute(
        "INSERT INTO refold.dead_letters (build_id, event_id, txid, position, ordinal, error)"
        " SELECT build_id, 'e', '3', 1, 0, 'x' FROM refold.builds WHERE number IN (1, 2, 6)"
    )
    run(worker, NOBODYS)
    assert kept(admin, "builds", "number") == [1, 2, 3, 4, 5, 6]
    admin.execute("UPDATE refold.builds SET retired_at = now() - interval '100 days' WHERE state = 'dropped'")
    admin.execute("UPDATE refold.deployments SET requested_at = now() - interval '100 days' WHERE deployment < 6")
    admin.execute(
        "INSERT INTO refold.repairs (build_id, projection, relation, kind, key)"
        " SELECT build_id, 'counts', 'x', 'drifted', '{}' FROM refold.builds WHERE number = 3"
    )
    run(worker, NOBODYS)
    # 3: somebody may want to know what was healed there; 4: the last that was live before those that can go back.
    assert kept(admin, "builds", "number") == [3, 4, 5, 6]
    assert kept(admin, "dead_letters", "build_id") == kept(admin, "builds", "build_id")[-1:]
    assert len(kept(admin, "deployments", "deployment")) == 4
    rollback(worker, tmp_path, "counts", lambda progress: None)
    assert [step.action for step in plan(worker, "counts")] == ["goes back"]
    versions(worker, tmp_path, COUNTS.format(9))
    assert max(kept(admin, "builds", "number")) == 7


def test_a_rollback_still_knows_that_there_was_a_build_before(
    admin: Connection, worker: Connection, tmp_path: Path
) -> None:
    from refold.engine.publish.switch import drop_superseded

    versions(worker, tmp_path, *(COUNTS.format(n) for n in range(3)))
    drop_superseded(worker, keep=0)
    admin.execute("UPDATE refold.builds SET retired_at = now() - interval '100 days' WHERE state = 'dropped'")
    run(worker, NOBODYS)
    assert kept(admin, "builds", "number") == [2, 3]
    with pytest.raises(BuildError, match="its table was dropped"):
        rollback(worker, tmp_path, "counts", lambda progress: None)


def test_a_rollback_to_before_the_records_compares_everything(
    admin: Connection, worker: Connection, tmp_path: Path, database_url: str
) -> None:
    """Nobody knows any more whether its stream was healed since."""
    with psycopg.connect(database_url) as conn:
        append(conn, [{"id": "1", "user_id": "u", "action": "view", "ts": 1}])
    (tmp_path / "clicks.sql").write_text("SELECT user_id, action FROM events")
    versions(worker, tmp_path, "SELECT action, count(*) AS n FROM clicks GROUP BY action")
    ((clicks,),) = worker.execute("SELECT table_name FROM refold.builds WHERE projection = 'clicks'").fetchall()
    versions(worker, tmp_path, "SELECT action, 2 * count(*) AS n FROM clicks GROUP BY action")
    # As if it had been healed, and the record was gone.
    admin.execute(f"UPDATE refold_builds.\"{clicks}\" SET action = 'buy'".encode())
    admin.execute("UPDATE refold.builds SET retired_at = now() - interval '400 days' WHERE state = 'retired'")
    rollback(worker, tmp_path, "counts", lambda progress: None)
    assert worker.execute("SELECT * FROM metrics.counts").fetchall() == [("buy", 1)]
