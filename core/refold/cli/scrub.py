"""`refold scrub`: is the log what it was when it was written?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import psycopg
import typer

from refold.cli.app import DRIFT, TRUST, app
from refold.cli.bars import progress
from refold.cli.output import as_json, counted, line, note, table
from refold.cli.session import AsJson, DatabaseUrl, session
from refold.engine.scrub.accept import Accepted, would_accept
from refold.engine.scrub.accept import accept as accept_damage
from refold.engine.scrub.accept import damaged as damaged_segments
from refold.engine.scrub.scrub import Scrubbed
from refold.engine.scrub.scrub import scrub as verify
from refold.errors import InputError
from refold.store.log.integrity import Damage
from refold.store.log.seal import seal, segments
from refold.suggest import did_you_mean

SHOWN = 50
"""Damage that is listed on the screen; --json gives more."""

group = typer.Typer(invoke_without_command=True)
app.add_typer(group, name="scrub", rich_help_panel=TRUST)


@group.callback()
def scrub(ctx: typer.Context, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Verify the log itself: every event against the ledger, full slices against their sealed checksums.

    An event that was changed, lost or added behind refold's back is named, and is an incident (log_damage) until it
    is as it was. Meanwhile nothing is healed from it: the log is the truth, and only a person can know where to get it
    from, or say that it goes on without (refold scrub accept). Workers do the same by portions.

    Slices of 16,384 positions that are full and to which nobody can write any more are sealed first: what is there is
    what counts from then on.

    Exit status: 0 the log is as it was written, 1 it is damaged, 2 it could not be verified.

    \b
    Examples:
      refold scrub
      refold scrub --json
      refold scrub accept refold.events_000000000000001 --dry-run
    """
    if ctx.invoked_subcommand is not None:
        return
    with session(database_url) as conn, progress() as bars:
        seal(conn)
        task = bars.add_task("verifying", total=None, note="")
        found = verify(conn, report=lambda done, total: bars.update(task, completed=done, total=total))
    if json:
        as_json(asdict(found) | {"damage": [asdict(one) for one in found.damage]})
    else:
        _show(found)
    if found.damage:
        raise typer.Exit(DRIFT)


@group.command()
def accept(
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help="The segment, as `refold scrub` names it.")],
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why; it stays on record.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be accepted, and change nothing.")
    ] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Go on without what a segment of the log has lost: it counts as it stands.

    Who, when, why and what was lost is kept in refold.acceptances. The ledger keeps the ids of missing events: whoever
    sends one again gets a conflict that says so. It takes over the content of changed events and the ids of foreign
    ones, and sealed checksums are taken anew. Then metrics are healed to what the log holds now: within a minute where
    events came or went, by refold reconcile where their content changed.

    The login must be one that may act as refold_owner.

    \b
    Examples:
      refold scrub accept refold.events_000000000000001 --dry-run
      refold scrub accept refold.events_000000000000001 --reason "disk 3"
    """
    if not dry_run and not (reason or "").strip():
        raise InputError(
            "--reason is missing: what is given up here is given up for good",
            remedy='Say why: --reason "…"; or look first: --dry-run.',
        )
    with session(database_url) as conn:
        name = _known(conn, segment)
        found = would_accept(conn, name) if dry_run else accept_damage(conn, name, (reason or "").strip())
    if json:
        as_json(asdict(found))
    else:
        _show_accepted(found, dry_run=dry_run)


def _known(conn: psycopg.Connection, name: str) -> str:
    """The segment of a name, with or without its schema."""
    open_ones = damaged_segments(conn)
    names = [*open_ones, *(one.name for one in segments(conn) if one.name not in open_ones)]
    for one in (name, f"refold.{name}"):
        if one in names:
            return one
    raise InputError(
        f"the log has no segment {name}.{did_you_mean(name, names)}",
        remedy=f"Damaged: {', '.join(open_ones) or 'none that is known; run `refold scrub`'}.",
    )


def _show_accepted(found: Accepted, *, dry_run: bool) -> None:
    if not found.damage:
        line(f"{found.segment} is as it was written: there is nothing to accept")
        return
    done = "would be accepted (--dry-run)" if dry_run else "accepted; refold.acceptances keeps who, when, why and what"
    parts = [
        f"{counted(number, 'event')} {fault}"
        for number, fault in ((found.missing, "missing"), (found.changed, "changed"), (found.unknown, "unknown"))
        if number
    ]
    line(f"{found.segment}: {', '.join(parts) or counted(len(found.slices), 'sealed checksum')} {done}")
    _table(found.damage)
    if not dry_run:
        note("`refold reconcile` brings the metrics to what the log holds now.")


def _show(found: Scrubbed) -> None:
    checked = f"{found.events:,} events in {found.segments:,} segments, {found.sealed:,} of the events sealed"
    if not found.damage:
        line(f"the log is as it was written: {checked}")
        return
    line(
        f"damaged: {len(found.damage):,} found among {checked}. Nothing is healed from it: restore them from a backup, "
        "or `refold scrub accept SEGMENT --reason …`."
    )
    _table(found.damage)


def _table(damage: list[Damage]) -> None:
    table(
        ("SEGMENT", "FAULT", "EVENT", "POSITION", ""),
        [(one.segment, one.fault, one.event_id, one.position, one.detail) for one in damage[:SHOWN]],
        right=("POSITION",),
    )
    if len(damage) > SHOWN:
        note(f"the first {SHOWN} of {len(damage):,}; --json lists more")
