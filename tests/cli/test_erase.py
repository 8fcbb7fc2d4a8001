"""`refold erase`, as a person uses it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from refold.cli import confirm
from refold.cli.app import app
from refold.cli.erase import NOBODY
from tests.engine.erasure.conftest import ALICE, MAIL, Shop, shop, worker  # noqa: F401
from tests.engine.erasure.test_crash import erasing
from tests.support.live import SHOP

pytestmark = pytest.mark.live("shop")

NAMED = ("--also", f"email={MAIL}", "--projections", str(SHOP))


@pytest.fixture
def refold(shop: Shop, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]  # noqa: F811
    monkeypatch.setenv("REFOLD_DATABASE_URL", shop.url)

    def run(*arguments: str, exits: int = 0, stdin: str | None = None) -> str:
        done = CliRunner().invoke(app, ["erase", *arguments], input=stdin)
        assert done.exit_code == exits, done.output
        return done.output

    return run


def test_from_a_dry_run_to_the_proof(shop: Shop, refold: Any, tmp_path: Path) -> None:  # noqa: F811
    assert "nobody was erased" in refold("list")
    told = refold(ALICE, *NAMED, "--dry-run")
    assert "3 events of this person, and 1 event of others" in told
    assert json.loads(refold("person", ALICE, *NAMED, "--dry-run", "--json"))["events"] == 3
    done = refold(ALICE, *NAMED, "--reason", f"{ALICE} asked", "--yes")
    assert "erased: 3 events of the person, 1 event of others; daily, grade_paths" in done
    assert "write-ahead log" in done
    assert shop.holding(ALICE, MAIL) == []
    [listed] = json.loads(refold("list", "--json"))
    assert (listed["state"], listed["reason"], listed["mode"]) == ("proved", "erased asked", "anonymise")
    proof = json.loads(refold("show", "1"))
    assert (proof["events"], proof["reason"], proof["sha256"] in done) == (3, "erased asked", True)
    (tmp_path / "erasures.json").write_text(refold("export"))
    assert "knows all of them" in refold("apply", str(tmp_path / "erasures.json"))
    actions = shop.admin.execute("SELECT command, arguments::text FROM refold.actions ORDER BY 1").fetchall()
    assert [command for command, _ in actions] == ["erase apply", "erase person"]
    assert not any(ALICE in text or MAIL in text for _, text in actions)


def test_the_name_comes_from_a_file_or_stdin(shop: Shop, refold: Any, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "name").write_text(f"{ALICE}\n")
    for source, stdin in ((str(tmp_path / "name"), None), ("-", f"{ALICE}\r\n")):
        found = json.loads(refold("--user-file", source, "--dry-run", "--json", stdin=stdin))
        assert found["events"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([ALICE], "--reason is missing"),
        ([ALICE, "--reason", "r"], "stdin is not a terminal"),
        ([ALICE, "--mode", "delet", "--dry-run"], "Did you mean delete"),
        ([ALICE, "--also", MAIL, "--dry-run"], "FIELD=VALUE"),
        (["", "--dry-run"], "the user id is empty"),
        (["--dry-run"], "give one user id"),
        ([ALICE, "--user-file", "-", "--dry-run"], "give one user id"),
        (["--user-file", "/nowhere", "--dry-run"], "cannot be read"),
        (["show", "7"], "there is no erasure 7"),
        (["apply"], "no record of an erasure"),
        (["apply", __file__], "no export of erasures"),
    ],
)
def test_mistakes(refold: Any, arguments: list[str], said: str) -> None:
    told = refold(*arguments, exits=2)
    assert said in told
    assert ALICE not in told and MAIL not in told


def test_what_is_left_is_said(shop: Shop, refold: Any) -> None:  # noqa: F811
    """A metric in which a person has put the name of another is not refold's to change: the proof counts it."""
    refold(ALICE, *NAMED, "--reason", "asked", "--yes")
    shop.admin.execute(
        "UPDATE refold.erasures SET evidence = jsonb_set(evidence, '{after,refold_builds.x}', '2'::jsonb)"
    )
    refold("show", "1", exits=1)
    assert "incomplete" in refold("list")


def test_nobody_has_this_id(shop: Shop, refold: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A typing error must not look like an erasure."""
    wrong = (f"{ALICE} ", "--projections", str(SHOP), "--reason", "asked")
    assert refold(*wrong[:3], "--dry-run").startswith(NOBODY)

    with monkeypatch.context() as patched:
        patched.setattr(confirm, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
        asked: list[str] = []
        patched.setattr(confirm.typer, "confirm", lambda question, err: asked.extend([question]))  # type: ignore[attr-defined]
        told = refold(*wrong, exits=1)
    assert told.startswith(NOBODY) and "Is the id right" in asked[0]
    assert "nobody was erased" in refold("list")
    done = refold(*wrong, "--yes")
    assert done.startswith(NOBODY) and "erased:" not in done
    assert NOBODY in refold(*wrong, "--yes", "--json")
    assert NOBODY not in refold(ALICE, *NAMED, "--reason", "asked", "--yes")


@pytest.mark.parametrize(
    ("point", "said"),
    [("erasure_begun", "the log has the person still"), ("erasure_portion:2", "go on with the archive")],
)
def test_the_status_tells_of_one_that_is_not_finished(shop: Shop, refold: Any, point: str, said: str) -> None:  # noqa: F811
    killed = erasing(shop.url, ALICE, *NAMED, at=point)
    assert killed.returncode == -signal.SIGKILL
    status = CliRunner().invoke(app, ["status"]).output
    assert "erasure   1 is not finished" in status
    assert ALICE not in status
    assert said in " ".join(status.split())
    refold(ALICE, *NAMED, "--reason", "asked", "--yes")
    assert "erasure " not in CliRunner().invoke(app, ["status"]).output
