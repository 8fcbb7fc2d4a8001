"""CONTRIBUTING.md tells the truth about what can be looked up."""

from __future__ import annotations

import re

from scripts.commit_message import BESIDE_ROOMS
from scripts.rooms import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_it_has_a_row_for_every_wing() -> None:
    table = TEXT.partition("| wing |")[2].partition("\n\n")[0]
    rows = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    assert rows == {path.parent.name for path in ROOT.glob("core/refold/*/__init__.py")}


def test_it_names_every_area_of_a_commit() -> None:
    (sentence,) = re.findall(r"^An area is a wing, or (.*)\.$", TEXT, re.M)
    assert re.findall(r"`(\w+)`", sentence) == list(BESIDE_ROOMS)


def test_the_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:core|docs|scripts|tests|\.ci)/[\w./]+)`", TEXT))
    assert len(named) > 5
    assert {name for name in named if not (ROOT / name).exists()} == set()
