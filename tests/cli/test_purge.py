"""`refold archive purge`, as a person uses it, and what other commands say afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from refold.cli.app import app
from tests.engine.purge.conftest import ENDS, PROJECT, SLICE, Yard, yard  # noqa: F401
from tests.support.purging import let_go

pytestmark = pytest.mark.live("archived")


@pytest.fixture
def refold(yard: Yard, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]  # noqa: F811
    monkeypatch.setenv("REFOLD_DATABASE_URL", yard.url)

    def run(*arguments: str, exits: int = 0) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == exits, done.output
        return done.output

    return run


def test_from_the_dry_run_to_the_file(yard: Yard, refold) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    later = ("--before", "2100-01-01")
    assert "the log keeps all segments" in refold("archive", "purge", exits=2)
    assert "no segment is old enough" in refold("archive", "purge", "--dry-run", "--before", "2020-01-01")
    told = json.loads(refold("archive", "purge", "--dry-run", "--json", *later))
    first, second, _ = told["segments"]
    assert (first["due"]["lower"], first["due"]["upper"], first["due"]["events"]) == (1, ENDS[0], 40)
    assert any("by_user has folded 0 %" in one["reason"] for one in first["obstacles"])
    assert "an earlier segment is still in the log" in [one["reason"] for one in second["obstacles"]]
    assert "stdin is not a terminal" in refold("archive", "purge", *later, exits=2)
    yard.admin.execute("UPDATE refold.archives SET state = 'written' WHERE lower_position = 1")
    assert "the archive has no verified file of it" in refold("archive", "purge", "--yes", *later, exits=1)
    yard.admin.execute("UPDATE refold.archives SET state = 'verified' WHERE lower_position = 1")
    assert "purged 3 segments: 120 events" in refold("archive", "purge", "--yes", *later)
    told = "all 3 sealed segments archived and purged"
    assert told in refold("archive", "status") and told in refold("status") and told in refold("doctor", exits=1)
    assert "purged from the log, and metrics count it; the archive has it in log/" in refold("where", "r0-1")
    assert "and is not missing from it" in refold("archive", "restore", "events_000000000000001", exits=2)
    assert "the archive is right: 3 files" in refold("archive", "verify")
    assert "the log is intact: 40 events in " in refold("scrub")
    assert "and the checksums of 120 purged events" in " ".join(refold("scrub").split())
    done = yard.admin.execute(
        "SELECT outcome FROM refold.actions WHERE command = 'archive purge' ORDER BY action_id"
    ).fetchall()
    assert done == [("failed: InputError",), ("failed: InputError",), ("done",), ("done",)]


def test_a_deploy_and_a_diff_say_how_far_the_log_goes(yard: Yard, refold, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    yard.purge()
    folder = tmp_path / "project"
    shutil.copytree(PROJECT, folder)
    (folder / "rare.sql").write_text("SELECT user_id, count(*) AS n FROM events WHERE action = 'viwe' GROUP BY user_id")
    planned = refold("deploy", "--dry-run", "--projections", str(folder))
    assert "no event that is left in the log has the action 'viwe'. Did you mean 'view'?" in planned
    (folder / "rare.sql").unlink()
    for name in ("by_user", "clicks"):
        text = (folder / f"{name}.sql").read_text()
        (folder / f"{name}.sql").write_text(text.replace("action <> 'noise'", "action = 'buy'"))
    refold("deploy", "--no-promote", "--projections", str(folder))
    told = refold("diff", "by_user", "--events", "--yes", "--projections", str(folder), exits=1)
    assert "of the log, beside those that were purged" in told
    found = json.loads(refold("diff", "by_user", "--events", "--yes", "--json", "--projections", str(folder), exits=1))
    assert all(one["events"]["purged"] for one in found["samples"])
    told = refold("diff", "clicks", "--events", "--yes", "--projections", str(folder), exits=1)
    assert "one that is not in the log any more" in told
    assert "purged" not in told and "lost" not in told


LATER = ("--before", "2100-01-01")


@pytest.mark.parametrize("segments", [1, 2], ids=["inside a slice", "between slices"])
def test_a_segment_that_is_lost_above_the_border(yard: Yard, refold, segments: int) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    for archive in yard.archive()[:segments]:
        yard.fold(archive)
        let_go(yard.admin, archive)
    lost = f"refold.events_{ENDS[segments - 1]:015}"
    yard.admin.execute(f"DROP TABLE {lost}".encode())
    told = refold("scrub", exits=1)
    assert f"`refold archive restore {lost}`" in told and "refold.events_000000000000001" not in told
    refold("archive", "restore", lost)
    assert "the log is intact" in refold("scrub")


def test_what_is_asked_and_what_is_in_the_way(yard: Yard, refold, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    assert "--before yesterday: not a date or time" in refold("archive", "purge", "--before", "yesterday", exits=2)
    third = "UPDATE refold.archives SET state = %s WHERE lower_position = %s"
    yard.admin.execute(third, ("written", ENDS[1]))
    told = refold("archive", "purge", "--dry-run", *LATER)
    assert "Workers archive it: `refold archive status`" in told and "once an archive is claimed" not in told
    assert "2 of 3 segments, and others if" in refold("archive", "purge", *LATER, exits=2)
    yard.admin.execute(third, ("verified", ENDS[1]))
    assert "3 segments would leave the log" in refold("archive", "purge", *LATER, exits=2)


def test_what_was_done_before_an_error(yard: Yard, refold) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    Path(yard.location, yard.archive()[1].location).unlink()
    told = refold("archive", "purge", "--yes", *LATER, exits=2)
    assert "purged 1 segment: 40 events" in told and "is gone" in told
    assert yard.admin.execute("SELECT refold.log_floor()").fetchone() == (ENDS[0],)


def test_a_segment_whose_end_is_not_drawn_is_not_sealed(yard: Yard, refold) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    """The first slice of it is."""
    segments_of_ends(yard)
    yard.skip_to(9 * SLICE - 5)
    yard.append(3)
    yard.drain()
    yard.seal()
    told = json.loads(refold("archive", "purge", "--dry-run", "--json", *LATER))
    assert max(one["due"]["lower"] for one in told["segments"]) < 7 * SLICE
    assert not any("not sealed" in each["reason"] for one in told["segments"] for each in one["obstacles"])


def segments_of_ends(yard: Yard) -> None:  # noqa: F811
    """Let the log end in a segment of three slices."""
    for segment, lower in yard.admin.execute(
        "SELECT segment::text, lower_position FROM refold.segments WHERE lower_position >= %s", (ENDS[4],)
    ).fetchall():
        assert lower >= ENDS[4]
        yard.admin.execute(f"DROP TABLE {segment}".encode())
    with yard.admin.transaction():
        yard.admin.execute("SET LOCAL ROLE refold_owner")
        yard.admin.execute("SELECT refold.create_segment(%s, %s)", (ENDS[4], 7 * SLICE))
        yard.admin.execute("SELECT refold.create_segment(%s, %s)", (7 * SLICE, 10 * SLICE))
