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
    # Until it is written again, it does not become right by another look.
    again = refold("archive", "verify", exits=1)
    assert "no file that counts" in again and "is right" not in again
    assert "does not have" in refold("archive", "status")
    refold("archive", "run", "--now")
    assert "the archive is right: 3 files" in refold("archive", "verify")
    assert "does not have" not in refold("archive", "status")
    done = shop.admin.execute("SELECT DISTINCT command FROM refold.actions ORDER BY 1").fetchall()
    assert done == [(f"archive {name}",) for name in ("claim", "restore", "run", "verify")]


def test_a_store_that_cannot_be_written_to_is_not_claimed(shop: Shop, refold) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    wrong = f"{shop.location}/file"
    Path(shop.location).mkdir()
    Path(wrong).write_text("no folder")
    refold("archive", "claim", wrong, exits=2)
    assert "there is no archive" in refold("archive", "status")
    refold("archive", "claim", shop.location)
    refold("archive", "run", "--now")
    refold("archive", "claim", wrong, exits=2)
    told = json.loads(refold("archive", "status", "--json"))
    assert (told["archive"]["location"], told["archive"]["store"], told["archive"]["verified"]) == (
        shop.location,
        None,
        3,
    )
    assert "the archive is right: 3 files" in refold("archive", "verify")


def test_status_says_whose_the_store_is(shop: Shop, refold) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    refold("archive", "claim", shop.location)
    assert "owned by this database" in refold("archive", "status")
    marker = Path(shop.location) / "_refold_archive.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"owner": "f" * 16, "database": "other"}))
    assert "belongs to other: this database only reads it" in refold("archive", "status")
    assert "owned" not in refold("archive", "status").splitlines()[0]


def test_a_dry_run_refuses_what_the_claim_would(shop: Shop, refold, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    refold("archive", "claim", shop.location)
    refold("archive", "run", "--now")
    shop.admin.execute("UPDATE refold.archives SET state = 'purged', purged_at = now() WHERE lower_position = 1")
    for options in (("--dry-run",), ("--yes",)):
        assert "are not in this store" in refold("archive", "claim", str(tmp_path / "new"), *options, exits=2)


def test_a_store_of_another_database_is_asked_about(shop: Shop, refold) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    refold("archive", "claim", shop.location)
    shop.admin.execute("UPDATE refold.archive_store SET owner = 'another'")
    assert "stdin is not a terminal" in refold("archive", "claim", exits=2)
    assert "only reads it" in refold("archive", "claim", "--yes")
