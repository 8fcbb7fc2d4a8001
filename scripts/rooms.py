"""Find the tests of a room or of a changed file: `tests/engine/reconcile` tests `core/refold/engine/reconcile`."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parent.parent

ELSEWHERE = {
    "benchmarks": "tests/test_benchmarks.py",
    "compose.yaml": "tests/test_packaging.py",
    "core/refold/__init__.py": "tests/test_packaging.py",
    "core/refold/errors.py": "tests/cli/test_errors.py",
    "docs": "tests/test_docs.py",
    "migrations": "tests/store/test_schema.py",
    "projections": "tests/engine/deployment/test_analyst_views.py",
    "pyproject.toml": "tests/test_packaging.py",
    "sql": "tests/store",
    "sql/views": "tests/engine/deployment/test_analyst_views.py",
    ".pre-commit-config.yaml": "tests/scripts",
}
"""The tests of what has no folder of the same name below `tests/`. The longest prefix counts."""


class UnknownRoom(Exception):
    """No room has this name. The message suggests the nearest ones."""

    def __init__(self, name: str, near: list[str]) -> None:
        hint = f"did you mean {' or '.join(near)}?" if near else "`scripts/test --list` shows the rooms."
        super().__init__(f"no room is called {name!r}; {hint}")


def suggest(word: str, known: Iterable[str]) -> list[str]:
    """Return what was probably meant by a word: an equal last part first, then similar names."""
    known = sorted(known)
    ends = [name for name in known if name.rpartition("/")[2] == word.rpartition("/")[2]]
    return ends[:3] or get_close_matches(word, known, n=2, cutoff=0.6)


def rooms(root: Path = ROOT) -> list[str]:
    """Return the name of every room: a package of refold, or a folder of tests."""
    packages = (path.parent.relative_to(root / "core/refold") for path in root.glob("core/refold/*/**/__init__.py"))
    tests = (path.parent.relative_to(root / "tests") for path in root.glob("tests/*/**/test_*.py"))
    return sorted({path.as_posix() for path in (*packages, *tests)})


def folder_of(room: str, root: Path = ROOT) -> str | None:
    """Return the folder with the tests of a room, or of the nearest room around it that has any."""
    here = PurePosixPath(room)
    while here.parts:
        folder = root / "tests" / here
        if any(folder.glob("**/test_*.py")):
            return f"tests/{here}"
        here = here.parent
    return None


def resolve(word: str, root: Path = ROOT) -> list[str]:
    """Return the paths of the tests that a word of the command line means.

    A word is a room (`engine/reconcile`), its import path (`refold.engine.reconcile`), or a path of source or tests.
    A source file means the tests that import it or are named after it, or else its whole room.
    Raises UnknownRoom.
    """
    name = word.removeprefix("./").rstrip("/")
    if name.startswith("refold."):
        name = name.removeprefix("refold.").replace(".", "/")
    if name.startswith("tests/") and (root / name.partition("::")[0]).exists():
        return [name]
    if elsewhere := _elsewhere(name):
        return [elsewhere]
    name = name.removeprefix("core/refold/").removeprefix("tests/").removesuffix(".py")
    known = rooms(root)
    if name not in known and (root / f"core/refold/{name}.py").is_file():
        name, source = name.rpartition("/")[0], f"core/refold/{name}.py"
        if near := _nearest(source, folder_of(name, root), root):
            return near
    tests = folder_of(name, root) if name in known else None
    if tests is None:
        raise UnknownRoom(word, suggest(name, {*known, "benchmarks", "migrations", "projections", "sql"}))
    return [tests]


def touched(changed: Iterable[str], root: Path = ROOT) -> tuple[list[str], list[str]]:
    """Return the test files that changed files call for, nearest first, and the changed files without tests.

    Nearest are changed tests, then tests of a touched room that import or are named after a changed module; the rest
    of these rooms follows. Only Python and what `ELSEWHERE` lists call for tests.
    """
    own: list[str] = []
    near: list[str] = []
    rest: list[str] = []
    untested: list[str] = []
    for name in changed:
        path = PurePosixPath(name)
        if path.parts[0] == "tests":
            if path.name.startswith("test_") and path.suffix == ".py":
                own += [name] if (root / name).exists() else []
            elif path.parts[1] != "support" and (folder := folder_of("/".join(path.parts[1:-1]), root)):
                rest.append(folder)
            elif path.suffix == ".py":
                untested.append(name)
            continue
        tests = _elsewhere(name)
        if tests is None and path.suffix == ".py":
            room = name.removeprefix("core/refold/").rpartition("/")[0]
            tests = folder_of(room, root)
            near += _nearest(name, tests, root)
            untested += [] if tests else [name]
        rest += [tests] if tests else []
    files = [file for folder in rest for file in _files(folder, root)]
    return list(dict.fromkeys([*own, *near, *files])), untested


def _elsewhere(name: str) -> str | None:
    prefixes = [name, *(parent.as_posix() for parent in PurePosixPath(name).parents)]
    return next((ELSEWHERE[prefix] for prefix in prefixes if prefix in ELSEWHERE), None)


def _files(tests: str, root: Path) -> list[str]:
    if tests.endswith(".py"):
        return [tests]
    return sorted(path.relative_to(root).as_posix() for path in (root / tests).glob("**/test_*.py"))


def _nearest(changed: str, tests: str | None, root: Path) -> list[str]:
    if tests is None:
        return []
    module = changed.removeprefix("core/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    package, _, stem = module.rpartition(".")
    words = (f"from {module} import", f"import {module}\n", f"from {package} import {stem}\n")
    files = _files(tests, root)
    named = [file for file in files if file.rpartition("/")[2].startswith(f"test_{stem}")]
    importing = [file for file in files if any(word in (root / file).read_text() for word in words)]
    return list(dict.fromkeys([*named, *importing]))
