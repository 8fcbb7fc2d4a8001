"""`refold archive purge`, as a person uses it, and what other commands say afterwards."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from refold.cli.app import app
from tests.engine.purge.conftest import ENDS, Yard, yard  # noqa: F401

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
    assert "not all of its events are counted" in refold("archive", "purge", "--yes", *later, exits=1)
    yard.count()
    assert "purged 3 segments: 120 events" in refold("archive", "purge", "--yes", *later)
    assert "3 purged from the log" in refold("archive", "status")
    assert "purged from the log, and metrics count it; the archive has it in log/" in refold("where", "r0-1")
    assert "and is not missing from it" in refold("archive", "restore", "events_000000000000001", exits=2)
    assert "the archive is right: 3 files" in refold("archive", "verify")
    assert "the log is intact" in refold("scrub")
    done = yard.admin.execute(
        "SELECT outcome FROM refold.actions WHERE command = 'archive purge' ORDER BY action_id"
    ).fetchall()
    assert done == [("failed: InputError",), ("failed: InputError",), ("done",), ("done",)]
