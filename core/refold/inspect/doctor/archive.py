"""Check of the archive: claimed, reachable from this machine as far as it can be told, and not behind."""

from __future__ import annotations

from importlib.util import find_spec

import psycopg

from refold.inspect.archive import ArchiveStatus, archive_status
from refold.inspect.doctor.check import Check, looking
from refold.prose import counted
from refold.store import incidents

NAME = "archive"


def archive(conn: psycopg.Connection) -> list[Check]:
    """Check the archive, where there is one.

    Args:
        conn: connection of the login.
    """
    with looking(conn):
        found = archive_status(conn)
        damaged = len(incidents.open_incidents(conn, "archive_damage"))
    if found is None:
        return []
    checks = judged(found, damaged)
    if find_spec("pyarrow") is None:
        checks.append(
            Check(NAME, "warn", "this machine cannot archive: it lacks pyarrow", "Run `pip install 'refold[archive]'`.")
        )
    return checks or [Check(NAME, "ok", f"{found.words}, in {found.location}")]


def judged(found: ArchiveStatus, damaged: int) -> list[Check]:
    """Return what is wrong with an archive. Pure.

    Args:
        found: its state.
        damaged: open incidents of files that are not what was written, those of purged segments too.
    """
    checks = []
    if not found.claimed:
        checks.append(
            Check(NAME, "warn", f"this database does not own {found.location}", "`refold archive claim`, if it shall.")
        )
    if lost := max(found.gone, damaged):
        checks.append(
            Check(
                NAME, "warn", f"the store has lost or changed the files of {counted(lost, 'segment')}",
                "`refold incidents` says what to do.",
            )
        )  # fmt: skip
    if found.failures:
        said = f": {found.error}" if found.error else ""
        checks.append(
            Check(
                NAME, "warn", f"archiving has failed {counted(found.failures, 'time')}{said}",
                "Nothing is lost, and it is tried again.",
            )
        )  # fmt: skip
    return checks
