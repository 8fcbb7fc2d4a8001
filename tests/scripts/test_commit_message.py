"""The check of a commit's subject."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.commit_message import BESIDE_ROOMS, areas, complaints
from scripts.rooms import ROOT

KNOWN = ["engine", "store", "docs", "release"]


@pytest.mark.parametrize(
    "message",
    [
        "store: refuse a database of an unknown version",
        "docs: show the demo's output\n\nIt was said and never shown.\n",
        "# On branch main\nengine: pass over retired builds\n",
        "engine: process pages of one key together",
        "engine: feed a healed row to its readers",
        "release: " + "x" * 63,
        "Merge branch 'main'",
        'Revert "store: refuse a database of an unknown version"',
        "fixup! store: refuse",
    ],
)
def test_good_subjects(message: str) -> None:
    assert complaints(message, KNOWN) == []


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("", "is empty"),
        ("# only what git wrote\n", "is empty"),
        ("Refuse an unknown version", "must read `area: imperative summary`"),
        ("store:refuse an unknown version", "must read `area: imperative summary`"),
        (": refuse an unknown version", "must read `area: imperative summary`"),
        ("store:  ", "must read"),
        ("stroe: refuse an unknown version", "'stroe' is no area; did you mean store?"),
        ("kitchen: refuse an unknown version", "'kitchen' is no area; known are engine, store, docs, release."),
        ("release: " + "x" * 64, "has 73 characters; at most 72 fit"),
        ("store: refuse an unknown version.", "without a full stop"),
        ("store: refuses an unknown version", "'refuses' does not look imperative"),
        ("store: refused an unknown version", "'refused' does not look imperative"),
        ("store: refusing an unknown version", "'refusing' does not look imperative"),
    ],
)
def test_bad_subjects(message: str, complaint: str) -> None:
    (found,) = complaints(message, KNOWN)
    assert complaint in found


def test_all_complaints_are_told_at_once() -> None:
    assert len(complaints("stroe: refused " + "x" * 70 + ".", KNOWN)) == 4


def test_every_wing_is_an_area() -> None:
    wings = {path.name for path in (ROOT / "core/refold").iterdir() if (path / "__init__.py").exists()}
    assert set(areas()) == wings | set(BESIDE_ROOMS)
    assert {"engine", "store"} < wings


@pytest.mark.parametrize(("subject", "status"), [("tests: count to three", 0), ("tests: counted to three", 1)])
def test_the_hook_reads_the_file_that_git_names(tmp_path: Path, subject: str, status: int) -> None:
    message = tmp_path / "COMMIT_EDITMSG"
    message.write_text(subject + "\n")
    command = [sys.executable, "-m", "scripts.commit_message", str(message)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert ("does not look imperative" in done.stderr) == bool(status)
