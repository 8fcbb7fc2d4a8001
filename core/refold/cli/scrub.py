"""`refold scrub`: is the log what it was when it was written?"""

from __future__ import annotations

from dataclasses import asdict

import typer

from refold.cli.app import DRIFT, TRUST, app
from refold.cli.output import as_json, line, note, progress, table
from refold.cli.session import AsJson, DatabaseUrl, session
from refold.log.seal import seal
from refold.scrub.scrub import Scrubbed
from refold.scrub.scrub import scrub as verify

SHOWN = 50
"""Damage that is listed on the screen; --json gives more."""


@app.command(rich_help_panel=TRUST)
def scrub(json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Verify the log itself: every event against the ledger, full slices against their sealed figures.

    An event that was changed, lost or added behind refold's back is named, and is an incident (log_damage) until it
    is as it was. Nothing is healed: the log is the truth, and only a person can know where to get it from.

    Slices of 16,384 positions that are full and to which nobody can write any more are sealed first: what is there is
    what counts from then on.

    Exit status: 0 the log is as it was written, 1 it is damaged, 2 it could not be verified.

    \b
    Examples:
      refold scrub
      refold scrub --json
    """
    with session(database_url) as conn, progress() as bars:
        seal(conn)
        task = bars.add_task("verifying", total=None, note="segments")
        found = verify(conn, report=lambda done, total: bars.update(task, completed=done, total=total))
    if json:
        as_json(asdict(found) | {"damage": [asdict(one) for one in found.damage]})
    else:
        _show(found)
    if found.damage:
        raise typer.Exit(DRIFT)


def _show(found: Scrubbed) -> None:
    checked = f"{found.events:,} events in {found.segments:,} segments, {found.sealed:,} of the events sealed"
    if not found.damage:
        line(f"the log is as it was written: {checked}")
        return
    line(f"damaged: {len(found.damage):,} found among {checked}. Nothing was healed: restore them from a backup.")
    table(
        ("SEGMENT", "FAULT", "EVENT", "POSITION", ""),
        [(one.segment, one.fault, one.event_id, one.position, one.detail) for one in found.damage[:SHOWN]],
        right=("POSITION",),
    )
    if len(found.damage) > SHOWN:
        note(f"the first {SHOWN} of {len(found.damage):,}; --json lists more")
