"""What `refold deploy` says and does about captures: the plan, its SQL, and the rows that a backfill would add."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from refold.cli.output import block, note, table
from refold.cli.session import READERS, session
from refold.engine.capture import deploy as capturing
from refold.engine.capture.deploy import CaptureChange
from refold.engine.capture.probe import checked
from refold.errors import RefoldError
from refold.model.capture.capture_file import CaptureFile, load_captures
from refold.store import captures as captures_store


def captures_of(url: str | None, folder: Path, mistakes: list[RefoldError]) -> list[CaptureChange]:
    """Return what a deploy would change for the captures of a folder, and add the mistakes in their files."""
    files: list[CaptureFile] = load_captures(folder, mistakes)
    fitting = []
    if files:
        with session(url, None) as login:
            fitting = checked(login, files, mistakes)
    with session(url, READERS) as conn:
        captures_store.insist_on_tables(conn)
        return capturing.plan(conn, fitting, {one.name for one in files})


def deploy_captures(url: str | None, changes: Sequence[CaptureChange]) -> list[str]:
    """Make the captures of a plan, and return the names of those that changed."""
    made = [one.name for one in changes if one.makes]
    if made:
        with session(url, "refold_capture") as conn:
            capturing.deploy(conn, changes)
    return made


def show_captures(changes: Sequence[CaptureChange], *, sql: bool) -> None:
    rows = [
        (one.name, one.action, one.table and f"{one.table.schema}.{one.table.name}", one.because)
        for one in changes
        if one.file is not None
    ]
    if rows:
        table(("CAPTURE", "ACTION", "TABLE", "WHY"), rows)
    for one in changes:
        made = one.sql() if sql and one.makes else None
        if made is not None:
            block(";\n\n".join(made.statements()) + ";")
    left = [one.name for one in changes if one.file is None]
    if left:
        note(f"captures without a file here are left alone: {', '.join(left)} (`refold captures drop` removes one)")


def show_backfills(changes: Sequence[CaptureChange]) -> None:
    for one in changes:
        made = one.sql()
        if one.action == "new" and made is not None and made.grants:
            note(f"rows that are in the table already have no events: `refold captures backfill {one.name}` adds them")


def capture_change(change: CaptureChange) -> dict[str, object]:
    made = change.sql() if change.makes else None
    return {
        "capture": change.name,
        "action": change.action,
        "because": change.because,
        "table": None if change.table is None else f"{change.table.schema}.{change.table.name}",
        "file": None if change.file is None else change.file.path,
        "statements": [] if made is None else made.statements(),
    }
