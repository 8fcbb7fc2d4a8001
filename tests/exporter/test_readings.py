"""What a scrape reads: the truth, as an observer, in few pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks.exporting import multiply
from refold import append
from refold.engine.deployment.deploy import deploy, rebuild
from refold.exporter.readings import COARSE, Readings, read
from refold.inspect.archive import WAITING
from refold.model.pressure import Level
from refold.model.projection.definition import load_directory
from refold.model.quantiles import bucket
from refold.postgres.connect import connection
from refold.service.duties import prune_statistics, totals
from refold.service.duties.audits import quick_audit
from refold.store import archives, incidents
from refold.store.builds.build import live
from refold.store.builds.compiled import Compiler
from refold.store.log.cold_ledger import chill_step
from refold.store.pressure import record
from refold.store.totals import count_archive
from tests.conftest import ServerUnderTest
from tests.engine.purge.conftest import ENDS, Yard, yard  # noqa: F401
from tests.inspect.test_pages_read import WRONG_STATISTICS
from tests.support.counting import count_everything
from tests.support.delivering import deliver, deploy_sink
from tests.support.explained import explained
from tests.support.law import database, worker_connection
from tests.support.live import SHOP, drain
from tests.support.logins import login
from tests.support.making import events

Connection = psycopg.Connection[Any]
MOST = 200
"""Pages of a statement, for each build."""
MANY = COARSE + 10


@pytest.fixture
def worker(database_url: str) -> Iterator[Connection]:
    with worker_connection(database_url) as conn:
        yield conn


def scrape(url: str, *only: str) -> Readings:
    with connection(url, "refold_observer", autocommit=True) as conn:
        return read(conn, only=only)


@pytest.mark.live("shop")
def test_it_is_the_truth(database_url: str, worker: Connection, admin: Connection) -> None:
    began = datetime.now(UTC).timestamp() - 1
    with psycopg.connect(database_url) as conn:
        append(conn, events(30))
        append(conn, [*events(3), {"id": "bad"}])
    empty = scrape(database_url)
    assert {one.projection: one.unread for one in empty.builds if one.projection == "daily"} == {"daily": 30}
    assert all(0 < one.oldest_s < 60 for one in empty.builds if one.projection == "daily")
    assert {one.proved_at for one in empty.builds} == {None}
    drain(database_url, SHOP)
    quick_audit(worker, Compiler(SHOP))
    incidents.detect(worker, "hot_key", "daily", by="test", evidence={})
    record(worker, [("lag", Level.slow, 70.0, 60.0, None)])
    admin.execute("UPDATE refold.duplicates SET at = at - interval '2 minutes'")
    prune_statistics.run(worker, Compiler(None))
    count_everything(worker)
    prune_statistics.run(worker, Compiler(None))
    admin.execute("ANALYZE")
    found = scrape(database_url)
    assert (found.events, found.lag_limit, found.holders, found.oldest_holder_s) == (30, 60, 0, 0.0)
    daily = next(one for one in found.builds if one.projection == "daily")
    assert (daily.applied_events, daily.unread, daily.oldest_s, daily.left_out, daily.failing) == (30, 0, 0.0, 0, False)
    assert daily.applied_pages > 0 and daily.apply_seconds > 0 and daily.bytes
    assert daily.applied_at is not None and daily.applied_at > began
    assert daily.proved_at is not None and daily.proved_at > began and daily.deep_proved_at is None
    assert sum(found.latencies["daily", "fresh"].counts) == 30
    assert found.latencies["daily", "fresh"].seconds > 0
    assert set(found.totals) >= {
        ("duplicates", "", "", 3), ("rejected", "", "invalid", 1), ("incidents", "", "hot_key", 1),
    }  # fmt: skip
    assert found.open_incidents["hot_key"] == 1 and found.open_incidents["drift"] == 0
    assert [(one.signal, one.level) for one in found.pressure.signals] == [("lag", 1)]
    assert [one.projection for one in scrape(database_url, "daily", "none").builds] == ["daily"]


@pytest.mark.live("shop")
def test_healed_rows_and_what_hides_a_metric(database_url: str, worker: Connection, admin: Connection) -> None:
    with psycopg.connect(database_url) as conn:
        append(conn, events(30))
    drain(database_url, SHOP)
    build = live(worker, "daily")
    assert build is not None
    admin.execute(f"UPDATE refold_builds.{build.table_name} SET events = events + 1 WHERE action = 'view'".encode())
    quick_audit(worker, Compiler(SHOP))
    count_everything(worker)
    healed = [one for one in scrape(database_url).totals if one[0] == "healed"]
    assert healed and {one[1:3] for one in healed} == {("daily", "drifted")}
    assert {one.proved_at is None for one in scrape(database_url).builds} == {False}
    incidents.detect(worker, "hidden", "daily", by="test", evidence={})
    assert {one.projection for one in scrape(database_url).builds if one.proved_at is None} == {"daily"}


@pytest.mark.live("shop")
def test_a_sink_with_a_queue_that_an_observer_may_count_and_not_read(
    database_url: str, worker: Connection, server: ServerUnderTest, conn: Connection, tmp_path: Path
) -> None:
    conn.autocommit = True
    text = f'projection = "daily"\nkind = "files"\n[files]\nurl = "{tmp_path}/out"\nformat = "jsonl"\n'
    sink = deploy_sink(worker, "copy", text)
    with login(server, conn, "refold_observer") as url:
        [before] = scrape(url).sinks
        assert (before.sink, before.projection, before.condition, before.failures) == ("copy", "daily", "active", 0)
        assert (before.messages, before.oldest_s, before.delivered, before.undelivered) == (0, 0.0, 0, 0)
        deliver(worker, SHOP, "copy")
        for number in range(3):
            append(conn, events(2, f"more{number}-"))
            drain(database_url, SHOP)
        [after] = scrape(url).sinks
        assert after.messages == 3 and after.oldest_s is not None and after.oldest_s > 0
        table = f"pgmq.q_refold_sink_{sink.sink_id}"
        with connection(url, "refold_observer", autocommit=True) as observer:
            for statement in (f"SELECT message FROM {table}", f"DELETE FROM {table}", "SELECT pgmq.create('mine')"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    observer.execute(statement.encode())


@pytest.mark.live("shop")
def test_an_open_transaction_holds_events(database_url: str, producer: Connection) -> None:
    append(producer, events(3))
    found = scrape(database_url)
    assert found.holders == 1 and found.oldest_holder_s is not None and found.oldest_holder_s > 0
    producer.rollback()
    assert scrape(database_url).holders == 0


@pytest.mark.live("shop")
def test_a_switch_in_the_middle_of_scrapes(database_url: str, worker: Connection) -> None:
    """A scrape sees one build or the other, whole."""
    with psycopg.connect(database_url) as conn:
        append(conn, events(30))
    drain(database_url, SHOP)
    before = scrape(database_url)
    done = threading.Event()
    failures: list[BaseException] = []
    seen: list[Readings] = []

    def scrapes() -> None:
        try:
            with connection(database_url, "refold_observer", autocommit=True) as conn:
                while not done.is_set():
                    seen.append(read(conn))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=scrapes)
    thread.start()
    try:
        for _ in range(3):
            rebuild(worker, SHOP, ["graded"], lambda progress: None, cascade=True)
    finally:
        done.set()
        thread.join()
    assert failures == [] and len(seen) > 3
    names = [one.projection for one in before.builds]
    for found in seen:
        assert [one.projection for one in found.builds] == names
        assert all(one.bytes is not None for one in found.builds)
    assert len({tuple(one.build_id for one in found.builds) for found in seen}) > 1


@pytest.mark.live("shop")
def test_a_login_that_is_an_observer_and_nothing_else(
    database_url: str, server: ServerUnderTest, conn: Connection, worker: Connection, producer: Connection
) -> None:
    conn.autocommit = True
    append(producer, events(3))
    with login(server, conn, "refold_observer") as url:
        found = scrape(url)
        assert found.events == 0 and len(found.builds) == 7
        # Ages of others' transactions are for who may read all statistics.
        assert found.holders == 1 and found.oldest_holder_s is None
        with connection(url, "refold_observer", autocommit=True) as observer:
            for statement in (
                "SELECT * FROM refold.events", "UPDATE refold.totals SET number = 0", "DELETE FROM refold.totals",
                "UPDATE refold.counted_events SET events = 0", "SELECT * FROM refold.counted_events",
                "INSERT INTO refold.latency_totals DEFAULT VALUES",
                "SELECT * FROM refold.first_unread(NULL, NULL, NULL, NULL, 1)",
                "SELECT * FROM pgmq.meta",
            ):  # fmt: skip
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    observer.execute(statement.encode())
    producer.rollback()


@pytest.fixture(scope="module")
def many_builds(server: ServerUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Builds that are live, and as many more rows of such builds as make `MANY`; with cursors, proofs, latencies."""
    folder = tmp_path_factory.mktemp("project")
    for number in range(3):
        (folder / f"n{number}.sql").write_text(
            f"SELECT action, count(*) * {number + 1} AS n FROM events GROUP BY action"
        )
    with database(server, segment_size=5_000, segments=2, folder=folder) as url:
        with psycopg.connect(url, autocommit=True) as admin:
            append(admin, events(5_000))
            drain(url, folder)
            multiply(admin, MANY - 3)
            admin.execute("ANALYZE")
        yield url, MANY


def costs(url: str, *only: str) -> tuple[Readings, dict[str, int]]:
    """A scrape, and the pages that each of its statements touches."""
    with connection(url, "refold_observer", autocommit=True) as conn:
        read(conn, only=only)
        with explained(conn) as plans:
            found = read(conn, only=only)
    assert plans
    pages: dict[str, int] = {}
    for plan in plans:
        pages[plan.query[:60]] = max(pages.get(plan.query[:60], 0), plan.buffers)
    return found, pages


@pytest.mark.slow
def test_every_statement_of_a_scrape_reads_few_pages_a_build(many_builds: tuple[str, int]) -> None:
    url, number = many_builds
    for _ in range(2):
        found, pages = costs(url)
        assert len(found.builds) == number
        assert {name for name, _ in found.latencies} == {""}
        # Far below what is allowed for each build: the sum over all of them is what a page of the dashboard waits for.
        assert {query: cost for query, cost in pages.items() if cost > MOST / 4 * number} == {}
        # The totals, whose reading must not depend on how long there have been events.
        total = next(cost for query, cost in pages.items() if "events_total" in query)
        assert total <= MOST
        with worker_connection(url) as worker:
            prune_statistics.run(worker, Compiler(None))
            totals.run(worker, Compiler(None))
    single, pages = costs(url, "metric_000007")
    assert [name for name, _ in single.latencies] == ["metric_000007"] * 3
    assert sum(single.latencies["metric_000007", "fresh"].counts) == 7 * 9 * 5


@pytest.mark.slow
def test_a_scrape_under_a_held_snapshot_reads_few_pages(many_builds: tuple[str, int]) -> None:
    url, _ = many_builds
    with (
        psycopg.connect(url) as holder,
        worker_connection(url) as worker,
        psycopg.connect(url, autocommit=True) as admin,
    ):
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM refold.builds")
        _, before = costs(url)
        for round_ in range(400):
            append(admin, events(1, f"held{round_}-"))
            totals.run(worker, Compiler(None))
        _, after = costs(url)
        for query, cost in after.items():
            assert cost <= max(before.get(query, 0) * 1.2, before.get(query, 0) + MOST), query


@pytest.mark.live("shop")
def test_stages_by_number_of_projections(
    database_url: str, worker: Connection, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = live(worker, "daily")
    assert build is not None
    for stage in ("waiting", "applying", "fresh"):
        admin.execute(
            "INSERT INTO refold.latencies VALUES (date_trunc('minute', now()), %s, %s, %s, 4)",
            (build.build_id, stage, bucket(0.5)),
        )
    assert {key[1] for key in scrape(database_url).latencies} == {"waiting", "applying", "fresh"}
    monkeypatch.setattr("refold.exporter.readings.FINE", 3)
    assert set(scrape(database_url).latencies) == {("daily", "fresh")}
    assert len(scrape(database_url, "daily").latencies) == 3
    monkeypatch.setattr("refold.exporter.readings.COARSE", 3)
    assert set(scrape(database_url).latencies) == {("", "waiting"), ("", "applying"), ("", "fresh")}


def test_a_build_that_goes_does_not_take_its_part_of_all_together(
    database_url: str, worker: Connection, admin: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refold.exporter.readings.COARSE", 0)
    (tmp_path / "n.sql").write_text("SELECT action, count(*) AS n FROM events GROUP BY action")
    deploy(worker, tmp_path, load_directory(tmp_path), lambda progress: None)
    admin.execute(
        "INSERT INTO refold.latencies"
        " SELECT date_trunc('minute', now()) - interval '5 minutes', build_id, 'fresh', 3, 9 FROM refold.builds"
    )
    prune_statistics.run(worker, Compiler(None))
    rebuild(worker, tmp_path, ["n"], lambda progress: None)
    assert sum(scrape(database_url).latencies["", "fresh"].counts) == 9


def totals_of_archive(found: Readings) -> dict[str, int]:
    return {kind: number for what, _, kind, number in found.totals if what == "archive"}


@pytest.mark.live("archived")
def test_the_archive_and_purges(yard: Yard) -> None:  # noqa: F811
    verified = archives.find(yard.worker, "a.state = 'verified'")
    before = scrape(yard.url)
    # Workers count; until then nothing waits all the same.
    assert (totals_of_archive(before), before.archive.waiting) == ({}, 0)
    for _ in range(2):
        count_archive(yard.worker)
        found = scrape(yard.url)
        assert totals_of_archive(found) == {
            "archived_segments": 3, "archived_events": 120, "archived_bytes": sum(one.size or 0 for one in verified)
        }  # fmt: skip
    assert (found.archive.first, found.archive.sealed) == (1, ENDS[2])
    assert (found.archive.waiting, found.archive.oldest_s, found.archive.failures) == (0, 0.0, 0)
    assert verified[2].proved_at is not None and found.archive.archived_at == verified[2].proved_at.timestamp()
    assert found.archive.after_s == 86_400
    yard.skip_to(ENDS[3])
    yard.append(40)
    yard.drain()
    yard.seal()
    yard.admin.execute("UPDATE refold.sealed_slices SET sealed_at = sealed_at - interval '1 day' WHERE slice = 3")
    late = scrape(yard.url).archive
    assert (late.sealed, late.waiting) == (ENDS[3], 1)
    assert late.oldest_s is not None and 86_400 <= late.oldest_s < 90_000
    yard.archive()
    count_archive(yard.worker)
    yard.purge()
    while chill_step(yard.worker) is not None:
        pass
    count_archive(yard.worker)
    # A segment counts once, whatever happens to its file.
    yard.admin.execute("UPDATE refold.archives SET state = 'gone', purged_at = NULL WHERE lower_position = 1")
    for _ in range(2):
        count_archive(yard.worker)
    found = scrape(yard.url)
    counted = totals_of_archive(found)
    assert (counted["archived_segments"], counted["archived_events"]) == (4, 160)
    assert (counted["purged_segments"], counted["purged_events"], counted["cold_ids"]) == (4, 160, 160)
    assert (found.archive.first, found.archive.waiting) == (ENDS[3], 0)


@pytest.mark.live("archived")
def test_a_segment_counts_once_the_one_before_it_does(yard: Yard) -> None:  # noqa: F811
    second = "UPDATE refold.archives SET state = %s WHERE lower_position = %s"
    yard.admin.execute(second, ("written", ENDS[0]))
    count_archive(yard.worker)
    found = scrape(yard.url)
    assert (totals_of_archive(found)["archived_segments"], found.archive.waiting) == (1, 1)
    yard.admin.execute(second, ("verified", ENDS[0]))
    count_archive(yard.worker)
    assert totals_of_archive(scrape(yard.url))["archived_segments"] == 3


MANY_SEGMENTS = """
INSERT INTO refold.archives (lower_position, upper_position, generation, state, location, bytes, sha256, events, upto,
                             ids, hash, written_at, proved_at, verified_at, purged_at)
SELECT greatest(n << 14, 1), (n + 1) << 14, 1, CASE WHEN n < %(purged)s::bigint THEN 'purged' ELSE 'verified' END,
       'log/of/this/database/' || n, 1000, sha256('x'), 9, '7', 1, 1, now(), now(), now(),
       CASE WHEN n < %(purged)s::bigint THEN now() END
FROM generate_series(0, %(archived)s::bigint - 1) AS n;
INSERT INTO refold.cold_ranges (lower_position, upper_position, copied_at, ids, released_to)
SELECT a.lower_position, a.upper_position, now(), 9, a.upper_position FROM refold.archives AS a
WHERE a.state = 'purged';
INSERT INTO refold.sealed_slices (slice, passed, sealed_at, events, upto, ids, hash)
SELECT n, '7', now() - interval '1 hour', 0, '7', 0, 0
FROM generate_series(0, %(archived)s::bigint + %(live)s - 1) AS n
"""


@pytest.mark.slow
def test_an_archive_of_many_segments_costs_few_pages(server: ServerUnderTest, tmp_path: Path) -> None:
    """However many segments were purged or archived, and however many wait."""
    purged, archived, live_ = 10_000, 20_000, WAITING + 50
    (tmp_path / "n.sql").write_text("SELECT action, count(*) AS n FROM events GROUP BY action")
    with database(server, segment_size=16_384, segments=2, folder=tmp_path) as url:
        with psycopg.connect(url, autocommit=True) as admin:
            for (segment,) in admin.execute("SELECT segment::text FROM refold.segments").fetchall():
                admin.execute(f"DROP TABLE {segment}".encode())
            for statement in MANY_SEGMENTS.split(";"):
                admin.execute(statement.encode(), {"purged": purged, "archived": archived, "live": live_})
            with admin.transaction():
                admin.execute("SET LOCAL ROLE refold_owner")
                for number in range(archived, archived + live_):
                    admin.execute("SELECT refold.create_segment(%s, %s)", (number << 14, (number + 1) << 14))
            admin.execute("UPDATE refold.settings SET archive = '/nowhere'")
        with worker_connection(url) as worker:
            before = -1
            while (now := totals_of_archive(scrape(url)).get("archived_segments", 0)) != before:
                before = now
                with explained(worker) as plans:
                    count_archive(worker)
                assert max(plan.buffers for plan in plans) <= MOST
        found, pages = costs(url)
        assert totals_of_archive(found) == {
            "archived_segments": archived, "archived_events": 9 * archived, "archived_bytes": 1_000 * archived,
            "purged_segments": purged, "purged_events": 9 * purged, "cold_ids": 9 * purged,
        }  # fmt: skip
        assert (found.archive.first, found.archive.sealed) == (purged << 14, (archived + live_) << 14)
        assert found.archive.waiting == WAITING
        assert found.archive.oldest_s is not None and 3_600 <= found.archive.oldest_s < 7_200
        assert {query: cost for query, cost in pages.items() if cost > MOST} == {}
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(WRONG_STATISTICS.encode())
        assert {query: cost for query, cost in costs(url)[1].items() if cost > MOST} == {}
