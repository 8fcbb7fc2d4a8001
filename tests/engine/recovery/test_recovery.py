"""FAULTS 26: a logical dump in another cluster. Workers refuse before, and the law holds afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from refold import Log
from refold import append as append_in
from refold.embedded import EmbeddedServer
from refold.engine.apply.load import load_step
from refold.engine.apply.step import StepRunner
from refold.engine.deployment.deploy import one_at_a_time
from refold.engine.recovery import RecoveryReport, recover, survey
from refold.engine.recovery.ledger import REASON
from refold.errors import BuildError, DatabaseError, ForeignCluster
from refold.model.stream.cursor import BOUND, RESTORED
from refold.postgres.connect import connect
from refold.postgres.failpoints import POINTS
from refold.service.worker.loop import Worker
from refold.store.builds.build import find, kept
from refold.store.builds.compiled import Compiler
from refold.store.incidents import find as incidents
from refold.store.log.guards import GUARDS
from refold.store.schema.installed import check
from refold.store.schema.migrate import migrate
from tests.support.at_once import at_once
from tests.support.clusters import advance, cluster, dump, next_txid, restore
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.processes import deploying, recovering
from tests.support.restored import EARLY, FAR, LAG, LATE, Dumps, append
from tests.support.tampering import tamper

SCHEMAS = "refold, refold_builds, refold_captures, refold_backfill, metrics, metrics_canary, pgmq"
"""Everything of refold's in a database."""
RECOVER_POINTS = [point for point in POINTS if point.startswith("recover_")]


@contextmanager
def acting(url: str) -> Iterator[psycopg.Connection]:
    with connect(url, "refold_worker", autocommit=True) as conn:
        yield conn


@contextmanager
def superuser(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as conn:
        yield conn


def bring_back(url: str) -> RecoveryReport:
    with acting(url) as conn:
        return recover(conn, SHOP)


def refused(url: str) -> str:
    """What a worker says that is started here."""
    with pytest.raises(ForeignCluster) as refusal:
        Worker(url, SHOP).run(drain=True)
    assert "refold recover" in (refusal.value.remedy or "")
    return str(refusal.value)


def lawful(url: str, events: int) -> None:
    """Workers run; everything is applied; every metric equals its query, and the log has so many events."""
    drain(url)
    assert wrong(url) == {}
    with superuser(url) as conn:
        assert conn.execute("SELECT count(*), count(DISTINCT event_id) FROM refold.events").fetchone() == (events,) * 2
        assert conn.execute("SELECT sum(events)::integer FROM metrics.daily").fetchone() == (events,)
        assert conn.execute("SELECT max(lag_events) FROM metrics.freshness").fetchone() == (0,)
        known = "SELECT (SELECT count(*) FROM refold.event_ids) - (SELECT count(*) FROM refold.lost_events)"
        assert conn.execute(known).fetchone() == (events,)


def test_workers_refuse_until_it_is_recovered(restored: str) -> None:
    assert "restored from another cluster" in refused(restored)
    report = bring_back(restored)
    assert report.survey.decision.strategy == "rewrite"
    assert report.rewritten == LATE + LAG
    assert report.drift.audited == [build.projection for build in report.survey.of("audited")]
    lawful(restored, LATE + LAG)
    assert append(restored, LATE + LAG + 10) == ["duplicate"] * (LATE + LAG) + ["accepted"] * 10
    lawful(restored, LATE + LAG + 10)


def test_what_was_unread_in_a_clean_dump_is_no_damage(restored: str) -> None:
    report = bring_back(restored)
    kept_ones = {build.projection for build in report.survey.of("audited")}
    assert report.unread == dict.fromkeys(kept_ones, LAG)
    assert (report.drift.counts, report.as_dict()["healed"]) == ({}, [])
    with superuser(restored) as conn:
        assert conn.execute("SELECT count(*) FROM refold.repairs").fetchone() == (0,)
    lawful(restored, LATE + LAG)


def test_what_is_damaged_besides_is_told(restored: str) -> None:
    with superuser(restored) as conn:
        conn.execute("UPDATE metrics.daily SET events = events + 1000 WHERE day = (SELECT min(day) FROM metrics.daily)")
    report = bring_back(restored)
    assert {(name, kind) for name, _, kind in report.drift.counts} == {("daily", "drifted")}
    with superuser(restored) as conn:
        assert conn.execute("SELECT count(*) >= 1 FROM refold.repairs WHERE projection = 'daily'").fetchone() == (True,)
    lawful(restored, LATE + LAG)


def test_positions_and_with_them_the_order_stay(restored: str, dumps: Dumps) -> None:
    query = "SELECT position, event_id FROM refold.events ORDER BY txid, position"
    bring_back(restored)
    with superuser(restored) as conn, superuser(dumps.url) as before:
        assert conn.execute(query).fetchall() == before.execute(query).fetchall()
        assert conn.execute("SELECT DISTINCT txid::text::integer FROM refold.events").fetchall() == [(RESTORED,)]


def test_producers_may_append_before_and_after(restored: str) -> None:
    """Their transaction ids are such as the restored cursors call done."""
    assert append(restored, 20, "before") == ["accepted"] * 20
    with superuser(restored) as conn:
        (row,) = conn.execute(
            "SELECT bool_and(pg_visible_in_snapshot(e.txid, b.done)) FROM refold.events AS e, refold.builds_now AS b"
            " WHERE e.event_id LIKE 'before%' AND b.state = 'live'"
        ).fetchall()
        assert row == (True,), "a worker that trusted the cursors would read these"
    bring_back(restored)
    append(restored, 20, "after")
    lawful(restored, LATE + LAG + 40)


def test_producers_append_while_it_is_recovered(restored: str) -> None:
    ended = threading.Event()
    batches = 0

    def produce() -> None:
        nonlocal batches
        while not ended.is_set():
            append(restored, 3, f"{batches}-")
            batches += 1

    def end() -> None:
        try:
            bring_back(restored)
        finally:
            ended.set()

    at_once(produce, end)
    assert batches > 1
    lawful(restored, LATE + LAG + 3 * batches)


def test_a_transaction_that_is_open_meanwhile(restored: str) -> None:
    """It has drawn its positions, and commits when everything is over."""
    with connect(restored, "refold_producer") as producer:
        append_in(producer, [{"id": "slow", "action": "view", "ts": 0}])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("refold.store.log.guards.WRITERS_S", 0.3)
            with pytest.raises(BuildError, match="has been open"):
                bring_back(restored)
        refused(restored)
        producer.commit()
    bring_back(restored)
    lawful(restored, LATE + LAG + 1)


def test_a_cluster_that_is_further_on_keeps_the_cursors(dumps: Dumps) -> None:
    """As after pg_upgrade: nothing is rewritten, and what was not applied yet is not drift."""
    query = "SELECT table_name, done::text FROM refold.builds_now WHERE state = 'live' ORDER BY 1"
    with cluster() as server:
        advance(server, 2 * FAR)
        url = server.url
        with superuser(url) as admin:
            admin.execute(f"DROP SCHEMA {SCHEMAS} CASCADE".encode())
        restore(dumps.late, url)
        refused(url)
        with superuser(url) as conn, superuser(dumps.url) as before:
            coordinates = before.execute("SELECT txid, position FROM refold.events ORDER BY 1, 2").fetchall()
            report = bring_back(url)
            assert (report.survey.decision.strategy, report.rewritten, report.drift.drift) == ("adopt", 0, 0)
            assert conn.execute("SELECT txid, position FROM refold.events ORDER BY 1, 2").fetchall() == coordinates
            assert conn.execute(query).fetchall() == before.execute(query).fetchall()
        append(url, 10, "after")
        lawful(url, LATE + LAG + 10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a session", "prepared"])
def test_an_old_transaction_of_the_new_cluster_is_waited_for(dumps: Dumps, kind: str) -> None:
    """It appends under a txid that the cursors call done."""
    with cluster() as server:
        url = server.url
        with superuser(url) as admin:
            admin.execute(f"DROP SCHEMA {SCHEMAS} CASCADE".encode())
        with psycopg.connect(url) as early:
            early.execute("SELECT pg_current_xact_id()")
            advance(server, 2 * FAR)
            restore(dumps.late, url)
            append_in(early, [{"id": "early", "action": "view", "ts": 0}])
            if kind == "prepared":
                early.execute("PREPARE TRANSACTION 'early'")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("refold.engine.recovery.recovery.OPEN_S", 0.3)
                with pytest.raises(BuildError, match="is open"):
                    bring_back(url)
            refused(url)
            if kind == "prepared":
                early.autocommit = True
                early.execute("COMMIT PREPARED 'early'")
            else:
                early.commit()
        report = bring_back(url)
        assert report.survey.decision.strategy == "adopt"
        assert report.drift.drift > 0, "the audit has found the event that no cursor would have shown"
        lawful(url, LATE + LAG + 1)


def test_the_schema_refold_alone(fresh: Callable[[], str], dumps: Dumps) -> None:
    """The log is there and the metrics are not: they are built from it."""
    url = fresh()
    _restore_schemas(dumps.late, url, "refold")
    with pytest.raises(DatabaseError, match="lacks a schema or table"):
        bring_back(url)
    migrate(url)
    report = bring_back(url)
    assert report.drift.audited == []
    with acting(url) as conn:
        assert kept(conn) == []
    make_live(url)
    lawful(url, LATE + LAG)


def test_without_the_views(fresh: Callable[[], str], dumps: Dumps) -> None:
    url = fresh()
    _restore_schemas(dumps.late, url, "refold", "refold_builds")
    migrate(url)
    bring_back(url)
    lawful(url, LATE + LAG)


def _restore_schemas(archive: bytes, url: str, *schemas: str) -> None:
    with superuser(url) as conn:
        for schema in schemas:
            owner = "refold_owner" if schema == "refold" else "refold_worker"
            conn.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {owner}".encode())
    restore(archive, url, *(f"--schema={schema}" for schema in schemas))


def replace_log(url: str, archive: bytes) -> None:
    """What somebody does who restores an older or newer log, and nothing else."""
    with superuser(url) as conn:
        tamper(conn, "DELETE FROM refold.events")
    restore(archive, url, "--data-only", "--disable-triggers")


@pytest.fixture(scope="module")
def logs(dumps: Dumps, new: EmbeddedServer) -> tuple[bytes, bytes]:
    """The log alone, early and late."""
    found = []
    for name, archive in (("log_early", dumps.early), ("log_late", dumps.late)):
        with psycopg.connect(new.url, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        url = new.url_of(name)
        restore(archive, url)
        found.append(dump(url, "--data-only", "--table=refold.events*"))
    return found[0], found[1]


def test_a_log_that_is_older_than_the_metrics(restored: str, logs: tuple[bytes, bytes]) -> None:
    """What was lost is named and leaves the metrics; its id stays taken, and who sends it again is told."""
    replace_log(restored, logs[0])
    report = bring_back(restored)
    assert report.survey.ledger.lost == LATE + LAG - EARLY
    assert set(report.survey.ledger.lost_ids) == {f"e{number}" for number in range(EARLY, LATE + LAG)}
    assert {kind for _, _, kind in report.drift.counts} >= {"orphan", "drifted"}
    lawful(restored, EARLY)
    assert append(restored, LATE + LAG) == ["duplicate"] * EARLY + ["conflict"] * (LATE + LAG - EARLY)
    lawful(restored, EARLY)
    with superuser(restored) as conn:
        assert conn.execute("SELECT missing, reason FROM refold.acceptances").fetchall() == [
            (LATE + LAG - EARLY, REASON)
        ]
        assert conn.execute("SELECT count(*) FROM refold.rejected").fetchone() == (LATE + LAG - EARLY,)
    # The newer log turns up after all.
    replace_log(restored, logs[1])
    bring_back(restored)
    assert append(restored, LATE + LAG) == ["duplicate"] * (LATE + LAG)
    lawful(restored, LATE + LAG)


def test_positions_that_are_drawn_again(restored: str, logs: tuple[bytes, bytes]) -> None:
    """The older log's sequence starts lower; producers have appended where lost events stood."""
    replace_log(restored, logs[0])
    append(restored, 20, "again")
    with superuser(restored) as conn:
        # And where events stand: the sequence was not restored at all.
        conn.execute("SELECT setval('refold.events_position', 1)")
    append(restored, 20, "low")
    with superuser(restored) as conn:
        twice = "SELECT count(*) - count(DISTINCT position) FROM refold.events"
        assert conn.execute(twice).fetchone() == (20,)
    bring_back(restored)
    append(restored, 5, "after")
    with superuser(restored) as conn:
        of = "SELECT {}(position) FROM refold.events WHERE event_id {} LIKE 'after%'"
        (first,), (last,) = (
            conn.execute(of.format(*what).encode()).fetchall()[0] for what in (("min", ""), ("max", "NOT"))
        )
        assert first > last
    lawful(restored, EARLY + 45)


def test_a_log_that_is_newer_than_everything_else(
    fresh: Callable[[], str], dumps: Dumps, logs: tuple[bytes, bytes]
) -> None:
    """The ledger does not know its last events, and would let them in again."""
    url = fresh()
    restore(dumps.early, url)
    with superuser(url) as conn:
        tamper(conn, "DELETE FROM refold.events")
    restore(logs[1], url, "--data-only", "--disable-triggers")
    report = bring_back(url)
    assert report.survey.ledger.unknown == LATE + LAG - EARLY
    assert append(url, LATE + LAG) == ["duplicate"] * (LATE + LAG)
    lawful(url, LATE + LAG)


def test_a_ledger_that_is_damaged(restored: str) -> None:
    with superuser(restored) as conn:
        tamper(conn, "UPDATE refold.event_ids SET digest = digest + 1 WHERE event_id < 'e3'")
    report = bring_back(restored)
    assert report.survey.ledger.changed > 0
    assert append(restored, LATE) == ["duplicate"] * LATE


def test_two_logs_in_one_are_for_a_person(restored: str) -> None:
    with superuser(restored) as conn:
        tamper(
            conn,
            "INSERT INTO refold.events (txid, position, event_id, action, ts)"
            " SELECT '7', position, event_id, action, ts FROM refold.events WHERE event_id = 'e3'",
        )
    with pytest.raises(DatabaseError, match="the log holds events twice: e3"):
        bring_back(restored)
    refused(restored)


def test_an_identifier_that_was_set_by_hand_helps_nobody(restored: str) -> None:
    """Cursors that speak of the future are found by themselves: so they do after pg_resetwal too."""
    with superuser(restored) as conn:
        conn.execute(
            "UPDATE refold.settings SET system_identifier = (SELECT system_identifier FROM pg_control_system())"
        )
    assert "the log has events of transactions up to" in refused(restored)
    with superuser(restored) as conn:
        tamper(conn, "DELETE FROM refold.events")
    assert "cursors include transaction ids up to" in refused(restored)
    report = bring_back(restored)
    assert report.survey.decision.strategy == "rewrite"
    assert append(restored, LATE) == ["conflict"] * LATE
    append(restored, LATE, "new")
    lawful(restored, LATE)


def test_a_sound_database_is_audited_and_left_alone(restored: str) -> None:
    bring_back(restored)
    drain(restored)
    with superuser(restored) as conn:
        before = conn.execute("SELECT build_id, done::text, state FROM refold.builds_now ORDER BY 1").fetchall()
        report = bring_back(restored)
        assert (report.survey.decision.strategy, report.drift.drift) == ("prove", 0)
        assert conn.execute("SELECT build_id, done::text, state FROM refold.builds_now ORDER BY 1").fetchall() == before


def test_there_is_no_rollback_across_a_restore(restored: str) -> None:
    with acting(restored) as conn:
        (retired,) = find(conn, "b.state = 'retired'")
        bring_back(restored)
        assert find(conn, "b.build_id = %s", retired.build_id)[0].state == "dropped"
        assert conn.execute("SELECT to_regclass(%s)", (f"refold_builds.{retired.table_name}",)).fetchone() == (None,)


def test_the_incident_tells_what_happened(restored: str) -> None:
    with acting(restored) as conn:
        bring_back(restored)
        (incident,) = incidents(conn)
        assert (incident.kind, incident.detected_by, incident.resolved_by) == (
            "foreign_cluster",
            "refold recover",
            "refold recover",
        )
        assert incident.evidence["strategy"] == "rewrite"
        assert incident.outcome is not None and incident.outcome["rewritten"] == LATE + LAG


@pytest.mark.slow
@pytest.mark.parametrize("points", [[point] for point in RECOVER_POINTS] + [["recover_build:3", "recover_audited:2"]])
def test_killed_at_any_point_it_is_run_again(restored: str, points: list[str]) -> None:
    append(restored, 5, "before")
    for point in points:
        with recovering(restored, SHOP, env={"REFOLD_CRASH_AT": point}) as process:
            assert process.wait(60) == -9, process.communicate()[1]
        refused(restored)
    with psycopg.connect(restored, autocommit=True) as conn:
        conn.execute("INSERT INTO refold.traces VALUES ('3', 1, 1, 1, gen_random_uuid(), 1)")
    # Where transaction ids have meanwhile passed all the old ones, what was begun is completed all the same.
    report = bring_back(restored)
    assert report.survey.decision.strategy == "rewrite"
    with psycopg.connect(restored, autocommit=True) as conn:
        # Another transaction may get this id.
        assert conn.execute("SELECT FROM refold.traces").rowcount == 0
    lawful(restored, LATE + LAG + 5)
    with acting(restored) as conn:
        assert [incident.resolved_by for incident in incidents(conn)] == ["refold recover"]


def test_a_first_load_is_begun_again(
    old: EmbeddedServer, fresh: Callable[[], str], dumps: Dumps, tmp_path: Any
) -> None:
    with psycopg.connect(old.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE loading TEMPLATE shop")
    source, url = old.url_of("loading"), fresh()
    (tmp_path / "actions.sql").write_text("SELECT action, count(*) AS events FROM events GROUP BY action")
    with deploying(source, tmp_path, env={"REFOLD_CRASH_AT": "load_indexes"}) as process:
        assert process.wait(60) == -9, process.communicate()[1]
    with acting(source) as conn:
        (loading,) = find(conn, "b.projection = 'actions'")
        # As with a long log, in several steps; the first is done.
        loaded = load_step(conn, Compiler(tmp_path).of(conn, loading), step=20)
        assert loaded is not None and (loaded.events, loaded.finished) == (20, False)
    restore(dump(source), url)
    report = bring_back(url)
    assert [build.projection for build in report.survey.of("loaded again")] == [loading.projection]
    lawful(url, LATE + LAG)
    with superuser(url) as conn:
        assert conn.execute("SELECT sum(events)::integer FROM metrics.actions").fetchone() == (LATE + LAG,)


def test_cursors_stand_still_under_a_worker_that_was_running(restored: str) -> None:
    """A trigger holds them, whatever the worker knows."""
    bring_back(restored)
    append(restored, 5, "more")
    with acting(restored) as conn, superuser(restored) as admin:
        check(conn)
        compiled = StepRunner(conn, Compiler(SHOP))
        builds = kept(conn)
        admin.execute("UPDATE refold.settings SET system_identifier = 7")
        for build in builds:
            if build.upstream_id is None:
                with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="cursors cannot move"):
                    compiled.step(build)
        assert kept(conn) == builds


def test_a_running_worker_ends_when_the_database_is_replaced(restored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold.service.worker.loop.SEGMENTS_EVERY", 0.1)
    bring_back(restored)

    def replace(build: Any, events: int) -> None:
        with superuser(restored) as admin:
            admin.execute("UPDATE refold.settings SET system_identifier = 7")

    append(restored, 5, "more")
    late = time.monotonic() + 30
    with pytest.raises(ForeignCluster):
        Worker(restored, SHOP, poll=0.05, on_page=replace, stopped=lambda: time.monotonic() > late).run()


def test_dead_letters_follow_their_events(restored: str, logs: tuple[bytes, bytes]) -> None:
    """One whose event is gone must not keep it out when it comes again."""
    with acting(restored) as conn:
        (build,) = find(conn, "b.state = 'live' AND b.projection = 'purchases'")
        conn.execute("UPDATE refold.builds SET dead_letters = 2 WHERE build_id = %s", (build.build_id,))
        conn.execute(
            "INSERT INTO refold.dead_letters (build_id, event_id, txid, position, ordinal, error)"
            " SELECT %s, event_id, txid, position, 0, 'x' FROM refold.events WHERE event_id IN ('e2', 'e62')",
            (build.build_id,),
        )
    replace_log(restored, logs[0])
    report = bring_back(restored)
    assert report.dead_letters == {build.table_name: ["e62"]}
    with acting(restored) as conn:
        assert conn.execute("SELECT event_id, txid::text::integer FROM refold.dead_letters").fetchall() == [
            ("e2", RESTORED)
        ]
        assert find(conn, "b.build_id = %s", build.build_id)[0].dead_letters == 1
    # The event that waits is missing, and known to be; the other is applied like any event when it turns up.
    replace_log(restored, logs[1])
    bring_back(restored)
    drain(restored)
    assert [row[:2] for row in wrong(restored)["purchases"]] == [("missing", "e2")]


def test_builds_of_every_kind_can_be_loaded_anew(restored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nothing helps: healed, and different still."""
    monkeypatch.setattr("refold.engine.recovery.recovery.ROUNDS", 0)
    report = bring_back(restored)
    assert [build for build, _ in report.unloaded] == report.survey.of("audited")
    assert {build.upkeep for build, _ in report.unloaded} == {"facts", "merge", "members", "recompute", "transform"}
    with acting(restored) as conn:
        # Else audits took the rows that are yet to be loaded for rows that somebody deleted.
        assert conn.execute("SELECT count(*) FROM refold.checksums").fetchone() == (0,)
    lawful(restored, LATE + LAG)


@pytest.mark.parametrize("projection", ["purchases", "graded"])
def test_an_event_that_fails_keeps_nobody_from_being_recovered(restored: str, projection: str) -> None:
    """It came after the backup, or was unread in it. The audit cannot set it aside; a first load can."""
    with Log(restored) as log:
        log.append([{"id": "poison", "user_id": "u", "action": "purchase", "ts": 0, "metadata": {"amount": "free"}}])
    report = bring_back(restored)
    assert projection in [build.projection for build, _ in report.unloaded]
    assert report.drift.audited == ["paths"], "which reads no amount"
    drain(restored)
    with acting(restored) as conn:
        assert {build.state for build in kept(conn)} == {"live"}
        assert all(build.loaded for build in kept(conn))
        letters = conn.execute("SELECT DISTINCT event_id FROM refold.dead_letters").fetchall()
        assert letters == [("poison",)]
        shown = conn.execute(f"SELECT count(*) FROM metrics.{projection}".encode()).fetchone()
        good = "SELECT count(*) FROM refold.events WHERE event_id <> 'poison'"
        if projection == "purchases":
            good += " AND action = 'purchase'"
        assert shown == conn.execute(good.encode()).fetchone()


def test_who_may_not_act_as_the_owner_is_told(restored: str) -> None:
    with superuser(restored) as admin:
        admin.execute("CREATE ROLE operator LOGIN")
        admin.execute("GRANT refold_worker TO operator")
        try:
            with (
                connect(restored.replace("postgres@", "operator@"), "refold_worker", autocommit=True) as conn,
                pytest.raises(DatabaseError, match="operator may not act as refold_owner"),
            ):
                recover(conn, SHOP)
        finally:
            admin.execute("DROP OWNED BY operator; DROP ROLE operator")
    refused(restored)


def test_without_a_transforms_code_nothing_is_begun(restored: str, tmp_path: Any) -> None:
    with acting(restored) as conn, pytest.raises(BuildError, match="the transform graded is not in"):
        recover(conn, tmp_path)
    with acting(restored) as conn:
        assert incidents(conn) == []
        assert survey(conn, SHOP).cluster.recorded not in (0, survey(conn, SHOP).cluster.actual)


def test_a_recovery_is_refused_while_another_command_holds_the_lock(restored: str) -> None:
    with acting(restored) as conn, superuser(restored) as other:
        with one_at_a_time(other), pytest.raises(BuildError, match="only one session may deploy or recover at a time"):
            recover(conn, SHOP)
        recover(conn, SHOP)
    lawful(restored, LATE + LAG)


def test_the_bound_is_below_every_transaction_of_a_cluster(new: EmbeddedServer) -> None:
    assert RESTORED < BOUND < 700 < next_txid(new)


def test_the_log_is_guarded_again_afterwards(restored: str) -> None:
    bring_back(restored)
    with connect(restored, "refold_owner", autocommit=True) as conn:
        segments = conn.execute("SELECT segment::text FROM refold.segments").fetchall()
        for table in ("refold.events", "refold.event_ids", *(name for (name,) in segments)):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="append-only"):
                conn.execute(f"DELETE FROM {table}".encode())
        assert conn.execute(
            "SELECT DISTINCT tgenabled FROM pg_trigger WHERE tgname = ANY (%s)", (list(GUARDS),)
        ).fetchall() == [("A",)]


@pytest.mark.slow
def test_a_restored_log_with_another_log_behind_it(restored: str, dumps: Dumps) -> None:
    """A second restore, of what was recovered once."""
    bring_back(restored)
    append(restored, 5, "between")
    drain(restored)
    with cluster() as server:
        url = server.url
        with superuser(url) as admin:
            admin.execute(f"DROP SCHEMA {SCHEMAS} CASCADE".encode())
        restore(dump(restored), url)
        refused(url)
        bring_back(url)
        with Log(url) as log:
            log.append([{"id": "last", "action": "view", "ts": 0}])
        lawful(url, LATE + LAG + 6)
