"""`refold archive`, as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from refold.cli.app import app
from tests.engine.archive.conftest import SLICE, Shop, shop  # noqa: F401
from tests.support.tampering import tamper

SECOND = f"refold.events_{SLICE:015}"


@pytest.fixture
def refold(shop: Shop, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]  # noqa: F811
    monkeypatch.setenv("REFOLD_DATABASE_URL", shop.url)

    def run(*arguments: str, exits: int = 0) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == exits, done.output
        return done.output

    return run


def test_from_claim_to_restore(shop: Shop, refold) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    assert "claim" in refold("archive", "status")
    assert "no archive is set" in refold("archive", "run", exits=2)
    assert "would be claimed" in refold("archive", "claim", shop.location, "--dry-run")
    assert not Path(shop.location).exists()
    assert "belongs to this database now" in refold("archive", "claim", shop.location)
    assert "already" in refold("archive", "claim")
    assert "nothing to archive" in refold("archive", "run")
    assert "archived 3 segments: 19 events" in refold("archive", "run", "--now")
    told = json.loads(refold("archive", "status", "--json"))
    assert (told["archive"]["verified"], told["archive"]["waiting"], len(told["files"])) == (3, 0, 3)
    assert "archive   3 of 3 sealed segments" in refold("status")
    assert "the archive is right: 3 files" in refold("archive", "verify", "--deep")
    tamper(shop.admin, "DELETE FROM refold.events WHERE event_id = 's1-2'")
    scrubbed = refold("scrub", exits=1)
    assert f"`refold archive restore {SECOND}`" in scrubbed
    assert json.loads(refold("scrub", "--json", exits=1))["archived"] == [SECOND]
    assert "would be restored" in refold("archive", "restore", SECOND, "--dry-run")
    assert "Did you mean" in refold("archive", "restore", SECOND[:-1] + "5", exits=2)
    assert "5 events restored in 1 slice" in refold("archive", "restore", SECOND.removeprefix("refold."))
    assert "intact" in refold("archive", "restore", SECOND)
    (Path(shop.location) / shop.manifest()[0].location).unlink()
    assert "the store has no such file" in refold("archive", "verify", exits=1)
    done = shop.admin.execute("SELECT DISTINCT command FROM refold.actions ORDER BY 1").fetchall()
    assert done == [(f"archive {name}",) for name in ("claim", "restore", "run", "verify")]


def test_a_store_of_another_database_is_asked_about(shop: Shop, refold) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    refold("archive", "claim", shop.location)
    shop.admin.execute("UPDATE refold.archive_store SET owner = 'another'")
    assert "stdin is not a terminal" in refold("archive", "claim", exits=2)
    assert "only reads it" in refold("archive", "claim", "--yes")
