"""The commit-msg hook: a subject is `area: imperative summary` in at most 72 characters.

python -m scripts.commit_message FILE    check the message in FILE, as git's hook commit-msg gives it
"""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches
from pathlib import Path

from scripts.rooms import ROOT

LONGEST = 72
BESIDE_ROOMS = ("docs", "tests", "ci", "chaos", "benchmarks", "deps", "release")
WRITTEN_BY_GIT = ("Merge ", "Revert ", "fixup! ", "squash! ", "amend! ")
SCISSORS = "# ------------------------ >8 ------------------------"
NOT_IMPERATIVE = re.compile(r"(?:\w+ed|\w+ing|(?!pass|process|focus|discuss|address|express|press|cross|miss)\w+s)\b")
"""First words such as `added`, `adding` and `adds`: a guess by their endings."""
IMPERATIVE = frozenset({"bring", "embed", "feed", "need", "seed", "shed", "speed", "spring", "string"})
"""Verbs that only look as if they were not."""


def areas(root: Path = ROOT) -> list[str]:
    """Return what a subject may begin with: the rooms at refold's top, then what lies beside them."""
    rooms = sorted(path.parent.name for path in root.glob("core/refold/*/__init__.py"))
    return [*rooms, *BESIDE_ROOMS]


def subject_of(message: str) -> str:
    """Return the first line that is no comment of git's."""
    lines = message.partition(SCISSORS)[0].splitlines()
    return next((line.rstrip() for line in lines if line.strip() and not line.startswith("#")), "")


def complaints(message: str, known: list[str]) -> list[str]:
    """Return what is wrong with a message's subject; nothing if it is good. Pure."""
    subject = subject_of(message)
    if subject.startswith(WRITTEN_BY_GIT):
        return []
    if not subject:
        return ["the subject is empty"]
    found = []
    if len(subject) > LONGEST:
        found.append(f"the subject has {len(subject)} characters; at most {LONGEST} fit")
    area, colon, summary = subject.partition(": ")
    if not colon or not area:
        return [*found, "the subject must read `area: imperative summary`"]
    if area not in known:
        near = get_close_matches(area, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
        found.append(f"{area!r} is no area; {hint}")
    first = summary.split(" ")[0]
    if not summary.strip():
        found.append("the summary is empty")
    elif summary.endswith("."):
        found.append("the summary ends without a full stop")
    if first not in IMPERATIVE and NOT_IMPERATIVE.fullmatch(first):
        found.append(
            f"{first!r} does not look imperative: say what the commit does, as in `store: refuse an unknown version`"
        )
    return found


def main() -> None:
    """Check the file that git names; exit with 1 and say why if its subject is not good."""
    if len(sys.argv) != 2:
        sys.exit((__doc__ or "").strip())
    message = Path(sys.argv[1]).read_text()
    found = complaints(message, areas())
    if found:
        lines = [f"error: {one}" for one in found]
        sys.exit("\n".join([*lines, f"  subject: {subject_of(message)}", "  try: CONTRIBUTING.md, under Commits"]))


if __name__ == "__main__":
    main()
