"""A person in purged segments, whose events the archive alone has."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from refold import SourceEvent, append
from refold.cli.app import app
from refold.engine.archive import ownership
from refold.engine.archive.failures import Differs, NotOwner
from refold.engine.archive.ledger import rebuild
from refold.engine.archive.object_store import Content, open_store
from refold.engine.archive.sources import Unreadable
from refold.engine.archive.verify import verify
from refold.engine.archive.write import Writer
from refold.engine.deployment import deploy as deployment
from refold.engine.deployment.promote import go_live
from refold.engine.erasure import again
from refold.engine.erasure.purged import PLACE
from refold.engine.erasure.restored import apply
from refold.engine.erasure.run import erase, look
from refold.engine.reconcile.archived import reconcile_archived
from refold.engine.recovery import recover
from refold.engine.scrub.scrub import scrub
from refold.model.erasure import Person
from refold.model.projection.definition import load_directory
from refold.store import archives, erasures
from refold.store.archives import Archive
from refold.store.builds.build import find
from refold.store.builds.compiled import Compiler
from refold.store.erasures import Erasure, Mode
from refold.store.log import cold_ledger
from refold.store.log.cold_ledger import chill_step
from tests.conftest import ServerUnderTest
from tests.engine.erasure.test_crash import erasing, session_ends
from tests.engine.purge.conftest import ENDS, PROJECT, Connection, Yard, segments_of
from tests.support.backfilling import command
from tests.support.clusters import dump, restore
from tests.support.law import MONDAY, worker_connection
from tests.support.purging import let_go

pytestmark = pytest.mark.live("archived")

ZOE = "zoe's \"ö\\%"
MAIL = "zoe@example.com"
WHOM = Person(ZOE, (("email", MAIL),))


def of_zoe(prefix: str) -> list[SourceEvent]:
    """Two events of the person, the second with the person in its id, and one of another who names the person."""
    return [
        SourceEvent(id=f"{prefix}-1", user_id=ZOE, action="buy", ts=MONDAY, metadata={"n": 5, "email": MAIL}),
        SourceEvent(id=f"{prefix}-{ZOE}", user_id=ZOE, action="view", ts=MONDAY, metadata={"place": "zoe's"}),
        SourceEvent(id=f"{prefix}-3", user_id="u1", action="view", ts=MONDAY, metadata={"email": MAIL, "n": 2}),
        SourceEvent(id=f"{prefix}-4", user_id="u1", action="view", ts=MONDAY, metadata={"other": MAIL, "n": 3}),
    ]


@pytest.fixture
def purged(database_url: str, admin: Connection, tmp_path: Path) -> Iterator[Yard]:
    """Two of three full segments are purged, and the person is in the first and the second."""
    segments_of(admin, *ENDS)
    admin.execute("CREATE TABLE everything (LIKE refold.events)")
    location = str(tmp_path / "archive")
    with worker_connection(database_url) as worker:
        yard = Yard(database_url, admin, worker, location, open_store(location))
        for number, end in enumerate(ENDS[:3]):
            yard.append(20)
            if number < 2:
                yard.append(of_zoe(f"s{number}"))
            yard.skip_to(end)
        yard.append(20)
        yard.drain()
        yard.seal()
        for archive in yard.archive()[:2]:
            yard.fold(archive)
            let_go(admin, archive)
        yield yard


def test_a_look_counts_them(purged: Yard) -> None:
    found = look(purged.worker, WHOM)
    assert (found.events, found.mentions, found.rows[PLACE]) == (0, 0, 6)
    assert look(purged.worker, Person(ZOE)).rows[PLACE] == 4
    assert PLACE not in look(purged.worker, Person("zoe")).rows


def test_a_dry_run_says_where_they_are(purged: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFOLD_DATABASE_URL", purged.url)
    arguments = ["erase", ZOE, "--also", f"email={MAIL}", "--dry-run"]
    told = CliRunner().invoke(app, arguments).output
    assert told.startswith("purged segments, in the archive alone, have 6 events with this person; the log has none\n")
    purged.append(of_zoe("hot"))
    told = CliRunner().invoke(app, arguments).output
    assert "6 events with this person; the log has 2 events of this person, and 1 event of others\n" in told


def erased(yard: Yard, mode: Mode = "anonymise") -> Erasure:
    return erase(yard.worker, PROJECT, WHOM, mode=mode, keeps=["n"], reason="asked")


def forget(yard: Yard, mode: Mode) -> None:
    yard.forget(WHOM, mode, ["n"])


def users_of(yard: Yard) -> dict[str, list[str | None]]:
    """The user ids in each file of the store."""
    return {name: [row["user_id"] for row in rows] for name, rows in yard.files().items()}


def raw(yard: Yard) -> bool:
    """Whether a file of the store has the person in any column."""
    values = [value for rows in yard.files().values() for row in rows for value in row.values()]
    return any(ZOE in str(value) or f'"email": "{MAIL}"' in str(value) for value in values)


def whole(yard: Yard) -> None:
    """Metrics, archive, log and ledgers are right, and agree with each other."""
    assert yard.wrong() == {}
    yard.look()
    assert reconcile_archived(yard.worker, yard.compiler, dry_run=True, by="the test").clean
    assert yard.reconcile().clean
    found = verify(yard.worker, by="the test", deep=True)
    assert (found.wrong, found.strangers) == ([], {})
    assert scrub(yard.worker).damage == []
    assert yard.incidents() == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["anonymise", "delete"])
def test_files_metrics_and_ledgers(purged: Yard, mode: Mode) -> None:
    before = users_of(purged)
    assert raw(purged)
    done = erased(purged, mode)
    proof = done.evidence["proof"]
    # What an erasure changes on purpose is no drift that anybody is to be told of.
    assert purged.admin.execute("SELECT * FROM refold.incidents").fetchall() == []
    assert proof["places"][PLACE] == {"before": 6, "after": 0}
    assert (proof["events"], proof["mentions"]) == (4, 2)
    assert "token" not in done.evidence
    assert [one["removed"] for one in proof["archive"]] == [True, True]
    after = users_of(purged)
    assert len(after) == 3 and len(before.keys() & after.keys()) == 1
    assert not raw(purged)
    forget(purged, mode)
    whole(purged)
    assert PLACE not in look(purged.worker, WHOM).rows


def test_what_comes_again_is_a_duplicate(purged: Yard) -> None:
    while chill_step(purged.worker) is not None:
        pass
    erased(purged)
    while chill_step(purged.worker) is not None:
        pass
    answers = append(purged.admin, [*of_zoe("s0"), *of_zoe("s1")])
    assert [one.answer for one in answers] == ["duplicate"] * 8
    other = [SourceEvent(id="s0-1", user_id="u9", action="view", ts=MONDAY, metadata={})]
    assert [one.answer for one in append(purged.admin, other)] == ["duplicate"]
    assert cold_ledger.look(purged.worker).intact
    assert rebuild(purged.worker, None) > 0
    assert cold_ledger.look(purged.worker).intact


@pytest.mark.slow
def test_a_person_in_the_log_too(purged: Yard) -> None:
    purged.append(of_zoe("hot"))
    purged.drain()
    done = erased(purged)
    assert done.evidence["proof"]["events"] == 6
    tokens = {one for users in users_of(purged).values() for one in users if one and one.startswith("erased:")}
    rows = purged.admin.execute("SELECT DISTINCT user_id FROM refold.events WHERE user_id LIKE 'erased:%'").fetchall()
    assert {one for (one,) in rows} == tokens and len(tokens) == 1
    forget(purged, "anonymise")
    whole(purged)


def changed(folder: Path) -> Path:
    """The project with another definition of each kind, so that new builds load from the archive."""
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("daily", "by_user", "everything"):
        path = folder / f"{name}.sql"
        path.write_text(path.read_text().replace("count(*)", "max(version) AS newest, count(*)", 1))
    (folder / "seen.sql").write_text("SELECT user_id, action, max(version) AS newest FROM events GROUP BY 1, 2")
    path = folder / "clicks.sql"
    path.write_text(path.read_text().replace("event_id,", "event_id, version,", 1))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["anonymise", "delete"])
@pytest.mark.parametrize("candidates", ["of the same fingerprint", "of other definitions", "half loaded"])
def test_builds_that_are_not_live_yet(purged: Yard, mode: Mode, candidates: str, tmp_path: Path) -> None:
    """With the switch they would bring the person back."""
    folder = PROJECT if candidates == "of the same fingerprint" else changed(tmp_path / "project")
    definitions = load_directory(folder)
    if folder is PROJECT:
        names = [build.projection for build in purged.of_log()]
        deployment.rebuild(purged.worker, folder, names, lambda progress: None, cascade=True, promote=False)
    elif candidates == "of other definitions":
        deployment.deploy(purged.worker, folder, definitions, lambda progress: None, promote=False)
    else:
        known = {"REFOLD_CRASH_AT": "load_indexes"}
        killed = command(purged.url, "deploy", "--no-promote", "--projections", str(folder), env=known)
        assert killed.returncode == -signal.SIGKILL
    waiting = find(purged.worker, "b.state = 'building'")
    assert {build.loaded for build in waiting} == {candidates != "half loaded"}
    done = erase(purged.worker, folder, WHOM, mode=mode, keeps=["n"], reason="asked")
    assert {place["after"] for place in done.evidence["proof"]["places"].values()} == {0}
    assert tables_with(purged, "zoe") == []
    forget(purged, mode)
    if candidates == "half loaded":
        deployment.deploy(purged.worker, folder, definitions, lambda progress: None)
    else:
        go_live(purged.worker, folder, [build.projection for build in waiting], lambda progress: None)
    assert {build.state for build in find(purged.worker, "b.build_id = ANY (%s)", [b.build_id for b in waiting])} == {
        "live"
    }
    purged.definitions, purged.compiler = definitions, Compiler(folder)
    assert tables_with(purged, "zoe") == []
    whole(purged)


def tables_with(yard: Yard, sign: str) -> list[str]:
    """The tables of metrics, whatever their state, in which a row holds a text."""
    tables = yard.admin.execute(
        "SELECT c.oid::regclass::text FROM pg_class AS c WHERE relnamespace = 'refold_builds'::regnamespace"
        " AND relkind = 'r' ORDER BY 1"
    ).fetchall()
    query = "SELECT FROM {} AS row WHERE strpos(row::text, %s) > 0 LIMIT 1"
    return [table for (table,) in tables if yard.admin.execute(query.format(table).encode(), (sign,)).rowcount]


POINTS_OF_PURGED = [
    "erasure_begun", "erasure_purged_sent", "erasure_purged", "audit_archived", "erasure_rebased", "erasure_places",
    "erasure_removed", "erasure_archived",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS_OF_PURGED)
def test_killed_anywhere_it_is_finished(purged: Yard, point: str) -> None:
    more = ("--also", f"email={MAIL}", "--keep", "n", "--projections", str(PROJECT))
    killed = erasing(purged.url, ZOE, *more, at=point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    session_ends(purged.admin)
    done = erasing(purged.url, ZOE, *more)
    assert done.returncode == 0, done.stderr.decode()
    assert not raw(purged)
    forget(purged, "anonymise")
    whole(purged)


@pytest.mark.slow
def test_what_was_healed_in_builds_that_are_dropped_meanwhile_is_the_erasure_s(purged: Yard) -> None:
    """Or it would be told of as drift, which nobody has made."""
    killed = erasing(purged.url, ZOE, "--also", f"email={MAIL}", "--projections", str(PROJECT), at="erasure_rebased")
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    session_ends(purged.admin)
    healed = purged.admin.execute("SELECT DISTINCT build_id FROM refold.repairs").fetchall()
    assert healed
    purged.admin.execute("UPDATE refold.builds SET state = 'dropped' WHERE build_id = ANY (%s)", ([healed[0][0]],))
    erased(purged)
    assert purged.admin.execute("SELECT count(*) FROM refold.repairs").fetchone() == (0,)


@pytest.mark.slow
def test_two_at_once(purged: Yard) -> None:
    command = [sys.executable, "-m", "refold", "erase", "--user-file", "-", "--yes", "--reason", "asked"]
    both = [
        subprocess.Popen(
            [*command, "--projections", str(PROJECT)],
            env={**os.environ, "REFOLD_DATABASE_URL": purged.url}, stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    told = [one.communicate(user.encode(), timeout=120)[1] for one, user in zip(both, (ZOE, "u3"), strict=True)]
    assert [one.returncode for one in both] == [0, 0], told
    users = {user for found in users_of(purged).values() for user in found}
    assert not users & {ZOE, "u3"}
    purged.look()
    assert reconcile_archived(purged.worker, purged.compiler, dry_run=True, by="the test").clean
    assert verify(purged.worker, by="the test", deep=True).wrong == []


@pytest.mark.slow
def test_a_store_that_lies(purged: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    send = Writer.send

    def lying(self: Writer, archive: Archive, spool: BinaryIO) -> Content:
        sent = send(self, archive, spool)
        file = Path(purged.location, archive.location)
        file.write_bytes(file.read_bytes()[:-9] + b"not these")
        return sent

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "send", lying)
        with pytest.raises(Differs, match="not what was written"):
            erased(purged)
    assert [one.generation for one in archives.find(purged.worker, "a.state = 'purged'")] == [1, 1]
    purged.look()
    assert reconcile_archived(purged.worker, purged.compiler, dry_run=True, by="the test").clean
    erased(purged)
    forget(purged, "anonymise")
    whole(purged)


def test_a_copy_leaves_the_files_to_their_owner(purged: Yard) -> None:
    purged.store.replace(ownership.MARKER, ownership._marker(purged.worker, "another", "turn"))
    with pytest.raises(NotOwner):
        erased(purged)
    assert erasures.find(purged.worker) == []


def record_of(yard: Yard, mode: Mode) -> dict[str, Any]:
    """The erasure of Zoe, as another database exports it that has the same key."""
    ids = [(f"s{number}-{what}", what == "3") for number in range(2) for what in ("1", ZOE, "3")]
    record = {
        "name": str(uuid4()), "subject": erasures.mac(yard.worker, ZOE).hex(), "mode": mode, "fields": ["email"],
        "macs": [erasures.mac(yard.worker, MAIL).hex()], "keeps": ["n"], "reason": "asked", "requested_by": "x",
        "requested_at": "2026-03-02T10:00:00Z",
        "events": [
            [erasures.mac(yard.worker, one).hex(), mention, ZOE in one]
            for one, mention in [*ids, ("never here", False)]
        ],
    }  # fmt: skip
    return {**again.export(yard.worker), "erasures": [record]}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["anonymise", "delete"])
def test_it_is_done_again_in_files_too(purged: Yard, mode: Mode) -> None:
    while chill_step(purged.worker) is not None:
        pass
    content = record_of(purged, mode)
    [done] = apply(purged.worker, purged.compiler, content)
    assert done.evidence["proof"]["places"][PLACE] == {"before": 6, "after": 0}
    assert not raw(purged)
    forget(purged, mode)
    whole(purged)
    retried = [*of_zoe("s0"), SourceEvent(id="never here", user_id="u9", action="view", ts=MONDAY, metadata={})]
    assert [one.answer for one in append(purged.admin, retried)] == ["duplicate"] * 5
    assert apply(purged.worker, purged.compiler, content) == []


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS_OF_PURGED[1:])
def test_killed_anywhere_it_is_done_again(purged: Yard, tmp_path: Path, point: str) -> None:
    file = tmp_path / "erasures.json"
    file.write_text(json.dumps(record_of(purged, "anonymise")))
    command = [sys.executable, "-m", "refold", "erase", "apply", str(file), "--projections", str(PROJECT)]
    environment = {**os.environ, "REFOLD_DATABASE_URL": purged.url}
    killed = subprocess.run(command, env={**environment, "REFOLD_CRASH_AT": point}, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    session_ends(purged.admin)
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert not raw(purged)
    forget(purged, "anonymise")
    whole(purged)


def test_a_copy_does_not_do_it_again_in_files(purged: Yard) -> None:
    content = record_of(purged, "delete")
    purged.store.replace(ownership.MARKER, ownership._marker(purged.worker, "another", "turn"))
    with pytest.raises(NotOwner):
        apply(purged.worker, purged.compiler, content)
    assert erasures.find(purged.worker) == []


@pytest.mark.slow
@pytest.mark.parametrize("point", ["", "recover_ledger"], ids=["", "killed"])
@pytest.mark.parametrize("mode", ["anonymise", "delete"])
def test_a_backup_from_before_has_it_done_again(purged: Yard, server: ServerUnderTest, mode: Mode, point: str) -> None:
    purged.append(of_zoe("hot"))
    purged.drain()
    copied = dump(purged.url)
    erased(purged, mode)
    name = f"{purged.admin.info.dbname}_restored"
    purged.admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = server.url_of(name)
    restore(copied, url)
    with closing(psycopg.connect(url, autocommit=True)) as admin, worker_connection(url) as worker:
        backup = Yard(url, admin, worker, purged.location, purged.store)
        if point:
            command = [sys.executable, "-m", "refold", "recover", "--yes", "--projections", str(PROJECT)]
            environment = {**os.environ, "REFOLD_DATABASE_URL": url, "REFOLD_CRASH_AT": point}
            killed = subprocess.run(command, env=environment, capture_output=True, timeout=120)
            assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        report = recover(worker, PROJECT)
        if not point:
            assert len(report.manifest.taken) == 2
        assert (report.manifest.lost, report.manifest.failed) == ([], None)
        assert (report.erased, report.not_erased) == (1, None)
        users = admin.execute("SELECT DISTINCT user_id FROM refold.events WHERE user_id LIKE 'erased:%'").fetchall()
        assert len({user for found in users_of(backup).values() for user in found if user} & {u for (u,) in users}) == (
            mode == "anonymise"
        )
        forget(backup, mode)
        whole(backup)
        other = SourceEvent(id="s0-1", user_id="u9", action="view", ts=MONDAY, metadata={})
        assert [one.answer for one in append(admin, [other, *of_zoe("s1"), *of_zoe("hot")])] == ["duplicate"] * 9
    purged.admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_purge_waits_for_an_erasure_in_the_log(purged: Yard) -> None:
    killed = erasing(purged.url, ZOE, "--projections", str(PROJECT), at="erasure_begun")
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    stopped = purged.purge().stopped_at
    assert stopped is not None and [one.reason for one in stopped.obstacles if "erasure" in one.reason]


def test_a_missing_file_is_no_absence(purged: Yard) -> None:
    file = archives.find(purged.worker, "a.state = 'purged'")[1]
    Path(purged.location, file.location).unlink()
    with pytest.raises(Unreadable):
        look(purged.worker, Person("nobody"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["anonymise", "delete"])
def test_what_is_folded_ahead_of_a_purge(purged: Yard, mode: Mode) -> None:
    """And nothing that was purged is the person's."""
    whom = Person("yves")
    purged.append([one.model_copy(update={"id": f"y-{one.id}", "user_id": "yves"}) for one in of_zoe("s3")])
    purged.skip_to(ENDS[3])
    purged.drain()
    purged.seal()
    third, fourth = purged.archive()
    purged.fold(third)
    let_go(purged.admin, third)
    purged.fold(fourth)
    done = erase(purged.worker, PROJECT, whom, mode=mode, keeps=[], reason="asked")
    assert not any(done.evidence["after"].values())
    purged.forget(whom, mode)
    purged.drain()
    purged.seal()
    assert len(purged.purge().segments) == 1
    whole(purged)
