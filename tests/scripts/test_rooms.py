"""Which tests a room and a changed file call for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.rooms import ROOT, UnknownRoom, folder_of, resolve, rooms, suggest, touched

TREE = {
    "core/refold/engine/__init__.py": "",
    "core/refold/engine/heal/__init__.py": "",
    "core/refold/engine/heal/compare.py": "",
    "core/refold/engine/heal/slices.py": "",
    "core/refold/store/__init__.py": "",
    "core/refold/store/builds/__init__.py": "",
    "core/refold/store/builds/names.py": "",
    "core/refold/prose.py": "",
    "tests/engine/heal/conftest.py": "",
    "tests/engine/heal/test_compare_rows.py": "",
    "tests/engine/heal/test_drift.py": "",
    "tests/engine/heal/test_edges.py": "from refold.engine.heal.slices import edge\n",
    "tests/store/test_roles.py": "",
    "tests/faults/test_races.py": "",
    "tests/support/making.py": "",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_rooms_are_packages_and_folders_of_tests(tree: Path) -> None:
    assert rooms(tree) == ["engine", "engine/heal", "faults", "store", "store/builds"]


@pytest.mark.parametrize(
    ("word", "tests"),
    [
        ("engine/heal", ["tests/engine/heal"]),
        ("engine/heal/", ["tests/engine/heal"]),
        ("refold.engine.heal", ["tests/engine/heal"]),
        ("core/refold/engine/heal", ["tests/engine/heal"]),
        ("tests/engine/heal", ["tests/engine/heal"]),
        ("tests/store/test_roles.py::test_one", ["tests/store/test_roles.py::test_one"]),
        ("engine/heal/compare", ["tests/engine/heal/test_compare_rows.py"]),
        ("core/refold/engine/heal/slices.py", ["tests/engine/heal/test_edges.py"]),
        ("store/builds", ["tests/store"]),
        ("core/refold/store/builds/names.py", ["tests/store"]),
        ("faults", ["tests/faults"]),
        ("sql/functions/append.sql", ["tests/store"]),
        ("sql/views/daily.sql", ["tests/engine/deployment/test_analyst_views.py"]),
    ],
)
def test_what_a_word_means(tree: Path, word: str, tests: list[str]) -> None:
    assert resolve(word, tree) == tests


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("heal", "did you mean engine/heal?"),
        ("engine/heel", "did you mean engine/heal"),
        ("builds", "did you mean store/builds?"),
        ("nothing like it", "`scripts/test --list` shows the rooms."),
    ],
)
def test_an_unknown_room_is_refused_with_a_hint(tree: Path, word: str, hint: str) -> None:
    with pytest.raises(UnknownRoom, match=hint) as refusal:
        resolve(word, tree)
    assert repr(word) in str(refusal.value)


def test_the_nearest_tests_of_what_has_changed_come_first(tree: Path) -> None:
    changed = ["core/refold/engine/heal/slices.py", "tests/faults/test_races.py", "tests/store/test_gone.py"]
    assert touched(changed, tree) == (
        [
            "tests/faults/test_races.py",
            "tests/engine/heal/test_edges.py",
            "tests/engine/heal/test_compare_rows.py",
            "tests/engine/heal/test_drift.py",
        ],
        [],
    )


def test_shared_fixtures_call_for_the_tests_beside_them(tree: Path) -> None:
    files = [f"tests/engine/heal/test_{name}.py" for name in ("compare_rows", "drift", "edges")]
    assert touched(["tests/engine/heal/conftest.py"], tree) == (files, [])


def test_changed_code_without_tests_is_told(tree: Path) -> None:
    changed = ["core/refold/prose.py", "tests/support/making.py", "tests/conftest.py", "README.md"]
    assert touched(changed, tree) == ([], changed[:3])


def test_suggestions_prefer_an_equal_last_part() -> None:
    assert suggest("reconcile", ["engine/recovery", "engine/reconcile"]) == ["engine/reconcile"]
    assert suggest("--quik", ["--quick", "--list"]) == ["--quick"]
    assert suggest("zebra", ["store"]) == []


def test_every_room_of_this_project_finds_tests() -> None:
    assert [room for room in rooms() if folder_of(room) is None] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test", "reconcile"], "did you mean engine/reconcile?"),
        (["test", "--quik"], "did you mean --quick?"),
        (["test"], "name a room"),
        (["check", "--no-test"], "did you mean --no-tests?"),
        (["check", "reconcile"], "did you mean engine/reconcile?"),
    ],
)
def test_a_mistake_is_an_error_with_a_remedy(arguments: list[str], message: str) -> None:
    name, *options = arguments
    done = subprocess.run([sys.executable, ROOT / "scripts" / name, *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert "  try: scripts/" in done.stderr


@pytest.mark.parametrize("name", ["check", "test"])
def test_help_shows_examples(name: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / name, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert f"\n  scripts/{name} " in done.stdout
