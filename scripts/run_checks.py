"""`scripts/check`: what finds most mistakes before a commit, in a short time."""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from scripts.command import Parser, at_root, environment, fail, tool
from scripts.rooms import UnknownRoom, resolve, touched
from scripts.time_limit import STOPPED

SECONDS = 30
WORKERS = 2
"""Each starts a server, which takes seconds of these."""

HELP = f"""Run the static checks, and the tests of the rooms that your changes touch.

Static: ruff, ruff format --check, mypy, lint-imports, and the schemas of compose.yaml and the workflows.
Tests: changes are what differs from the merge base with main, and files that git does not know yet. The nearest tests
run first: changed tests, then tests that import a changed module, then the rest of its room. Slow tests are left out.
The run stops after {SECONDS} seconds, or at the first failure. `scripts/test ROOM` runs a room to its end.

  scripts/check                      before a commit
  scripts/check engine/reconcile     with the tests of this room, whatever has changed
  scripts/check --no-tests           the static checks only
  scripts/check --seconds 300        give the tests five minutes
"""


def main() -> None:
    """Run all checks, also after one has failed; exit with 1 if any has."""
    parser = Parser("scripts/check", description=HELP, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("room", nargs="*", help="test these rooms instead of what has changed")
    parser.add_argument(
        "--base", metavar="REV", help="the revision to compare with (default: the merge base with main)"
    )
    parser.add_argument("--seconds", type=int, default=SECONDS, help="time for the tests (default: %(default)s)")
    parser.add_argument("--no-tests", action="store_true", help="run no tests")
    options, further = parser.parse()
    at_root()
    began = time.monotonic()
    tests: list[str] = []
    if not options.no_tests:
        tests = _named(options.room) if options.room else _changed(options.base)
    failed = [name for name, command in _static() if not _step(name, command)]
    stopped = False
    if tests:
        quick = ["-q", "-x", "--hypothesis-profile=quick"]
        limit = ["-n", str(WORKERS), "-p", "scripts.time_limit", f"--session-timeout={options.seconds}"]
        print(f"\n=== tests: {len(tests)} {'paths' if options.room else 'files'}, for at most {options.seconds} s")
        command = [tool("python"), "-m", "pytest", *limit, *quick, *tests, *further]
        status = subprocess.run(command, env=environment()).returncode
        stopped = status == STOPPED
        if status not in (0, STOPPED, 5):  # 5: all of them are slow
            failed.append("tests")
    print(f"\n{time.monotonic() - began:.0f} s: " + (f"failed: {', '.join(failed)}" if failed else "no check failed"))
    if stopped:
        print(f"The tests were stopped after {options.seconds} s without a failure; `scripts/test ROOM` runs them all.")
    sys.exit(1 if failed else 0)


def _static() -> list[tuple[str, list[str]]]:
    schema = [tool("check-jsonschema"), "--builtin-schema"]
    workflows = sorted(map(str, Path(".github/workflows").glob("*.yml")))
    return [
        ("ruff", [tool("ruff"), "check", "."]),
        ("format", [tool("ruff"), "format", "--check", "."]),
        ("mypy", [tool("mypy")]),
        ("lint-imports", [tool("lint-imports")]),
        ("compose.yaml", [*schema, "vendor.compose-spec", "compose.yaml"]),
        ("workflows", [*schema, "vendor.github-workflows", *workflows]),
    ]


def _step(name: str, command: Sequence[str]) -> bool:
    began = time.monotonic()
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(f"{'ok    ' if done.returncode == 0 else 'FAILED'} {name} ({time.monotonic() - began:.1f} s)", flush=True)
    if done.returncode:
        print(done.stdout)
    return done.returncode == 0


def _named(names: Sequence[str]) -> list[str]:
    try:
        return list(dict.fromkeys(path for name in names for path in resolve(name)))
    except UnknownRoom as error:
        fail(str(error), "scripts/test --list")


def _changed(base: str | None) -> list[str]:
    since = base or _merge_base()
    changed = _git("diff", "--name-only", since) + _git("ls-files", "--others", "--exclude-standard")
    tests, untested = touched(changed)
    for name in untested:
        print(f"note: no room's tests belong to {name}; CI runs them all")
    return tests


def _merge_base() -> str:
    for main_branch in ("main", "origin/main"):
        found = subprocess.run(["git", "merge-base", "HEAD", main_branch], capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout.strip()
    fail("git finds no merge base with main or origin/main", "scripts/check --base REV")


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        fail(f"git {arguments[0]}: {done.stderr.strip()}", "scripts/check --help")
    return done.stdout.split("\n")[:-1]
