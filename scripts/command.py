"""What `scripts/check` and `scripts/test` share: options with a hint, and how pytest is run."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from scripts.rooms import ROOT, suggest

SETUP = "python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]'"
MEMORY_DISK = Path("/dev/shm")
ENOUGH = 2 * 2**30
"""Bytes that must be free in memory for the tests' databases to be kept there."""


class Parser(argparse.ArgumentParser):
    """A parser of options that suggests the nearest one."""

    def parse(self) -> tuple[argparse.Namespace, list[str]]:
        """Return the options, and what follows `--`: options for pytest."""
        words, further = sys.argv[1:], []
        if "--" in words:
            cut = words.index("--")
            words, further = words[:cut], words[cut + 1 :]
        options, unknown = self.parse_known_args(words)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            near = suggest(unknown[0], known)
            hint = f"did you mean {near[0]}?" if near else "pytest's own options go after `--`."
            self.error(f"unknown option {unknown[0]}; {hint}")
        return options, further

    def error(self, message: str) -> NoReturn:
        fail(message, f"{self.prog} --help")


def fail(message: str, remedy: str) -> NoReturn:
    """Print an error and what to do about it, and exit with 2."""
    print(f"error: {message}\n  try: {remedy}", file=sys.stderr)
    raise SystemExit(2)


def tool(name: str) -> str:
    """Return the path of a tool beside this Python, or on the PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or fail(f"{name} is not installed in this environment", SETUP)


def environment() -> dict[str, str]:
    """Return the environment of pytest: the tests' databases are kept in memory where there is room."""
    inherited = dict(os.environ)
    if "TMPDIR" not in inherited and os.access(MEMORY_DISK, os.W_OK) and shutil.disk_usage(MEMORY_DISK).free > ENOUGH:
        inherited["TMPDIR"] = str(MEMORY_DISK)
    return inherited


def at_root() -> None:
    """Make the project's root the working directory."""
    os.chdir(ROOT)
