"""Looking takes the role that sees least and does: a dashboard learns how things stand, and nothing of an event."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from refold import append
from refold.inspect.doctor import server as doctor_server
from refold.inspect.doctor import transactions
from tests.conftest import ServerUnderTest
from tests.support.live import make_live
from tests.support.logins import login

from .conftest import Refold

SECRET = "s3cret"
"""Stands in all that somebody has sent, and in all that repeats it."""
SPOILT = f"""
UPDATE refold.builds SET error = 'BuildError: too many of its events fail, the last with "{SECRET}"',
                         definition = definition || '-- {SECRET}'
WHERE projection = 'daily';
INSERT INTO refold.duties (name, failures, error) VALUES ('progress', 3, 'DataError: "{SECRET}"');
SELECT refold.reject('{SECRET}.csv', 1, 'invalid', 'user_id {SECRET}', '{SECRET}');
INSERT INTO refold.incidents (kind, subject, started_at, detected_by, evidence)
VALUES ('hot_key', 'daily__1', now(), 'hot keys',
        '{{"key": {{"user_id": "{SECRET}"}}, "events": 9, "share": 1, "page_seconds": 0.2}}');
INSERT INTO refold.dead_letters (build_id, event_id, txid, position, ordinal, error, traceback)
SELECT build_id, '{SECRET}', '9', 1, 0, 'invalid: "{SECRET}"', '{SECRET}' FROM refold.builds WHERE projection = 'daily';
INSERT INTO refold.repairs (build_id, projection, relation, kind, key, before, after)
SELECT build_id, projection, table_name, 'drifted', '{{"user_id": "{SECRET}"}}', '{{"k": "{SECRET}"}}', NULL
FROM refold.builds WHERE projection = 'daily';
"""
LOOKING = [
    ["status"],
    ["status", "--json"],
    ["incidents"],
    ["incidents", "--json"],
    ["report"],
    ["report", "--json"],
    ["doctor"],
    ["doctor", "--json"],
]


@pytest.fixture
def spoilt(database_url: str, admin: psycopg.Connection[Any]) -> Iterator[None]:
    """A database in which everything is wrong that can be, because of one person's events."""
    make_live(database_url)
    append(admin, [{"id": SECRET, "user_id": SECRET, "action": SECRET, "ts": 1, "metadata": {"amount": SECRET}}])
    admin.execute(SPOILT.encode())
    yield


def test_an_observer_sees_how_things_stand_and_nothing_of_an_event(
    server: ServerUnderTest, admin: psycopg.Connection[Any], bare: Refold, spoilt: None
) -> None:
    with login(server, admin, "refold_observer") as url:
        told = {}
        for command in LOOKING:
            done = bare(*command, REFOLD_DATABASE_URL=url)
            assert done.status == (1 if command[0] == "doctor" else 0), (command, done.err)
            assert SECRET not in done.out + done.err, command
            told[" ".join(command)] = done
        assert re.search(r"daily__\S+: BuildError$", told["status"].out, re.MULTILINE)
        assert "1 hot_key open" in told["status"].out
        assert "rejected  1 invalid" in told["status"].out
        assert told["status --json"].json["events"] == 1
        assert "hot_key  daily__1" in told["incidents"].out and "refold_inspector" in told["incidents"].err
        verdicts = {check["name"]: check["verdict"] for check in told["doctor --json"].json}
        assert {verdicts[name] for name in ("schema", "cluster", "roles", "lag", "metrics", "segments")} <= {
            "ok", "warn", "fail",
        }  # fmt: skip
        for command in (["rejected"], ["deadletters", "list"], ["reconcile"], ["worker", "--drain"]):
            done = bare(*command, REFOLD_DATABASE_URL=url)
            assert (done.status, SECRET in done.out + done.err) == (2, False), command
        # Whatever is added to refold's tables: no column that an observer may read says it.
        columns = admin.execute(
            """
            SELECT format('SELECT %I::text FROM refold.%I', a.attname, c.relname)
            FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.relnamespace = 'refold'::regnamespace AND c.relkind IN ('r', 'p', 'v')
              AND has_column_privilege('refold_observer', c.oid, a.attnum, 'SELECT')
            """
        ).fetchall()
        assert len(columns) > 50
        with psycopg.connect(url, autocommit=True) as conn:
            for (query,) in columns:
                assert not [row for row in conn.execute(query.encode()) if SECRET in str(row)], query
            assert conn.execute("SELECT count(*) > 0 FROM metrics.freshness").fetchone() == (True,)


def test_an_inspector_sees_the_evidence(
    server: ServerUnderTest, admin: psycopg.Connection[Any], bare: Refold, spoilt: None
) -> None:
    with login(server, admin, "refold_inspector") as url:
        for command in ("status", "incidents", "rejected", "doctor"):
            assert SECRET in bare(command, REFOLD_DATABASE_URL=url).out, command
        assert SECRET in bare("deadletters", "list", REFOLD_DATABASE_URL=url).out
        assert bare("deadletters", "drop", "1", "--reason", "x", REFOLD_DATABASE_URL=url).status == 2


def test_the_servers_own_processes_are_no_sessions(server: ServerUnderTest, admin: psycopg.Connection[Any]) -> None:
    """Of others' sessions a login that is no superuser sees neither the kind nor the state."""
    with login(server, admin, "refold_observer") as url, psycopg.connect(url, autocommit=True) as mine:
        assert doctor_server.connections(mine) == doctor_server.connections(admin)
        (others,) = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> %s",
            (mine.info.user,),
        ).fetchone() or (0,)
        assert f"sessions of other logins: {others}" in {check.found for check in transactions.oldest(mine)}
