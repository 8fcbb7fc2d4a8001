"""What pages and a scrape say while builds change places, and after the clock was set: an answer, and nothing false."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import psycopg
import pytest
from prometheus_client.openmetrics import parser

from refold.dashboard.registry import PAGES
from refold.engine.deployment.deploy import rebuild
from refold.engine.deployment.promote import go_live
from refold.engine.deployment.rollback import rollback
from refold.exporter.exporter import Exporter
from refold.exporter.page import OPENMETRICS, page
from refold.store.incidents import detect
from tests.support.dashboard import EVIDENCE, Running, audit
from tests.support.law import worker_connection
from tests.support.live import SHOP

pytestmark = pytest.mark.live("shop")

Connection = psycopg.Connection[Any]
PATHS = [one.path.format(name="daily") for one in PAGES if not one.still]


class Looking:
    """Somebody who looks at pages and scrapes."""

    def __init__(self, running: Running, conn: Connection) -> None:
        self.running = running
        self.looks = 0
        self._conn = conn
        self._clock = 0.0
        self._exporter = Exporter(running.url, clock=lambda: self._clock)

    def body(self, path: str) -> Any:
        """The JSON of a page, read now."""
        self.running.server._app.state.dashboard.shared.forget()
        reply = self.running.get(path, EVIDENCE)
        assert reply.status == 200, (path, reply.text)
        return reply.body

    def verdicts(self) -> dict[str, str]:
        """What is said of each metric; fails if one is there twice, or is called right without a proof of its own."""
        builds = self.body("/index.json")["health"]["builds"]
        live = [one for one in builds if one["state"] == "live"]
        assert max(Counter(one["metric"] for one in live).values()) == 1
        proved = {build for (build,) in self._conn.execute("SELECT build_id FROM refold.proofs").fetchall()}
        for one in live:
            assert one["verdict"] not in ("right", "incomplete", "late") or one["build_id"] in proved, (one, proved)
            assert one["proved_s"] is None or one["proved_s"] >= 0
        return {one["metric"]: one["verdict"] for one in live}

    def samples(self) -> dict[tuple[str, str], float]:
        """A scrape made now, by name and projection; the parser refuses a sample that is there twice."""
        self._clock += 3600
        found = self._exporter.readings()
        assert found is not None
        parse: Any = parser.text_string_to_metric_families
        text = page(found, OPENMETRICS).text.decode()
        return {
            (one.name, one.labels.get("projection", "")): one.value
            for family in parse(text)
            for one in family.samples
            if one.labels.get("depth", "any") == "any"
        }

    def everywhere(self) -> None:
        """Reads all pages, as a person sees them, and fails at one that has no answer or a time that is negative."""
        self.running.server._app.state.dashboard.shared.forget()
        for path in PATHS:
            for token in ("", EVIDENCE):
                reply = self.running.get(path, token)
                assert reply.status == 200, (path, reply.text)
                text = re.sub("<[^>]*>", " ", reply.text)
                assert not re.search(r"(?<![\w.])[-−]\d+(\.\d+)? ?(ms|s|min|h|d)\b", text), path

    def close(self) -> None:
        self._exporter.close()


@pytest.mark.slow
def test_while_builds_change_places(dashboard: Running, admin: Connection) -> None:
    looking = Looking(dashboard, admin)
    audit(dashboard.url)

    def rows() -> list[list[Any]]:
        return sorted(looking.body("/metrics/daily.json")["rows"]["rows"])

    before = rows()
    assert before
    names = {"daily", "purchases", "totals", "paths", "graded", "grades", "grade_paths"}

    def look(progress: object) -> None:
        looking.looks += 1
        verdicts = looking.verdicts()
        assert set(verdicts) == names and "wrong" not in verdicts.values()
        assert rows() == before
        samples = looking.samples()
        assert samples["refold_up", ""] == 1
        assert {of for name, of in samples if name == "refold_unread_events"} == names

    def live() -> int:
        row = admin.execute(
            "SELECT build_id FROM refold.builds WHERE projection = 'daily' AND state = 'live'"
        ).fetchone()
        assert row is not None
        return int(row[0])

    seen = [live()]
    with worker_connection(dashboard.url) as conn:
        rebuild(conn, SHOP, ["daily"], look)
        seen.append(live())
        rebuild(conn, SHOP, ["daily"], look, promote=False)
        look(None)
        go_live(conn, SHOP, ["daily"], look)
        seen.append(live())
        rollback(conn, SHOP, "daily", look)
        seen.append(live())
    looking.everywhere()
    assert seen[3] == seen[1] and len(set(seen)) == 3
    assert looking.looks > 4
    looking.close()


def test_while_a_switch_is_not_committed(dashboard: Running, admin: Connection) -> None:
    """The pages wait for no lock of the switch, and show the build that is live until then."""
    looking = Looking(dashboard, admin)
    audit(dashboard.url)
    before = looking.verdicts()
    with psycopg.connect(dashboard.url) as switching:
        switching.execute("SET LOCAL session_replication_role = replica")
        switching.execute("UPDATE refold.builds SET state = 'retired' WHERE projection = 'daily' AND state = 'live'")
        switching.execute("LOCK TABLE metrics.daily IN ACCESS EXCLUSIVE MODE")
        assert looking.verdicts() == before
        found = looking.body("/metrics/daily.json")["rows"]
        assert found["rows"] == [] and found["because"]
        assert looking.samples()["refold_up", ""] == 1
        switching.rollback()
    assert looking.body("/metrics/daily.json")["rows"]["rows"]
    looking.close()


TIMES = """
UPDATE refold.proofs SET began_at = {to}, ended_at = {to};
UPDATE refold.cursors SET applied_at = {to};
UPDATE refold.duties SET started_at = {to}, ended_at = {to};
UPDATE refold.builds SET created_at = {to}, promoted_at = {to};
UPDATE refold.repairs SET repaired_at = {to};
UPDATE refold.incidents SET started_at = {to}, detected_at = {to} WHERE resolved_at IS NULL;
UPDATE refold.dead_letters SET first_failed_at = {to}, last_failed_at = {to};
"""


@pytest.mark.parametrize("to", ["clock_timestamp() + interval '1 year'", "clock_timestamp() - interval '1 year'"])
def test_after_the_clock_was_set(dashboard: Running, admin: Connection, to: str) -> None:
    looking = Looking(dashboard, admin)
    audit(dashboard.url)
    assert "unproved" not in looking.verdicts().values()
    with worker_connection(dashboard.url) as conn:
        detect(conn, "lag", "paths", by="test", evidence={})
    admin.execute("SET session_replication_role = replica")
    admin.execute(TIMES.format(to=to).encode())
    assert set(looking.verdicts().values()) == {"unproved"}
    assert "equal the log" not in dashboard.get("/", EVIDENCE).text
    # That it will end by itself is said for a few minutes, and not until a year has gone by.
    assert any("paths" in one["title"] for one in looking.body("/index.json")["needs"])
    samples = looking.samples()
    assert samples["refold_up", ""] == 1
    assert {value for (name, _), value in samples.items() if "age_seconds" in name and value < 0} == set()
    looking.everywhere()
    looking.close()
