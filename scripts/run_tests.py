"""`scripts/test`: the tests of rooms."""

from __future__ import annotations

import os
import sys
from argparse import RawDescriptionHelpFormatter

from scripts.command import Parser, at_root, environment, fail, tool
from scripts.rooms import UnknownRoom, folder_of, resolve, rooms

HELP = """Run the tests of one or more rooms.

A room is a package below core/refold or a folder below tests; both have the same name. A path of a source file or of
a test file is understood too. A room without tests of its own runs those of the room around it, and says so.

  scripts/test store                              all tests of the event log, the catalogue and the schema
  scripts/test engine/reconcile model/stream      two rooms
  scripts/test core/refold/model/stream/cursor.py the tests nearest to a source file
  scripts/test engine/scrub --quick               without slow tests, with fewer generated examples
  scripts/test store -- -n 0 -x --pdb             in one process, with a debugger: pytest's options follow --
"""


def main() -> None:
    """Run pytest in place of this process."""
    parser = Parser("scripts/test", description=HELP, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("room", nargs="*", help="a room, a source file or a test file")
    parser.add_argument("--quick", action="store_true", help="leave slow tests out; fewer generated examples")
    parser.add_argument("--list", action="store_true", help="list the rooms and exit")
    options, further = parser.parse()
    at_root()
    if options.list:
        for room in rooms():
            found = folder_of(room)
            print(room if found in (None, f"tests/{room}") else f"{room}  ({found})")
        return
    if not options.room:
        fail("name a room", "scripts/test --list")
    paths: list[str] = []
    for word in options.room:
        try:
            paths += resolve(word)
        except UnknownRoom as error:
            fail(str(error), "scripts/test --list")
    print("tests:", *paths, file=sys.stderr)
    # Without slow tests as by default; else with them.
    chosen = ["--hypothesis-profile=quick"] if options.quick else ["-m", "not exhaustive and not node"]
    pytest = tool("pytest")
    os.execve(pytest, [pytest, *chosen, *paths, *further], environment())
