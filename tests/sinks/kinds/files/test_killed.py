"""A process killed at any step of a replacement leaves the old or the new file, and nothing of it stays for long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from refold.sinks.kinds.files import Files, Options
from refold.sinks.receiver import Owner, Version
from tests.support.folders import ONE, PURCHASES, TWO, folder, names, purchases

OLD, NEW = purchases(1, 2), purchases(2, 3, 4, note="ä" * 200_000)

_PROGRAM = """
import itertools, json, os, signal, sys
from pathlib import Path
from tests.sinks.kinds.files.test_killed import NEW, OLD
from tests.support.folders import ONE, TWO, folder

base, before, after, is_removed = json.loads(sys.argv[1])
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "row")

def rows():
    for change in [] if is_removed else NEW:
        sys.audit("row", place)
        yield change
    sys.audit("row", place)

def attempt(last):
    steps = 0
    folder(place, format=before).replace(ONE, 7, OLD)
    files = folder(place, format=after)
    def count(event, arguments):
        nonlocal steps
        if event in EVENTS and not isinstance(arguments[0], int) and str(arguments[0]).startswith(place):
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    files.replace(TWO, 7, rows())

for last in itertools.count(1):
    place = os.path.join(base, str(last))
    child = os.fork()
    if child == 0:
        attempt(last)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
    assert os.WTERMSIG(status) == signal.SIGKILL
"""


def killed(base: Path, before: str, after: str, *, is_removed: bool = False) -> list[Path]:
    """Replaces a slice once for each step of a replacement, killed before it; returns the folders.

    A step opens, renames or removes a file of the folder, or takes a row. The last replacement was not killed.
    """
    arguments = json.dumps([str(base), before, after, is_removed])
    done = subprocess.run([sys.executable, "-c", _PROGRAM, arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return sorted(base.iterdir(), key=lambda path: int(path.name))


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def version(path: Path, format: str) -> Version | None:
    return Files(Options.model_validate({"url": str(path), "format": format})).open(PURCHASES, Owner("", frozenset()))


def contents(base: Path, format: str) -> tuple[bytes, bytes]:
    """The files that OLD and NEW become."""
    made = []
    base.mkdir(exist_ok=True)
    for name, rows in (("old", OLD), ("new", NEW)):
        folder(base / name, format=format).replace(ONE, 7, rows)
        made.append((base / name / f"slice-7.{format}").read_bytes())
    return made[0], made[1]


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_a_kill_leaves_the_old_or_the_new_file(tmp_path: Path, format: str) -> None:
    (base := tmp_path / "steps").mkdir()
    old, new = contents(tmp_path, format)
    seen, leftovers = [], 0
    for place in killed(base, format, format):
        found = content(place / f"slice-7.{format}")
        assert found in (old, new)
        marked = json.loads((place / "_refold.json").read_text())["version"]
        assert marked == [1, 1] or (marked == [1, 2] and found == new)
        left = [name for name in names(place) if name not in ("_refold.json", f"slice-7.{format}")]
        assert all(name.startswith(".") for name in left)
        leftovers += len(left)
        seen.append((found == new, marked))

        files = folder(place, format=format)
        assert names(place) == ["_refold.json", f"slice-7.{format}"]
        files.replace(TWO, 7, NEW)
        assert content(place / f"slice-7.{format}") == new
        assert version(place, format) == TWO
    assert len(seen) >= 12
    assert seen == sorted(seen)
    assert [1, 1] in [marked for is_new, marked in seen if is_new], "the version follows the file"
    assert leftovers >= 5


def test_a_kill_leaves_the_old_file_or_none(tmp_path: Path) -> None:
    (base := tmp_path / "steps").mkdir()
    old, _ = contents(tmp_path, "csv")
    seen = []
    for place in killed(base, "csv", "csv", is_removed=True):
        found = content(place / "slice-7.csv")
        assert found in (old, None)
        marked = json.loads((place / "_refold.json").read_text())["version"]
        assert marked == [1, 1] or found is None
        seen.append(found is None)
        folder(place, format="csv").replace(TWO, 7, [])
        assert names(place) == ["_refold.json"]
    assert len(set(seen)) == 2


def test_a_kill_while_the_format_changes_leaves_at_least_one(tmp_path: Path) -> None:
    (base := tmp_path / "steps").mkdir()
    old, _ = contents(tmp_path / "csv", "csv")
    _, new = contents(tmp_path / "jsonl", "jsonl")
    seen = set()
    for place in killed(base, "csv", "jsonl"):
        found = content(place / "slice-7.csv"), content(place / "slice-7.jsonl")
        assert found in ((old, None), (old, new), (None, new))
        seen.add(found)
        folder(place, format="jsonl").replace(TWO, 7, NEW)
        assert names(place) == ["_refold.json", "slice-7.jsonl"]
    assert len(seen) == 3
